"""Hostile command lines: options out of range, results named like inputs, damaged bundles and galleries.

Each command runs in the child process of a trial, in a separate folder, and must not change its inputs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvnet_engine.cli import main
from cvnet_engine.engine.bundle import MANIFEST
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.info import INFO
from tests.hostile.files import write_dataset
from tests.hostile.stored import flip, retype, take_away
from tests.hostile.tiny import write_bundle
from tests.hostile.trial import Anything, Case, Refusal, digest

Rng = random.Random
SEARCH = "search photos/0.jpg --bundle bundle --gallery gallery --threads 1"
INDEX = "index photos --bundle bundle --gallery gallery --threads 1"
EVAL = "eval --dataset data --data-dir . --bundle bundle --threads 1"
OPTIONS = (  # commands with options that are invalid or at the limit
    *(f"{SEARCH} --top-k {n}" for n in (-1, 0, 10**9, 10**30, "many", "1e3", "0x10", "''")),
    *(f"{SEARCH} --rerank {n}" for n in (-1, 10**9, 2**63, "nan", "")),
    *(f"{SEARCH} --bbox {box}" for box in ("1,2,3", "0,0,0,0", "9,9,1,1", "nan,0,1,1", "0,0,1e99,1", "a,b,c,d", ",,,")),
    *(f"{SEARCH} --bbox {box}" for box in ("-5,-5,40,40", "0,0,999999,999999", "inf,0,1,1", "0,0,1,1")),
    *(f"{SEARCH} --threads {n}" for n in (0, -1, 1025, 1024, 10**12)),
    f"{SEARCH} --rerank-with nothing",
    *(f"{SEARCH} --rerank-full {n}" for n in (-1, 0, 10**9, 2**63, "half")),
    *(f"{INDEX} --max-side {n}" for n in (-1, 1, 16, 10**12, "all", 512)),
    *(f"{INDEX} --maps {kind}" for kind in ("int8", "CODED", "''", "coded:0")),
    *(f"{EVAL} --rerank {n}" for n in (-1, "5,x", "1e3", ",", "''", 10**30, "5,5,0")),
    *(f"{EVAL} --rerank 5 --rerank-full {n}" for n in (-1, 0, 10**30, "''")),
    f"{EVAL} --distractors photos/0.jpg",
    f"{EVAL} --distractors absent",
    "eval --dataset ../data --data-dir . --bundle bundle",
    "search absent.jpg --bundle bundle --gallery gallery",
    "search photos --bundle bundle --gallery gallery",
    "search photos/0.jpg --bundle gallery --gallery bundle",
    "search photos/0.jpg --bundle photos/0.jpg --gallery photos/0.jpg",
    "index /dev/zero --bundle bundle --gallery new",
    "index absent --bundle bundle --gallery new",
    "index photos --bundle bundle --gallery photos/0.jpg",
    "index photos --bundle bundle --gallery /proc/new",
    "build --weights photos/0.jpg --depth 50 --out new",
    "build --weights seeded:x --depth 50 --out new",
    "build --weights seeded:0 --depth 34 --out new",
    "build --weights seeded:0 --depth 50 --out photos/0.jpg",
    "build --weights seeded:0 --depth 50 --out new --backend quantum",
    "build --weights seeded:0 --depth 50 --out new --precision fp7",
    "build --weights seeded:0 --depth 50 --out new --sizes 0x0",
    "unknown",
    "search",
)
RESULTS = (  # names that results must not have
    "photos/0.jpg",
    "linked.jpg",
    f"gallery/{INFO}",
    "gallery/shard-00000.sqlite",
    "gallery/new.json",
    f"bundle/{MANIFEST}",
    "bundle/reranker.onnx",
    "photos",
    "absent/new.json",
    "new.jpg",
)


class Programs:
    """Cases of the whole program, with a bundle, a gallery, photos and a data set."""

    def __init__(self, folder: Path) -> None:
        self.good = folder / "good"
        write_dataset(self.good / "data")
        shutil.copytree(self.good / "data" / "jpg", self.good / "photos")
        write_bundle(self.good / "bundle")
        (self.good / "linked.jpg").symlink_to("photos/0.jpg")

    def prepare(self) -> None:
        """Index and search the photos. Call it in another process, since the engines start threads."""
        run(self.good, INDEX)
        self.expected_file.write_text(json.dumps(results(self.good, SEARCH)))

    @property
    def expected_file(self) -> Path:
        return self.good.with_name("expected.json")

    def make(self, rng: Rng) -> Case:
        return rng.choice((self.option, self.option, self.result_like_input, self.damaged))(rng)

    def option(self, rng: Rng) -> Case:
        words = rng.choice(OPTIONS)
        return self.case("program: options out of range", words, lambda place: run(place, words), Anything)

    def result_like_input(self, rng: Rng) -> Case:
        words = f"{rng.choice((SEARCH, INDEX))} --json {rng.choice(RESULTS)}"
        if words.startswith("search") and rng.random() < 0.3:
            words = f"{SEARCH} --json out --html {rng.choice(('out', './out', *RESULTS))}"
        return self.case("program: results named like inputs", words, lambda place: run(place, words), Refusal)

    def damaged(self, rng: Rng) -> Case:
        """A search with a damaged bundle or gallery gives the same results or is refused."""
        seed = rng.randrange(2**32)
        file = rng.choice(
            (f"bundle/{MANIFEST}", "bundle/features.onnx", f"gallery/{INFO}", "gallery/shard-00000.sqlite")
        )
        change: Callable[[Path, Rng], str] = rng.choice(
            (flip, take_away, retype) if file.endswith("json") else (flip, flip, take_away)
        )

        def search(place: Path) -> object:
            change(place / file, Rng(seed))
            return results(place, SEARCH)

        expected = json.loads(self.expected_file.read_text())
        return self.case(
            "program: damaged bundles and galleries", f"{file} {change.__name__} seed {seed}", search, expected, (file,)
        )

    def case(
        self, kind: str, what: str, act: Callable[[Path], object], expected: object, changed: tuple[str, ...] = ()
    ) -> Case:
        def read(place: Path) -> object:
            here = shutil.copytree(self.good, place / "here", symlinks=True)
            os.chdir(here)
            before = inputs(here, changed)
            try:
                return act(here)
            finally:
                after = inputs(here, changed)
                assert {name: after.get(name) for name in before} == before, "an input has changed"

        return Case(kind, what, read, expected)


def inputs(folder: Path, but: tuple[str, ...]) -> dict[str, str]:
    """Digests of the files that commands must not change: photos, bundle and data set."""
    places = ("photos", "bundle", "data")
    files = (file for place in places for file in (folder / place).rglob("*") if file.is_file())
    names = {str(file.relative_to(folder)): file for file in files}
    return {name: digest(file.read_bytes()) for name, file in names.items() if name not in but}


def results(folder: Path, words: str) -> Any:
    """Names and scores that a search finds."""
    run(folder, f"{words} --json {folder / 'found.json'}")
    found = json.loads((folder / "found.json").read_text())
    return [[[Path(hit["path"]).name, hit["score"]] for hit in query["results"]] for query in found]


def run(folder: Path, words: str) -> None:
    """Run the program in this process, which must not be used for anything else.

    Raises:
        CvnetError: it exits with 1 after an error of one line, or with 2 because of bad usage.
        AssertionError: it ends in any other way but success.
    """
    os.chdir(folder)
    streams = [(folder / name).open("w+") for name in ("standard-output", "standard-error")]
    kept = [os.dup(number) for number in (1, 2)]
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
    sys.argv = ["cvnet-engine", *words.replace("''", "\0").split()]
    sys.argv = [word.replace("\0", "") if word == "\0" else word for word in sys.argv]
    try:
        main()
        code: object = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
    said = (folder / "standard-error").read_text()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said, said
    if code == 2:
        raise CvnetError(f"usage: {' '.join(said.split())[:300]}")
    assert (code, len(errors)) in ((0, 0), (1, 1)), f"exit {code}: {said}"
    if errors:
        assert said.rstrip("\n").endswith(errors[0]), said
        raise CvnetError(errors[0])
