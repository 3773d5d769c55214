"""Databases of an evaluation: a selection of a gallery's images, and the reference's features."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cvnet_engine.benchmarks.accuracy.databases import ReferenceCollection, Selection
from cvnet_engine.benchmarks.accuracy.dataset import Dataset
from cvnet_engine.benchmarks.accuracy.journal import Journal
from cvnet_engine.engine.features import Features
from tests.pictures import photo


def test_a_selection_renumbers_the_rows_of_a_gallery():
    def images(first):
        return SimpleNamespace(features=lambda row: Features(first + row, ()), map_size=lambda row: (row, first))

    gallery = images(0)
    gallery.paths, gallery.descriptors = [Path("/a"), Path("/b"), Path("/c")], np.arange(3)[:, None]
    gallery.pooled = lambda: images(10)
    selection = Selection.of_gallery(gallery, [Path("/c"), Path("/a")])
    assert selection.descriptors.ravel().tolist() == [2, 0]
    assert (selection.features(0).descriptor, selection.map_size(1)) == (2, (0, 0))
    assert (selection.pooled().features(0).descriptor, selection.pooled().map_size(0)) == (12, (2, 10))


def test_the_reference_extracts_each_image_once(tmp_path):
    """Descriptors come from the journal; maps are extracted again, each once."""
    images = tuple(photo(tmp_path / f"{n}.jpg", seed=n) for n in range(3))
    dataset = Dataset("d", images, (), ())

    class Counting:
        def __init__(self):
            self.described, self.mapped = [], 0
            self.features = self

        def extract_from(self, path):
            self.described.append(path)
            return Features(np.full(4, len(self.described), np.float32), (np.zeros((1, 2, 3)),))

        def run(self, _feeds):
            self.mapped += 1
            return {"map_0": np.full((1, 1, 2, 3), self.mapped)}

    with Journal(None) as journal:
        first, again = Counting(), Counting()
        collections = [ReferenceCollection(dataset, engines, "model", journal) for engines in (first, again)]
    assert (first.described, again.described) == (list(images), [])
    for collection in collections:
        assert collection.descriptors[:, 0].tolist() == [1, 2, 3]
        assert collection.map_size(0) == (2, 3)
    maps = [collections[1].features(row).maps[0] for row in (2, 0, 2)]
    assert [m[0, 0, 0] for m in maps] == [1, 2, 1]
