"""Kills of `index`, `eval` and `gallery merge` at random moments; runs until completion lose and change nothing.

`python -m tests.hostile.kills --index 100 --eval 50 --merge 50` kills the program (SIGKILL, at moments drawn uniformly
over the duration of an undisturbed run) and runs the same command again. After each kill, all stored rows must equal
rows of the undisturbed run, and none stored before may be missing. When a run completes, it must have all rows, and the
next one starts with an empty folder.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvnet_engine.benchmarks.accuracy.journal import unpack
from cvnet_engine.commands.evaluate import JOURNAL
from tests.hostile import document
from tests.hostile.tiny import write_bundle
from tests.pictures import photo

PROGRAM = [sys.executable, "-m", "cvnet_engine"]
NAME = "killed"  # of the data set
INDEXED, DATABASE, QUERIES = 400, 60, 60
Rows = dict[str, Any]  # a row's name -> the row


@dataclass(frozen=True)
class Victim:
    """A command to kill.

    Attributes:
        words: of the command line, given the gallery's folder.
        stored: reads all rows in the gallery's folder, without durations.
    """

    name: str
    words: Callable[[Path], list[str]]
    stored: Callable[[Path], Rows]

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*PROGRAM, *self.words(folder)], stdout=quiet, stderr=quiet)


@dataclass
class Tally:
    """Counts of the kills of one command; `amid` counts those after which the work was partly done."""

    kills: int = 0
    amid: int = 0
    completed: int = 0
    lost: int = 0
    differing: int = 0
    rows: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=int, default=100, help="kills")
    parser.add_argument("--eval", type=int, default=50, help="kills")
    parser.add_argument("--merge", type=int, default=50, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="put the figures into this document")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        counts = (options.index, options.eval, options.merge)
        tallies = {
            victim.name: kill(victim, count, rng, Path(folder))
            for victim, count in zip(victims(Path(folder)), counts, strict=True)
            if count
        }
    text = document.kills_table(tallies)
    print(text)  # noqa: T201
    if options.markdown:
        command = "python -m tests.hostile.kills --index {} --eval {} --merge {}".format(*counts)
        document.put(options.markdown, "kills", f"{document.circumstances(command)}\n\n{text}")
    sys.exit(any(tally.lost or tally.differing for tally in tallies.values()))


def victims(folder: Path) -> tuple[Victim, Victim, Victim]:
    """The commands, with their photos, data set and galleries."""
    bundle = write_bundle(folder / "bundle")
    photos = folder / "photos"
    photos.mkdir()
    for n in range(INDEXED):
        photo(photos / f"{n:03}.jpg", 48, 64, seed=n)
    write_dataset(folder / NAME, photos)
    where = ["--bundle", str(bundle), "--threads", "1", "--gallery"]
    sources = [str(folder / f"source-{n}") for n in range(2)]
    for number, source in enumerate(sources):  # three quarters of the photos each, of which they share two
        some = [str(path) for place, path in enumerate(sorted(photos.iterdir())) if place % 4 != number]
        subprocess.run([*PROGRAM, "index", *some, *where, source], check=True, stdout=subprocess.DEVNULL)
    evaluation = ["eval", "--dataset", NAME, "--data-dir", str(folder), "--rerank", "5,20", *where]
    return (
        Victim("index", lambda kept: ["index", str(photos), *where, str(kept)], gallery_rows),
        Victim("eval", lambda kept: [*evaluation, str(kept), "--json", str(results_file(kept))], evaluation_rows),
        Victim("merge", lambda kept: ["gallery", "merge", *sources, "--gallery", str(kept)], gallery_rows),
    )


def write_dataset(folder: Path, photos: Path, database: int = DATABASE, queries: int = QUERIES) -> None:
    """Write a data set in the layout of Revisited Oxford/Paris; every photo is relevant to a query."""
    jpg = folder / "jpg"
    jpg.mkdir(parents=True)
    images = [f"{n:03}" for n in range(database)]
    asked = [f"{n:03}" for n in range(database, database + queries)]
    for name in images + asked:
        shutil.copy(photos / f"{name}.jpg", jpg)
    truth = [
        {"bbx": [0, 0, 60, 40], "easy": [n % database], "hard": [(n + 1) % database], "junk": [(n + 2) % database]}
        for n in range(queries)
    ]
    content = {"imlist": images, "qimlist": asked, "gnd": truth}
    (folder / f"gnd_{NAME}.json").write_text(json.dumps(content))


def kill(victim: Victim, count: int, rng: random.Random, folder: Path) -> Tally:
    """Kill a command `count` times."""
    started = time.perf_counter()
    with victim.start(folder / f"{victim.name}-whole") as process:
        code = process.wait()
    assert code == 0, f"{victim.name} fails undisturbed"
    length_s = time.perf_counter() - started
    whole = victim.stored(folder / f"{victim.name}-whole")
    tally, kept, before, done = Tally(rows=len(whole)), folder / f"{victim.name}-killed", set(), False
    while tally.kills < count or not done:
        with victim.start(kept) as process:
            try:
                process.wait(rng.uniform(0, length_s) if tally.kills < count else None)
            except subprocess.TimeoutExpired:
                process.kill()
        done = process.returncode != -signal.SIGKILL
        assert process.returncode == 0 or not done, f"{victim.name} fails after a kill"
        found = victim.stored(kept)
        tally.kills += not done
        tally.amid += not done and 0 < len(found) < len(whole)
        tally.completed += done
        lost = (whole.keys() if done else before) - found.keys()
        tally.lost += len(lost)
        for name in lost:
            print(f"{victim.name}: lost {name!r}", file=sys.stderr)  # noqa: T201
        tally.differing += sum(row != whole.get(name) for name, row in found.items())
        before = set() if done else set(found)
        if done:
            shutil.rmtree(kept)
            results_file(kept).unlink(missing_ok=True)
    return tally


def gallery_rows(folder: Path) -> Rows:
    """Every row of every table of every shard."""
    found: Rows = {}
    for file in sorted(folder.glob("shard-*.sqlite")):
        for table, key in (("images", "id"), ("maps", "image, scale")):
            rows = read(file, f"SELECT * FROM {table} ORDER BY {key}")
            found |= {f"{file.name} {table} {row[:2]}": row for row in rows}
    return found


def evaluation_rows(folder: Path) -> Rows:
    """Rows of the gallery, arrays of the journal without durations, and the results."""
    found = gallery_rows(folder)
    if (folder / JOURNAL).exists():
        for key, arrays in read(folder / JOURNAL, "SELECT key, arrays FROM work"):
            found[key] = {name: a.tobytes() for name, a in unpack(arrays).items() if name != "seconds"}
    results = results_file(folder)
    if results.exists():
        found["results"] = without_seconds(json.loads(results.read_text()))
    return found


def results_file(folder: Path) -> Path:
    """The results of `eval` with a gallery in this folder."""
    return folder.with_name(f"{folder.name}.json")


def read(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a database; none if the program was killed before it created the table."""
    connection = sqlite3.connect(file)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return []
    finally:
        connection.close()


def without_seconds(content: Rows) -> Rows:
    return {k: without_seconds(v) if isinstance(v, dict) else v for k, v in content.items() if k != "seconds"}


if __name__ == "__main__":
    main()
