"""Report of a complete `bench` run: its JSON, and the source of tables, plots and comparisons."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvnet_engine.benchmarks.latency.limits import Ceiling
from cvnet_engine.benchmarks.latency.records import Record
from cvnet_engine.benchmarks.methods.candidate import Agreement
from cvnet_engine.engine.errors import DatasetError
from cvnet_engine.engine.machine import Machine


@dataclass(frozen=True)
class Report:
    """Circumstances and measurements of a run.

    Attributes:
        date: date in the form 2026-11-24.
        seconds: duration of the run.
        agreement: image size -> method -> differences from PyTorch.
        absent: what was not timed -> reason.
    """

    command: str
    date: str
    machine: Machine
    seconds: float
    threads: int
    model: str
    trained: bool
    limits: Ceiling
    agreement: dict[str, dict[str, Agreement]]
    absent: dict[str, str]
    records: tuple[Record, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **vars(self),
            "limits": self.limits.to_json(),
            "agreement": {
                size: {name: asdict(a) for name, a in found.items()} for size, found in self.agreement.items()
            },
            "records": [record.to_json() for record in self.records],
        }

    @classmethod
    def from_json(cls, file: Path) -> Report:
        """Read a file written by `bench --json`.

        Raises:
            DatasetError: the file is missing or has other content.
        """
        try:
            return cls._of(json.loads(file.read_text()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DatasetError(f"{file}: not readable ({error}); expected what 'bench --json' wrote") from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Report:
        missing = Machine.__required_keys__ - content["machine"].keys()
        if missing:
            raise ValueError(f"machine without {', '.join(sorted(missing))}")
        typed = {
            "limits": Ceiling.from_json(content["limits"]),
            "agreement": {
                size: {name: Agreement(**a) for name, a in found.items()}
                for size, found in content["agreement"].items()
            },
            "records": tuple(map(Record.from_json, content["records"])),
        }
        return cls(**content | typed)
