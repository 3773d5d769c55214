"""Settings of a benchmark run, and its circumstances, which every report states."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cvnet_engine.engine import machine
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.machine import Machine


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark.

    Attributes:
        bundles: bundles of one model.
        sizes: (height, width) px.
        galleries: numbers of descriptors for global search.
        shortlists: shortlist lengths, ascending.
        compiled: also time the reference under `torch.compile`.
        budget_s: time budget per stage; the minimum number of rounds may exceed it.
    """

    bundles: tuple[Path, ...]
    sizes: tuple[Size, ...]
    galleries: tuple[int, ...]
    shortlists: tuple[int, ...]
    threads: int
    compiled: bool
    budget_s: float


@dataclass(frozen=True)
class Circumstances:
    """Circumstances of a run.

    Attributes:
        date: date in the form 2026-11-24.
        seconds: duration of the run.
    """

    command: str
    date: str
    machine: Machine
    seconds: float
    threads: int
    model: str
    trained: bool

    @classmethod
    def of(cls, settings: Settings, command: str, started: float) -> Circumstances:
        """Return the circumstances of a run that ends now; `started` is of `time.perf_counter`."""
        manifest = Bundle(settings.bundles[0]).manifest
        return Circumstances(
            command,
            date.today().isoformat(),
            machine.describe(),
            time.perf_counter() - started,
            settings.threads,
            f"ResNet-{manifest.depth} {manifest.weights}",
            manifest.trained,
        )

    def stated(self, more: str = "") -> list[str]:
        """Return two lines: machine, threads, date and model; and the command."""
        cpu = f"{self.machine['cpu']} ({', '.join(self.machine['cpu_features'])})"
        model = self.model if self.trained else f"{self.model}, untrained"
        return [f"{cpu}, {self.threads} threads{more}; {self.date}; {model}.", f"`{self.command}`"]


def label_of(size: Size) -> str:
    """Format (height, width) as WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"
