"""Two runs of `bench` held against each other: what got faster or slower beyond noise."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.tables import Report, Table, ms
from engine.errors import DatasetError

IDENTITY = ("series", "stage", "size", "count", "threads", "method")


@dataclass(frozen=True)
class Change:
    """One record of both runs; times in ms.

    Attributes:
        ratio: new median over old.
        real: the two intervals do not meet, and the change is larger than the machine's own unsteadiness.
    """

    record: Report
    old_ms: float
    new_ms: float
    agrees: bool
    real: bool

    @property
    def ratio(self) -> float:
        return self.new_ms / self.old_ms


def changes(old: Report, new: Report) -> list[Change]:
    """Every measured record that both runs have.

    Raises:
        DatasetError: another processor or number of threads: times would not compare.
    """
    for what in ("threads", "model"):
        require_same(what, old[what], new[what])
    require_same("processor", old["machine"]["cpu"], new["machine"]["cpu"])
    noise = max(old["limits"]["unsteadiness"], new["limits"]["unsteadiness"])
    before = {tuple(r[name] for name in IDENTITY): r for r in old["records"]}
    pairs = [(before.get(tuple(r[name] for name in IDENTITY)), r) for r in new["records"] if not r["projected"]]
    return [change(theirs, ours, noise) for theirs, ours in pairs if theirs]


def require_same(what: str, old: object, new: object) -> None:
    if old != new:
        raise DatasetError(f"--compare: {what} {old} then, {new} now; expected a run of the same {what}")


def change(old: Report, new: Report, noise: float) -> Change:
    agrees = old["low_ms"] <= new["high_ms"] and new["low_ms"] <= old["high_ms"]
    moved = max(old["median_ms"], new["median_ms"]) / min(old["median_ms"], new["median_ms"]) - 1
    return Change(new, old["median_ms"], new["median_ms"], agrees, not agrees and moved > noise)


def change_table(found: list[Change]) -> Table:
    """What changed beyond noise, the largest change first, under the count of what agrees."""
    real = sorted((c for c in found if c.real), key=lambda c: abs(c.ratio - 1), reverse=True)
    agreeing = sum(c.agrees for c in found)
    rows = tuple(
        (
            " ".join(filter(None, (c.record["size"], c.record["stage"], str(c.record["count"] or "")))),
            c.record["method"],
            str(c.record["threads"]),
            ms(c.old_ms),
            ms(c.new_ms),
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
