"""A generated gallery is one that opens by its columns, has the photographs in their places, and is gone on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.lab import generated
from benchmarks.lab.generated import generate, photograph
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery import reader
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.benchmarks.lab.conftest import COUNT, indexed
from tests.galleries import STAMP
from tests.pictures import photo


def test_a_generated_gallery_is_whole_and_opens_by_its_columns(photographs, tmp_path, monkeypatch):
    generate(tmp_path / "g", 50, photographs.gallery)
    monkeypatch.setattr(reader, "parse_image", None)  # reads no row
    with Gallery(tmp_path / "g") as opened, Gallery(photographs.gallery) as shown:
        assert len(opened) == len(set(opened.paths)) == 50
        np.testing.assert_allclose(np.linalg.norm(opened.descriptors[:], axis=1), 1, atol=1e-6)
        for number, path in enumerate(shown.paths):
            assert opened.paths[10 * number] == path
            assert np.array_equal(opened.features(10 * number).maps[2], shown.features(number).maps[2])


def test_a_run_that_was_stopped_goes_on_with_its_shards(photographs, tmp_path):
    done: list[int] = []
    generate(tmp_path / "g", 50, photographs.gallery, done.append)
    assert done == [20, 20, 10]
    with Gallery(tmp_path / "g") as opened:
        before = opened.descriptors[:]
        features = opened.features(0)
        info = opened.info
    with GalleryWriter(tmp_path / "g", info, images_per_shard=20) as writer:  # a reader beside it, which was stopped
        for number in range(15):
            writer.put(Path(f"/appended/{number}.jpg"), STAMP, features)
    whole = (tmp_path / "g" / "shard-00001.sqlite").stat()
    (tmp_path / "g" / "shard-00000.columns").unlink()
    generate(tmp_path / "g", 50, photographs.gallery)
    assert (tmp_path / "g" / "shard-00001.sqlite").stat() == whole
    with Gallery(tmp_path / "g") as opened:
        assert np.array_equal(opened.descriptors[:], before)


def test_a_run_with_other_photographs_does_not_go_on_with_those_shards(photographs, tiny_bundle, tmp_path):
    generate(tmp_path / "g", 50, photographs.gallery)
    files = [photo(tmp_path / f"other-{number}.jpg", 80, 64, 100 + number) for number in range(COUNT)]
    other = indexed(files, tiny_bundle, tmp_path / "other")
    with pytest.raises(GalleryError, match="begun with other photographs"):
        generate(tmp_path / "g", 50, other)
    with Gallery(tmp_path / "g") as opened, Gallery(photographs.gallery) as shown:
        assert np.array_equal(opened.features(0).maps[2], shown.features(0).maps[2])


def test_photographs_are_made_once(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "SCENES", 2)
    monkeypatch.setattr(generated, "VIEWS", 2)
    indexed: list[Path] = []
    made = photograph(tmp_path, tiny_bundle, 96, indexed.append)
    assert len(indexed) == 3
    written = made.query.stat()
    assert photograph(tmp_path, tiny_bundle, 96, indexed.append) == made
    assert made.query.stat() == written
    with Gallery(made.gallery) as gallery:
        assert list(gallery.paths) == indexed[:3]
        assert made.query not in gallery.paths
