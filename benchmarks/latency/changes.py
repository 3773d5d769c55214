"""Changes between two runs of `bench` that exceed measurement noise."""

from __future__ import annotations

from dataclasses import dataclass

from cvnet_engine.benchmarks.latency.records import Record
from cvnet_engine.benchmarks.latency.report import Report
from cvnet_engine.benchmarks.tables import Table, ms
from cvnet_engine.engine.errors import DatasetError


@dataclass(frozen=True)
class Change:
    """A record that both runs have.

    Attributes:
        noise: variation of the machine's own speed, as a fraction.
    """

    old: Record
    new: Record
    noise: float

    @property
    def ratio(self) -> float:
        """New median over old."""
        return self.new.ms.median / self.old.ms.median

    @property
    def agrees(self) -> bool:
        """True if the two confidence intervals overlap."""
        return self.old.ms.low <= self.new.ms.high and self.new.ms.low <= self.old.ms.high

    @property
    def real(self) -> bool:
        """True if the intervals do not overlap and the change is larger than the noise."""
        return not self.agrees and max(self.ratio, 1 / self.ratio) - 1 > self.noise


def changes(old: Report, new: Report) -> list[Change]:
    """Compare every measured record that both runs have.

    Raises:
        DatasetError: the runs differ in processor, model or number of threads, so times are not comparable.
    """
    require_same("threads", old.threads, new.threads)
    require_same("model", old.model, new.model)
    require_same("processor", old.machine["cpu"], new.machine["cpu"])
    noise = max(old.limits.unsteadiness, new.limits.unsteadiness)
    before = {record.key: record for record in old.records}
    return [Change(before[r.key], r, noise) for r in new.records if not r.projected and r.key in before]


def require_same(what: str, old: object, new: object) -> None:
    if old != new:
        raise DatasetError(f"--compare: {what} {old} then, {new} now; expected a run of the same {what}")


def change_table(found: list[Change]) -> Table:
    """List the changes beyond noise, largest first, with a note that counts the records that agree."""
    real = sorted((c for c in found if c.real), key=lambda c: abs(c.ratio - 1), reverse=True)
    agreeing = sum(c.agrees for c in found)
    rows = tuple(
        (
            f"{c.new.size} {c.new.label}".strip(),
            c.new.method,
            str(c.new.threads),
            ms(c.old.ms.median),
            ms(c.new.ms.median),
            f"{abs(c.ratio - 1):.0%} {'slower' if c.ratio > 1 else 'faster'}",
        )
        for c in real
    )
    return Table(
        "Changed beyond noise",
        ("stage", "method", "threads", "old ms", "new ms", "change"),
        rows,
        f"{agreeing} of {len(found)} medians agree within their bounds; {len(real)} changed beyond the bounds and the "
        "machine's own unsteadiness.",
    )
