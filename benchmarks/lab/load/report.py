"""Report of a load run: JSON, tables, and the requirements that must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from benchmarks.lab.load.client import LOST, Answer
from benchmarks.lab.load.phases import Cancelled, Sample
from cvnet_engine.benchmarks.tables import Table, markdown, ms
from cvnet_engine.engine.machine import Machine

FLAT = 0.05  # largest relative growth of memory that counts as flat
WINDOWS = 10  # time windows for memory; the first is the warm-up


@dataclass(frozen=True)
class Waits:
    """Waiting times of clients for one kind of request, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Waits:
        p50, p99 = np.percentile([1000 * answer.seconds for answer in answers], (50, 99))
        return cls(len(answers), float(p50), float(p99))


@dataclass(frozen=True)
class Phase:
    """Outcomes of all requests of a phase.

    Attributes:
        answered: requests answered with 200.
        refused: requests refused with 503 and Retry-After.
        late: requests that passed their deadline (504).
        lost: requests without a complete answer.
        statuses: number of other responses, by HTTP status.
        waits: waiting times of answered requests, by kind.
    """

    name: str
    seconds: float
    answered: int
    refused: int
    late: int
    lost: int
    statuses: dict[int, int]
    waits: dict[str, Waits]

    @classmethod
    def of(cls, name: str, seconds: float, answers: Sequence[Answer]) -> Phase:
        by_kind: dict[str, list[Answer]] = {}
        for answer in answers:
            if answer.status == HTTPStatus.OK:
                by_kind.setdefault(answer.kind, []).append(answer)
        answered = sum(map(len, by_kind.values()))
        refused = sum(answer.refused for answer in answers)
        others = Counter(a.status for a in answers if a.status != HTTPStatus.OK and not a.refused)
        late, lost = others.pop(HTTPStatus.GATEWAY_TIMEOUT, 0), others.pop(LOST, 0)
        waits = {kind: Waits.of(found) for kind, found in by_kind.items()}
        return cls(name, seconds, answered, refused, late, lost, dict(others), waits)

    @property
    def per_s(self) -> float:
        return self.answered / self.seconds


@dataclass(frozen=True)
class LoadReport:
    """A load run.

    Attributes:
        constant, busy, overload: the phases; see the table of `markdown`.
        queue: largest number of concurrent searches during overload.
        memory: samples from the phase of constant rate, in which `index` ran `index_runs` times.
        exceptions: tracebacks in the server's log.
        note: other load on the machine.
    """

    command: str
    date: str
    machine: Machine
    model: str
    note: str
    constant: Phase
    busy: Phase
    overload: Phase
    queue: int
    cancelled: Cancelled
    memory: list[Sample]
    index_runs: int
    exceptions: int

    @property
    def phases(self) -> tuple[Phase, ...]:
        return self.constant, self.busy, self.overload

    @property
    def memory_windows(self) -> list[float]:
        """Medians of resident bytes over equal parts of the phase of constant rate."""
        resident = [sample.resident_bytes for sample in self.memory]
        return [float(np.median(part)) for part in np.array_split(resident, WINDOWS) if len(part)]

    @property
    def spread(self) -> float:
        """Relative difference between the largest and smallest window of memory, without the first."""
        settled = self.memory_windows[1:] or self.memory_windows
        return max(settled) / min(settled) - 1

    @property
    def must_hold(self) -> dict[str, bool]:
        """Requirements on every run, on any machine, and whether this run meets them."""
        return {
            "nothing was lost": all(phase.lost == 0 for phase in self.phases),
            "no 500: answers, refusals with Retry-After and deadlines, no other error": not any(
                p.statuses for p in self.phases
            ),
            "no exception in the server's log": self.exceptions == 0,
            "within capacity nothing was refused": self.constant.refused == self.busy.refused == 0,
            "beyond capacity some were refused, and answered in the end": self.overload.refused > 0,
            "clients that went away took their work with them": self._work_stopped,
            "the gallery was opened again as it grew": self.index_runs == 0
            or self.memory[-1].images > self.memory[0].images,
            f"memory stayed flat within {FLAT:.0%}": self.spread <= FLAT,
        }

    @property
    def _work_stopped(self) -> bool:
        return self.cancelled.pairs_scored < self.cancelled.pairs_asked / 2

    def document(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return asdict(self) | {"memory_spread": self.spread, "must_hold": self.must_hold}

    def markdown(self) -> str:
        held = (f"- {'yes' if held else '**no**'}: {claim}" for claim, held in self.must_hold.items())
        cpu = self.machine["cpu"]
        lines = [
            f"{cpu}; {self.date}; {self.model}; `{self.command}`",
            "",
            *([self.note, ""] if self.note else []),
            *held,
            "",
        ]
        tables = (self._outcomes(), self._waits(), self._memory())
        return "\n".join(
            [*lines, *map(markdown, tables[:1]), self._told(), *(markdown(t, text_columns=1) for t in tables[1:])]
        )

    def _outcomes(self) -> Table:
        rows = tuple(
            (
                p.name,
                f"{p.seconds:.0f}",
                str(p.answered),
                f"{p.per_s:.1f}",
                str(p.refused),
                str(p.late),
                str(sum(p.statuses.values())),
                str(p.lost),
            )
            for p in self.phases
        )
        columns = (
            "phase",
            "seconds",
            "answered",
            "a second",
            "refused, told when to come again",
            "given up at the deadline",
            "other errors",
            "lost",
        )
        return Table("What came of every request", columns, rows)

    def _told(self) -> str:
        gone = self.cancelled
        return (
            f"At most {self.queue} searches were under way in the overload. Then {gone.clients} clients asked for "
            f"{gone.pairs_asked} pairs in all and hung up at the first scores: {gone.pairs_scored} were scored, and "
            f"the engines were idle {gone.idle_after_s:.1f} s after the last had gone.\n"
        )

    def _waits(self) -> Table:
        """Build a table with one row per kind of request."""
        rows = tuple(
            (kind, *(cell for phase in self.phases for cell in waits_cells(phase.waits.get(kind))))
            for kind in dict.fromkeys(kind for phase in self.phases for kind in phase.waits)
        )
        columns = ("", *(f"{phase.name}: {figure}" for phase in self.phases for figure in ("p50", "p99")))
        return Table("What clients waited for an answer, ms", columns, rows)

    def _memory(self) -> Table:
        columns = ("", *(f"{100 * n // WINDOWS}%" for n in range(1, len(self.memory_windows) + 1)))
        row = ("resident, MiB", *(f"{window / 2**20:.0f}" for window in self.memory_windows))
        minutes = self.memory[-1].at_s / 60
        added = self.memory[-1].images - self.memory[0].images
        title = (
            f"The server's memory over {minutes:.0f} minutes at constant load, while {self.index_runs} runs of `index` "
            f"added {added} images: medians of tenths, {self.spread:.1%} apart without the first"
        )
        return Table(title, columns, (row,))


def waits_cells(waits: Waits | None) -> tuple[str, str]:
    return ("", "") if waits is None else (ms(waits.p50_ms), ms(waits.p99_ms))
