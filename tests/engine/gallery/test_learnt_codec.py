"""A gallery of coded maps learns its code from its first images, once, and reads nothing without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import GalleryError
from engine.features import Features
from engine.gallery import indexing
from engine.gallery.indexing import IndexReport, find_images, index
from engine.gallery.learnt_codec import CODE_FILE, LearntCodec
from engine.gallery.reader import Gallery
from engine.gallery.writer import GalleryWriter
from tests.engine.fakes import INFO, STAMP, FakeRetriever
from tests.pictures import photo

CODED = replace(INFO, maps="coded:16")


def image(seed: int) -> Features:
    """Random features whose maps have unit norm and lie in 16 directions."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).standard_normal((256, 16))
    maps = [np.tensordot(axes, rng.standard_normal((16, *size)), 1) for size in ((2, 3), (3, 4), (4, 6))]
    descriptor = rng.standard_normal(2048).astype(np.float32)
    unit = tuple((m / np.linalg.norm(m, axis=0)).astype(np.float32) for m in maps)
    return Features(descriptor / np.linalg.norm(descriptor), unit)


IMAGES = [image(seed) for seed in range(12)]


def write(folder: Path) -> Path:
    with GalleryWriter(folder, CODED) as writer:
        writer.learn(IMAGES)
        for number, features in enumerate(IMAGES):
            writer.put(Path(f"/{number}.jpg"), STAMP, features)
    return folder


def test_maps_come_back_near_from_their_bytes(tmp_path):
    with Gallery(write(tmp_path / "g")) as gallery:
        for row, features in enumerate(IMAGES):
            for stored, computed in zip(gallery.features(row).maps, features.maps, strict=True):
                assert stored.dtype == np.float32
                assert (stored * computed).sum(axis=0).min() > 0.9
    with pytest.raises(GalleryError, match="keeps maps as coded:16; got --maps coded:24"):
        GalleryWriter(tmp_path / "g", replace(CODED, maps="coded:24"))


def test_the_code_stays_the_one_that_the_first_images_were_kept_in(tmp_path):
    folder = write(tmp_path / "g")
    code = (folder / CODE_FILE).read_bytes()
    with Gallery(folder) as gallery:
        before = [gallery.features(row) for row in range(len(gallery))]
    with GalleryWriter(folder, CODED) as writer:
        assert writer.unlearnt_bytes is None
        writer.put(Path("/more.jpg"), STAMP, image(99))
    assert (folder / CODE_FILE).read_bytes() == code
    with Gallery(folder) as gallery:
        for row, features in enumerate(before):
            assert all(map(np.array_equal, gallery.features(row).maps, features.maps))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, r"map-code.npz: not readable \(No such file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "map-code.npz: not the code"),
        (lambda file: file.write_bytes(b""), "map-code.npz: not the code"),
        (lambda file: (file.unlink(), file.mkdir()), r"map-code.npz: not readable \(a folder"),
    ],
)
def test_a_code_that_is_damaged_or_gone_is_one_line_and_nothing_is_overwritten(tmp_path, harm, message):
    folder = write(tmp_path / "g")
    shard = (folder / "shard-00000.sqlite").read_bytes()
    harm(folder / CODE_FILE)
    with pytest.raises(GalleryError, match=message):
        Gallery(folder)
    with pytest.raises(GalleryError, match=message):
        GalleryWriter(folder, CODED)
    assert (folder / "shard-00000.sqlite").read_bytes() == shard


def test_a_gallery_whose_note_of_the_code_is_gone_is_not_written_to(tmp_path):
    folder = write(tmp_path / "g")
    info = json.loads((folder / "gallery.json").read_text())
    (folder / "gallery.json").write_text(json.dumps(info | {"code": "", "checksum": None}))
    with pytest.raises(GalleryError, match="lacks the code of its maps"):
        GalleryWriter(folder, CODED)
    with Gallery(folder) as gallery, pytest.raises(GalleryError, match="the code that it is kept in is missing"):
        gallery.features(0)


def test_a_file_that_is_no_code_is_refused_whatever_its_digest(tmp_path):
    digest = LearntCodec().save(tmp_path)
    with pytest.raises(GalleryError, match="no code of maps"):
        LearntCodec.load(tmp_path, digest)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(7):
        photo(tmp_path / "photos" / f"{number}.jpg", seed=number)
    return tmp_path / "photos"


@pytest.mark.parametrize("first", [3, 7, 100])
def test_index_learns_from_the_first_images_and_puts_in_all(photos, tmp_path, monkeypatch, first):
    monkeypatch.setattr(indexing, "LEARN_FROM", first)
    monkeypatch.setattr(indexing, "score_drift", lambda *_: 0.25)
    report, done = IndexReport(), []
    with GalleryWriter(tmp_path / "g", CODED) as writer:
        index(find_images([photos]), FakeRetriever(), writer, None, report, done.append)
    assert (report.added, report.updated, report.score_drift) == (7, 0, 0.25)
    assert done == sorted(photos.iterdir())
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.paths == done
        assert all(gallery.features(row).is_finite for row in range(7))


def test_index_stopped_before_the_code_is_learnt_begins_again(photos, tmp_path):
    class Stopped(FakeRetriever):
        def extract(self, image: np.ndarray) -> Features:
            if self.seen == 2:
                raise KeyboardInterrupt
            return super().extract(image)

    with GalleryWriter(tmp_path / "g", CODED) as writer, pytest.raises(KeyboardInterrupt):
        index(find_images([photos]), Stopped(), writer, None, IndexReport())
    report = IndexReport()
    with GalleryWriter(tmp_path / "g", CODED) as writer:
        retriever = FakeRetriever()
        retriever.score = lambda _, keys: np.zeros(len(keys))
        index(find_images([photos]), retriever, writer, None, report)
    assert report.added == 7


def test_images_reduced_to_a_basis_are_decoded_there(tmp_path):
    basis = np.linalg.qr(np.random.default_rng(3).standard_normal((256, 64)))[0].astype(np.float32)
    with Gallery(write(tmp_path / "g")) as gallery:
        reduced = gallery.reduced(basis)
        for row in (0, 7):
            whole, found = gallery.features(row), reduced.features(row)
            assert reduced.map_size(row) == found.map_size == whole.map_size
            np.testing.assert_array_equal(found.descriptor, whole.descriptor)
            for part, unit_map in zip(found.maps, whole.maps, strict=True):
                np.testing.assert_allclose(part, np.tensordot(basis.T, unit_map, 1), atol=1e-5)


def test_images_kept_whole_are_not_reduced(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(Path("/0.jpg"), STAMP, IMAGES[0])
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.reduced(np.eye(256, 64, dtype=np.float32)) is gallery
