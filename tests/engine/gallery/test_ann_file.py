"""Approximate indexes of galleries that change, and damaged indexes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import CvnetWarning, GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.ann_file import ANN, AnnFile
from cvnet_engine.engine.gallery.columns import HEADER_BYTES, ROW_BYTES, Columns, columns_file
from cvnet_engine.engine.gallery.inspection import repair, verify
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import StoredImage, shard_file
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.ann_building import build
from cvnet_engine.engine.retrieval.inverted_file import Quantizer
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher
from tests.galleries import INFO, PLACES, RECALL, SHARD, STAMP, VIEWS, NoPairs, features, photographs

IMAGES = PLACES * VIEWS


@pytest.fixture
def gallery(approximate_gallery, tmp_path):
    return shutil.copytree(approximate_gallery, tmp_path / "g")


def first(gallery: Path, query: np.ndarray) -> Path:
    """The image that an approximate search finds first."""
    with Gallery(gallery) as opened, Searcher(NoPairs(), opened, opened.approximate()) as searcher:
        outcome = searcher.find(Features(query, ()), Plan(top_k=1, rerank=0))
        assert not outcome.exact
        return opened.paths[int(outcome.ranking.rows[0])]


def test_what_was_saved_is_loaded(gallery):
    kept = AnnFile.load(gallery)
    assert kept.about.images == len(kept.images) == len(kept.file) == IMAGES
    again = kept.save(gallery)
    assert again == kept.about
    loaded = AnnFile.load(gallery)
    assert np.array_equal(loaded.images, kept.images)
    assert np.array_equal(loaded.file.codes, kept.file.codes)
    assert not [file for file in gallery.iterdir() if file.name.startswith(".")]
    assert AnnFile.load(gallery.parent) is None


def test_changed_images_are_found_beside_the_index(gallery):
    added, query = Path("/photos/added.jpg"), photographs(np.array([5]), 9)[0]
    with Gallery(gallery) as opened:
        replaced, removed = opened.paths[20], opened.paths[40]
        old, gone = opened.descriptors[20], opened.descriptors[40]
    with GalleryWriter(gallery, INFO) as writer:
        maps = features(0).maps
        writer.put(added, STAMP, Features(query, maps))
        writer.put(replaced, STAMP, Features(photographs(np.array([7]), 10)[0], maps))
        writer.remove([removed])
    with Gallery(gallery) as opened:
        unknown = {opened.paths[row] for row in opened.approximate().unknown.tolist()}
    assert unknown == {added, replaced}
    assert first(gallery, query) == added
    assert first(gallery, photographs(np.array([7]), 10)[0]) == replaced
    assert first(gallery, old) != replaced
    assert first(gallery, gone) != removed


def test_an_index_is_stale_when_too_many_images_were_removed(gallery):
    with GalleryWriter(gallery, INFO) as writer:
        writer.remove(writer.paths[: IMAGES // 5])
    with Gallery(gallery) as opened, pytest.warns(CvnetWarning, match="480 of its 2,400 images were changed"):
        assert opened.approximate() is None


def test_an_index_is_stale_when_too_many_images_were_added(gallery):
    """To pick out so many descriptors takes longer than to scan all."""
    kept, added = AnnFile.load(gallery), photographs(np.arange(PLACES), 11)
    with Gallery(gallery) as opened:
        shards = list(opened.shards)
    for _ in range(6):
        assert kept.opened(shards)
        images = [StoredImage(n, Path(f"/{n}.jpg"), (2, 2), row, STAMP) for n, row in enumerate(added)]
        shards.append(Columns.of_images(images))
    with pytest.raises(GalleryError, match=r"more than 25% of the images were added since; search is exact until"):
        kept.opened(shards)


@pytest.mark.parametrize("value", [np.nan, 7])
def test_no_index_is_built_from_a_damaged_descriptor(gallery, monkeypatch, value):
    trained = AnnFile.load(gallery).file.quantizer
    monkeypatch.setattr(Quantizer, "train", lambda *_: trained)  # takes long
    GalleryWriter(gallery, INFO).close()
    in_no_sample = np.random.default_rng(0).permutation(IMAGES)[-1]
    number, place = divmod(int(in_no_sample), SHARD)
    file = columns_file(shard_file(gallery, number))
    with file.open("r+b") as stream:
        stream.seek(HEADER_BYTES + place * ROW_BYTES)
        stream.write(np.float32(value).tobytes())
    with Gallery(gallery) as opened, pytest.raises(GalleryError, match=r"damaged in .*columns"):
        build(opened.descriptors, RECALL)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: flipped(data, 30),
        lambda data: flipped(data, len(data) // 2),
        lambda data: data.replace(b'"probes": ', b'"probes": 1', 1),
        lambda data: data.replace(b'"format": 1', b'"format": 2', 1),
        lambda _: b"",
        lambda _: b"{}\n",
    ],
)
def test_a_damaged_index_is_noticed_and_search_is_exact(gallery, damaged):
    file = gallery / ANN
    file.write_bytes(damaged(file.read_bytes()))
    with pytest.raises(GalleryError, match=r"damaged, or cannot be read .*search is exact until"):
        AnnFile.load(gallery)
    with Gallery(gallery) as opened, pytest.warns(CvnetWarning, match="damaged"):
        assert opened.approximate() is None


@pytest.mark.parametrize(
    ("part", "forged"),
    [
        ("members", lambda kept: kept.members + 1),
        ("members", lambda kept: kept.members.astype(np.int64)),
        ("sizes", lambda kept: kept.sizes[::-1] - 1),
        ("sizes", lambda kept: kept.sizes[:-1]),
        ("codes", lambda kept: kept.codes[:-1]),
        ("codes", lambda kept: kept.codes[:, :-1]),
    ],
)
def test_a_forged_index_is_refused(gallery, part, forged):
    """Its digest is right: faiss would read past its end."""
    kept = AnnFile.load(gallery)
    AnnFile(kept.about, replace(kept.file, **{part: forged(kept.file)}), kept.images).save(gallery)
    with pytest.raises(GalleryError, match="its "):
        AnnFile.load(gallery)


def test_verify_names_a_damaged_index_and_repair_removes_it(gallery):
    file = gallery / ANN
    whole = json.loads(file.read_bytes().split(b"\n", 1)[0])
    assert whole["images"] == IMAGES
    file.write_bytes(flipped(file.read_bytes(), 10_000))
    assert file in verify(gallery).damaged
    assert f"{ANN} was damaged" in repair(gallery)
    assert not file.exists()
    assert file not in verify(gallery).damaged
