"""Hostile ground truth, checkpoints, weights and feeds of the native pair scorer, and journals."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from cvnet_engine.benchmarks.accuracy import dataset
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.cvnet import checkpoint, tensor_file
from cvnet_engine.engine.backends.native import weights
from cvnet_engine.engine.backends.native.engine import PRECISIONS
from cvnet_engine.engine.backends.native.library import library
from cvnet_engine.engine.contract import Array
from tests.engine.backends.native_fuzz import fuzzed, random_weights
from tests.hostile.stored import VALUES, flip, nest, places, take_away
from tests.hostile.trial import Anything, Case, Refusal, digest
from tests.pictures import photo

Rng = random.Random
NAME = "hostile"
RECORD = {"bbx": [0, 0, 60, 40], "easy": [0], "hard": [1, 2], "junk": [3]}
ENTRIES = (-1, 4, 2**70, 0.5, "0", None, True, [], float("nan"), 10**400)


class Harmful:
    """An object whose pickle would create a file when loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def write_dataset(folder: Path) -> dict[str, Any]:
    """Write a data set of four images and two queries; return its ground truth."""
    (folder / "jpg").mkdir(parents=True)
    for n in range(4):
        photo(folder / "jpg" / f"{n}.jpg", 50 + 4 * n, 70, seed=n)
    content = {"imlist": list("0123"), "qimlist": list("01"), "gnd": [RECORD, dict(RECORD)]}
    (folder / f"gnd_{folder.name}.json").write_text(json.dumps(content))
    return content


class Truths:
    """A data set of four images and two queries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.content = write_dataset(self.folder / NAME)

    def make(self, rng: Rng) -> Case:
        kind, change, expected = rng.choice(
            (
                ("ground truth: wrong entries", self.wrong_entry, Refusal),
                ("ground truth: wrong entries", self.repeated, Refusal),
                ("ground truth: wrong types", self.retyped, Refusal),
                ("ground truth: damaged files", self.damaged, Anything),  # without a checksum
                ("ground truth: pickles that run", self.running, Refusal),
                ("ground truth: deep nesting", self.nested, Refusal),
            )
        )
        return truth_case(self.folder, kind, change(rng), expected)

    def wrong_entry(self, rng: Rng) -> dict[str, bytes]:
        content = copy.deepcopy(self.content)
        rows = content["gnd"][rng.randrange(2)][rng.choice(("easy", "hard", "junk"))]
        rows[rng.randrange(len(rows))] = rng.choice(ENTRIES)
        return stored(content, rng)

    def repeated(self, rng: Rng) -> dict[str, bytes]:
        content = copy.deepcopy(self.content)
        record = content["gnd"][rng.randrange(2)]
        record[rng.choice(("easy", "hard", "junk"))].append(rng.choice((0, 1, 2, 3)))
        return stored(content, rng)

    def retyped(self, rng: Rng) -> dict[str, bytes]:
        content = copy.deepcopy(self.content)
        container, key = rng.choice([place for place in places(content) if type(place[0][place[1]]) is not int])
        container[key] = rng.choice([v for v in VALUES if not isinstance(v, type(container[key]))])
        return stored(content, rng)

    def damaged(self, rng: Rng) -> dict[str, bytes]:
        ((name, data),) = stored(self.content, rng).items()
        broken = bytearray(data)
        for _ in range(rng.choice((1, 3))):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        return {name: bytes(broken[: rng.randrange(len(broken))] if rng.random() < 0.3 else broken)}

    def running(self, rng: Rng) -> dict[str, bytes]:
        content = copy.deepcopy(self.content)
        container, key = rng.choice(list(places(content)))
        container[key] = Harmful()
        return {f"gnd_{NAME}.pkl": pickle.dumps(content, rng.randrange(6))}

    def nested(self, rng: Rng) -> dict[str, bytes]:
        depth = rng.choice((1000, 100_000, 1_000_000))
        pickled = b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."
        return rng.choice(({f"gnd_{NAME}.json": b"[" * depth}, {f"gnd_{NAME}.pkl": pickled}))


def truth_case(folder: Path, kind: str, files: dict[str, bytes], expected: object) -> Case:
    def read(place: Path) -> object:
        (place / NAME).mkdir()
        (place / NAME / "jpg").symlink_to(folder / NAME / "jpg")
        for name, data in files.items():
            (place / NAME / name).write_bytes(data)
        found = dataset.load(place, NAME)
        for truth in found.ground_truth:
            rows = [*truth.easy, *truth.hard, *truth.junk]
            assert len(set(rows)) == len(rows)
            assert set(rows) <= set(range(len(found.images)))
        return repr(found)

    return Case(kind, ", ".join(files), read, expected)


def stored(content: dict[str, Any], rng: Rng) -> dict[str, bytes]:
    if rng.random() < 0.5:
        return {f"gnd_{NAME}.json": json.dumps(content).encode()}
    return {f"gnd_{NAME}.pkl": pickle.dumps(content, rng.randrange(6))}


class Checkpoints:
    """A few tensors of the model in each file format of checkpoints."""

    def __init__(self, folder: Path) -> None:
        state = {
            "encoder_q.stem.conv.weight": torch.arange(9408.0).reshape(64, 3, 7, 7),
            "encoder_q.stem.bn.weight": torch.ones(64),
            "conv2ds.0.weight": torch.full((256, 16, 3, 3), 0.5),
        }
        self.folder = folder / "checkpoints"
        self.folder.mkdir()
        self.files = {name: self.folder / name for name in ("new.pyth", "old.pyth", "plain.safetensors")}
        torch.save({"model_state": state, "epoch": 3}, self.files["new.pyth"])
        torch.save(state, self.files["old.pyth"], _use_new_zipfile_serialization=False)
        safetensors.torch.save_file(state, self.files["plain.safetensors"])
        self.expected = {name: see_checkpoint(file) for name, file in self.files.items()}

    def make(self, rng: Rng) -> Case:
        kind, change = rng.choice(
            (
                ("checkpoints: flipped bits", flip),
                ("checkpoints: flipped bits", flip),
                ("checkpoints: files cut or gone", take_away),
                ("checkpoints: foreign classes", self.foreign),
                ("checkpoints: other content", self.other),
            )
        )
        name, seed = rng.choice(list(self.files)), rng.randrange(2**32)

        def read(place: Path) -> object:
            file = place / name
            file.write_bytes(self.files[name].read_bytes())
            change(file, Rng(seed))
            found = see_checkpoint(file)
            assert not (place / "ran").exists()
            return found

        # only the zip files of PyTorch carry checksums
        checked = change is not flip or name == "new.pyth"
        harmless = change == self.foreign or change is flip
        expected = (self.expected[name] if checked else Anything) if harmless else Refusal
        return Case(kind, f"{name}, seed {seed}", read, expected)

    def foreign(self, file: Path, rng: Rng) -> str:
        """The same tensors and an object of another class."""
        tensors = tensor_file.state_dict(tensor_file.load(self.files["new.pyth"]), file)
        beside = rng.choice((np.float64(1), Harmful(), random.Random(0), json.JSONEncoder(), Path("x")))
        legacy = rng.random() < 0.5
        if file.suffix == ".safetensors":
            file.write_bytes(self.files["plain.safetensors"].read_bytes())
        else:
            torch.save(
                {"model_state": tensors, "beside": beside, "epoch": 3},
                file,
                _use_new_zipfile_serialization=not legacy,
            )
        return type(beside).__name__

    def other(self, file: Path, rng: Rng) -> str:
        """Content other than a state dict."""
        content: Any = rng.choice(([], 7, "text", {}, {"model_state": {}}, {"model_state": 3}, {1: 2}, None))
        text = io.BytesIO()
        np.savez(text, a=np.arange(3))
        rng.choice(
            (
                lambda: torch.save(content, file),
                lambda: file.write_bytes(pickle.dumps(content)),
                lambda: file.write_bytes(rng.randbytes(1000)),
                lambda: file.write_bytes(text.getvalue()),
                lambda: nest(file, rng),
                lambda: file.write_text("https://example.org/weights\n"),
            )
        )()
        return "other content"


def see_checkpoint(file: Path) -> object:
    """The model's tensors in a file, without checking that they are complete."""
    tensors = tensor_file.state_dict(tensor_file.load(file), file)
    state = checkpoint.parts_of_model(tensors, str(file))
    return {name: (str(t.dtype), tuple(t.shape), digest(t.numpy().tobytes())) for name, t in sorted(state.items())}


class Weights:
    """Weights of the native pair scorer, and an evaluation's journal: arrays in zip files."""

    def __init__(self, folder: Path) -> None:
        self.npz = random_weights(0, folder / "weights.npz")
        with np.load(self.npz) as stored:
            self.tensors: dict[str, Array] = dict(stored)
        self.expected = see_weights(self.npz)
        self.journal = folder / "journal.sqlite"
        with Journal(self.journal) as journal:
            for n in range(20):
                journal.put(("row", n), {"a": np.arange(n), "b": np.array(0.5)})
        self.rows = see_journal(self.journal)

    def make(self, rng: Rng) -> Case:
        kind, good, change, see, expected = rng.choice(
            (
                ("weights (.npz): flipped bits", self.npz, flip, see_weights, self.expected),
                ("weights (.npz): files cut or gone", self.npz, take_away, see_weights, Refusal),
                ("weights (.npz): wrong tensors", self.npz, self.wrong, see_weights, Refusal),
                ("journals: flipped bits", self.journal, flip, see_journal, self.rows),
            )
        )
        seed = rng.randrange(2**32)

        def read(place: Path) -> object:
            file = place / good.name
            file.write_bytes(good.read_bytes())
            change(file, Rng(seed))
            return see(file)

        return Case(kind, f"seed {seed}", read, expected)

    def wrong(self, file: Path, rng: Rng) -> str:
        tensors, name = dict(self.tensors), rng.choice(list(self.tensors))
        tensor = tensors.pop(name)
        made: Callable[[], Array | None] = rng.choice(
            (
                lambda: None,
                lambda: tensor[:1] if len(tensor) > 1 else tensor[:0],
                lambda: tensor.astype(rng.choice(("f8", "f2", "i4", "O", "c8", ">f4"))),
                lambda: np.full_like(tensor, rng.choice((np.nan, np.inf))),
                lambda: tensor[None],
                lambda: np.array(Harmful()),
            )
        )
        replaced = made()
        if replaced is not None:
            tensors[name] = replaced
        np.savez(file, allow_pickle=True, **tensors)
        if rng.random() < 0.1:
            with zipfile.ZipFile(file, "a") as archive:
                archive.writestr("../outside.npy", b"")
        return name


def see_weights(file: Path) -> object:
    return digest(*(tensor.tobytes() for tensor in weights.load(file)))


def see_journal(file: Path) -> object:
    """Check the rows that are found; a missing one is computed again."""
    with Journal(file) as journal:
        for n in range(20):
            found = journal.get(("row", n))
            if found is not None:
                assert {name: a.tolist() for name, a in found.items()} == {"a": list(range(n)), "b": 0.5}
    return "right"


class Feeds:
    """Random and malformed feeds of the native pair scorer."""

    def __init__(self) -> None:
        library()  # compiled once, for all cases

    def make(self, rng: Rng) -> Case:
        precision, seed = rng.choice(list(PRECISIONS)), rng.randrange(2**32)

        def read(_: Path) -> object:
            """Raises unless the scores are right and malformed feeds are refused."""
            with fuzzed(precision, library(), seed) as fuzz:
                fuzz.step()
            return "correct"

        return Case("feeds: random and malformed", f"{precision}, seed {seed}", read, "correct")
