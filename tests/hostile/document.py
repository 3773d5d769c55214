"""Tables in `docs/reliability.md`, each written between its markers by the command that measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvnet_engine.benchmarks.tables import Table, markdown
from cvnet_engine.engine import machine
from cvnet_engine.engine.files import write_atomically

if TYPE_CHECKING:
    from tests.hostile.kills import Tally
    from tests.hostile.trial import Verdict


def put(file: Path, part: str, text: str) -> None:
    """Replace the text between a part's markers."""
    begin, end = f"<!-- {part}: measured -->", f"<!-- end of {part} -->"
    before, found, rest = file.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    assert found and closed, f"no place for {part}: expected '{begin}' and '{end}'"  # noqa: PT018
    write_atomically(file, f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def circumstances(command: str) -> str:
    """The command and the machine of a measurement."""
    here = machine.describe()
    return f"`{command}` on {here['cpus']} cores of {here['cpu']}, Python {here['python']}."


def kills_table(tallies: Mapping[str, Tally]) -> str:
    rows = tuple(
        (f"`{name}`", *map(str, (t.kills, t.amid, t.completed, t.rows, t.lost, t.differing)))
        for name, t in tallies.items()
    )
    columns = ("command", "kills", "amid the work", "runs completed", "rows of a run", "rows lost", "rows that differ")
    return markdown(Table("", columns, rows), text_columns=1)


def trials_table(verdicts: Sequence[Verdict], outcomes: Sequence[str]) -> str:
    """A table with a row per kind of input and a column per outcome."""
    kinds = list(dict.fromkeys(verdict.kind for verdict in verdicts))
    rows = [count(kind, [v for v in verdicts if v.kind == kind], outcomes) for kind in kinds]
    total = count("**all**", verdicts, outcomes)
    return markdown(Table("", ("input", "tried", *outcomes), (*rows, total)), text_columns=1)


def count(kind: str, verdicts: Sequence[Verdict], outcomes: Sequence[str]) -> tuple[str, ...]:
    found = [verdict.outcome for verdict in verdicts]
    return kind, *map(str, (len(found), *(found.count(outcome) for outcome in outcomes)))
