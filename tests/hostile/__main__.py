"""`python -m tests.hostile`: seeded hostile inputs of every kind, each read in a separate process; counts of outcomes.

Exits with 1 if an input causes a traceback, a crash, a hang, or a wrong result without an error.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.hostile import document
from tests.hostile.files import Checkpoints, Feeds, Truths, Weights
from tests.hostile.images import Images
from tests.hostile.program import Programs
from tests.hostile.stored import Bundles, Galleries
from tests.hostile.trial import FAILURES, OUTCOMES, Case, Verdict, forked, judge

PROGRAM_SHARE = 0.04  # a run of the whole program takes as long as 50 inputs of a reader
SHARES = {"images": 30, "bundles": 15, "galleries": 25, "truths": 8, "checkpoints": 8, "weights": 8, "feeds": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every verdict to this file")
    parser.add_argument("--markdown", type=Path, help="put the table into this document")
    options = parser.parse_args()
    verdicts = []
    for verdict in tried(options.inputs, options.seed):
        verdicts.append(verdict)
        if verdict.outcome in FAILURES:
            print(f"{verdict.outcome}: {verdict.kind}, {verdict.what}: {verdict.detail}", flush=True)  # noqa: T201
    verdicts.sort(key=lambda verdict: verdict.kind)
    table = document.trials_table(verdicts, OUTCOMES)
    print(table)  # noqa: T201
    if options.json:
        options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    if options.markdown:
        command = f"python -m tests.hostile --inputs {options.inputs} --seed {options.seed}"
        document.put(options.markdown, "trials", f"{document.circumstances(command)}\n\n{table}")
    sys.exit(any(verdict.outcome in FAILURES for verdict in verdicts))


def tried(inputs: int, seed: int) -> Iterator[Verdict]:
    """Yield the verdict on each input."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        programs, readers = prepared(Path(folder))
        for number in range(inputs):
            whole = int((number + 1) * PROGRAM_SHARE) > int(number * PROGRAM_SHARE)
            make = programs.make if whole else rng.choices(list(readers), list(readers.values()))[0]
            yield judge(make(rng))


def prepared(folder: Path) -> tuple[Programs, dict[Callable[[random.Random], Case], int]]:
    """Return the makers of cases, with the weights of all but `Programs`. Starts no threads: this process is forked."""
    programs = Programs(folder)
    outcome = forked(lambda: (programs.prepare(), ("prepared", ""))[1], limit_s=120)
    assert outcome[0] == "prepared", outcome
    makers = {
        "images": Images(),
        "bundles": Bundles(folder),
        "galleries": Galleries(folder / "galleries"),
        "truths": Truths(folder),
        "checkpoints": Checkpoints(folder),
        "weights": Weights(folder),
        "feeds": Feeds(),
    }
    return programs, {maker.make: SHARES[name] for name, maker in makers.items()}


if __name__ == "__main__":
    main()
