"""A retriever opens three engines and closes three, whatever happens in between."""

import json
from typing import ClassVar

import numpy as np
import pytest

from engine.bundle import Bundle
from engine.contract import Closing, TensorSpec
from engine.errors import BackendError
from engine.graphs import GRAPH_NAMES
from engine.retrieval import retriever
from engine.retrieval.retriever import Retriever
from tests.engine.fakes import features


class Spy(Closing):
    """An engine that notes its closing in a list, and may fail at it."""

    def __init__(self, closed: list[str], name: str, fails: bool = False) -> None:
        self._closed, self._name, self._fails = closed, name, fails

    def close(self) -> None:
        self._closed.append(self._name)
        if self._fails:
            raise BackendError("no")


def test_an_open_that_fails_half_way_closes_what_it_opened(bundle, monkeypatch):
    closed = []

    def open_engine(file, *_):
        if file.stem == "reranker":
            raise BackendError("no such device")
        return Spy(closed, file.stem)

    monkeypatch.setattr(retriever, "open_engine", open_engine)
    with pytest.raises(BackendError, match="no such device"):
        Retriever.open(Bundle(bundle))
    assert sorted(closed) == ["descriptor", "features"]


def test_every_engine_is_closed_though_one_fails_at_it():
    closed = []
    with pytest.raises(BackendError), Retriever(*(Spy(closed, name, name == "features") for name in GRAPH_NAMES)):
        pass
    assert sorted(closed) == sorted(GRAPH_NAMES)


def test_each_graph_is_opened_in_the_precision_that_its_file_has(bundle, tmp_path, monkeypatch):
    """A bundle for int8 on TensorRT has an fp16 reranker, and its manifest says so."""
    for file in bundle.iterdir():
        (tmp_path / file.name).symlink_to(file)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["precision"] = manifest["graphs"]["features"]["precision"] = "int8"
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    asked = {}

    def open_engine(file, _backend, precision, _threads):
        asked[file.stem] = precision
        return Spy([], file.stem)

    monkeypatch.setattr(retriever, "open_engine", open_engine)
    Retriever.open(Bundle(tmp_path))
    assert asked == {"descriptor": "fp32", "features": "int8", "reranker": "fp32"}


class Reranker(Closing):
    """Counts its runs."""

    inputs: ClassVar = {
        f"{side}_{scale}": TensorSpec("floating", ()) for side in ("query", "key") for scale in range(3)
    }
    runs = 0

    def run(self, feeds):
        self.runs += 1
        return {"score": np.arange(len(feeds["key_0"]), dtype=np.float32)}


class Collection:
    """Images of two map sizes, even rows and odd ones."""

    def map_size(self, row):
        return self.features(row).map_size

    def features(self, row):
        return features(row, ((2, 3), (3, 4), (4, 6 + row % 2)))


def test_a_batch_is_scored_when_it_is_asked_for():
    """Rows of a map size come together, at most four, and those that nobody asks for are not scored."""
    reranker = Reranker()
    batches = Retriever(None, None, reranker).score_batches(features(99), Collection(), range(10))
    rows, scores = next(batches)
    assert (rows, scores.tolist(), reranker.runs) == ([0, 2, 4, 6], [0, 1, 2, 3], 1)
    assert next(batches)[0] == [8]
    batches.close()
    assert reranker.runs == 2
