"""Shortlists that were found by another program, for instance a vector database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cvnet_engine.engine.errors import CvnetError, one_line
from cvnet_engine.engine.files import absolute, read_text


@dataclass(frozen=True)
class Shortlists:
    """Paths of gallery images, best first.

    Attributes:
        shared: those for every query, None where each has its own.
        by_query: those of each query, by the query's absolute path.
    """

    file: Path
    shared: Sequence[str] | None
    by_query: Mapping[Path, Sequence[str]]

    @classmethod
    def read(cls, file: Path) -> Self:
        """From a text file, one shortlist for every query, a path a line; or from `.json`, {query: [path, ...]}.

        Raises:
            CvnetError: it cannot be read, or is neither.
        """
        try:
            text = read_text(file)
            if file.suffix.lower() != ".json":
                return cls(file, [line.removesuffix("\r") for line in text.split("\n") if line.strip()], {})
            lists = json.loads(text)
            require_lists(lists)
        except OSError as error:
            raise CvnetError(f"{file}: not readable ({error.strerror}); expected a file of shortlists") from error
        except (ValueError, RecursionError) as error:
            raise CvnetError(
                f"{file}: no shortlists ({one_line(error)}); expected a path a line, or in .json an object of lists"
            ) from error
        return cls(file, None, {absolute(Path(query)): paths for query, paths in lists.items()})

    def of(self, query: Path) -> Sequence[str]:
        """The shortlist of a query, by the path that it was named by.

        Raises:
            CvnetError: it has none.
        """
        found = self.by_query.get(absolute(query)) if self.shared is None else self.shared
        if not found:
            raise CvnetError(f"{query}: no candidates in {self.file}; expected at least one path for each query")
        return found


def require_lists(lists: object) -> None:
    """Raise ValueError unless these are lists of texts by name."""
    if not isinstance(lists, dict):
        raise ValueError(f"it is of type {type(lists).__name__}")
    for query, paths in lists.items():
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ValueError(f"{query!r} has no list of paths")
