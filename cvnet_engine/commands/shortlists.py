"""Shortlists from another system, for instance a vector database."""

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
    """Shortlists of paths of gallery images, best first.

    Attributes:
        shared: shortlist for every query; None if each query has a separate one.
        by_query: shortlist by the query's absolute path.
    """

    file: Path
    shared: Sequence[str] | None
    by_query: Mapping[Path, Sequence[str]]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a text file with one path per line, for every query, or a `.json` file {query: [path, ...]}.

        Raises:
            CvnetError: the file cannot be read, or has neither format.
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
                f"{file}: not shortlists ({one_line(error)}); "
                "expected one path per line, or .json: {query: [path, ...]}"
            ) from error
        return cls(file, None, {absolute(Path(query)): paths for query, paths in lists.items()})

    def of(self, query: Path) -> Sequence[str]:
        """Return the shortlist of a query.

        Raises:
            CvnetError: the file has no candidates for this query.
        """
        found = self.by_query.get(absolute(query)) if self.shared is None else self.shared
        if not found:
            raise CvnetError(f"{query}: no candidates in {self.file}; expected at least one path for each query")
        return found


def require_lists(lists: object) -> None:
    """Raise ValueError unless this is an object whose values are lists of strings."""
    if not isinstance(lists, dict):
        raise ValueError(f"it is of type {type(lists).__name__}")
    for query, paths in lists.items():
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ValueError(f"{query!r} has no list of paths")
