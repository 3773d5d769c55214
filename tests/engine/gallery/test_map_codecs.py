"""Maps are stored as float16, or compressed by a codec that is fitted to a gallery's first images."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery import indexing
from cvnet_engine.engine.gallery.indexing import IndexReport, find_images, index
from cvnet_engine.engine.gallery.info import read_info, write_info
from cvnet_engine.engine.gallery.map_codecs import (
    CODE_FILE,
    SCORED,
    CompressedCodec,
    HalfCodec,
    decoded,
    parse_kind,
    vectors_of,
)
from cvnet_engine.engine.gallery.map_compression import MapCompression
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import StoredImage
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import DESCRIPTOR_DIM, unit_map_sizes
from cvnet_engine.engine.retrieval.pooling import Pooled, pooled, with_pooled_maps
from tests.galleries import INFO, STAMP, FakeEngines
from tests.pictures import photo


@pytest.fixture
def feature_map():
    """(256, 5, 7) float32, unit norm per position, one position all zero."""
    array = np.random.default_rng(0).standard_normal((256, 5, 7), np.float32)
    array /= np.linalg.norm(array, axis=0)
    array[:, 2, 3] = 0
    return array


def test_float16_is_rounded_once(feature_map):
    stored = HalfCodec().decode(2, HalfCodec().encode(2, feature_map), 5, 7)
    np.testing.assert_array_equal(stored, feature_map.astype(np.float16))


@pytest.mark.parametrize("wrong", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_bytes_of_another_length_are_refused(wrong, feature_map):
    with pytest.raises(ValueError, match=r"buffer|reshape"):
        HalfCodec().decode(2, wrong(HalfCodec().encode(2, feature_map)), 5, 7)


@pytest.mark.parametrize("kind", ["float16", "coded:1", "coded:24", "coded:128"])
def test_canonical_kinds_stay_as_they_are(kind):
    assert parse_kind(kind) == kind


def test_coded_means_24_bytes_per_position():
    assert parse_kind("coded") == "coded:24"


@pytest.mark.parametrize(
    "text", ["", "int8", "coded:", "coded:0", "coded:129", "coded:+1", "coded:01", "coded:1\n", "coded:٣", "coded:99%"]
)
def test_other_kinds_are_refused(text):
    with pytest.raises(ValueError, match="expected float16, coded or coded:BYTES, at most 128"):
        parse_kind(text)


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
        writer.fit(IMAGES)
        for number, features in enumerate(IMAGES):
            writer.put(Path(f"/{number}.jpg"), STAMP, features)
    return folder


def test_compressed_maps_decode_close_to_the_original(tmp_path):
    with Gallery(write(tmp_path / "g")) as gallery:
        for row, features in enumerate(IMAGES):
            for stored, computed in zip(gallery.features(row).maps, features.maps, strict=True):
                assert stored.dtype == np.float32
                assert (stored * computed).sum(axis=0).min() > 0.9
    with pytest.raises(GalleryError, match="made with --maps coded:16; got coded:24"):
        GalleryWriter(tmp_path / "g", replace(CODED, maps="coded:24"))


def test_the_compression_is_fitted_once(tmp_path):
    folder = write(tmp_path / "g")
    code = (folder / CODE_FILE).read_bytes()
    with Gallery(folder) as gallery:
        before = [gallery.features(row) for row in range(len(gallery))]
    with GalleryWriter(folder, CODED) as writer:
        assert not writer.needs_fit
        writer.put(Path("/more.jpg"), STAMP, image(99))
    assert (folder / CODE_FILE).read_bytes() == code
    with Gallery(folder) as gallery:
        for row, features in enumerate(before):
            assert all(map(np.array_equal, gallery.features(row).maps, features.maps))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, r"map-code.npz: cannot be read \(No such file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "map-code.npz: damaged, or of another"),
        (lambda file: file.write_bytes(b""), "map-code.npz: damaged, or of another"),
        (lambda file: (file.unlink(), file.mkdir()), r"map-code.npz: cannot be read \(a folder"),
    ],
)
def test_damaged_parameters_are_an_error(tmp_path, harm, message):
    folder = write(tmp_path / "g")
    shard = (folder / "shard-00000.sqlite").read_bytes()
    harm(folder / CODE_FILE)
    with pytest.raises(GalleryError, match=message):
        Gallery(folder)
    with pytest.raises(GalleryError, match=message):
        GalleryWriter(folder, CODED)
    assert (folder / "shard-00000.sqlite").read_bytes() == shard


def test_maps_are_not_decoded_without_parameters(tmp_path):
    folder = write(tmp_path / "g")
    write_info(folder, replace(read_info(folder), code=""))
    with pytest.raises(GalleryError, match="does not name the map compression"):
        GalleryWriter(folder, CODED)
    with Gallery(folder) as gallery:
        for images in (gallery, gallery.pooled()):
            with pytest.raises(GalleryError, match="parameters of the map compression are missing"):
                images.features(0)


def test_parameters_without_scales_are_refused(tmp_path):
    digest = CompressedCodec().save(tmp_path)
    with pytest.raises(GalleryError, match="invalid parameters of map compression"):
        CompressedCodec.load(tmp_path, digest)


@pytest.mark.parametrize(
    ("part", "forged"),
    [
        ("rotation", lambda rotation: rotation[:100]),
        ("rotation", lambda rotation: rotation[:, :-1]),
        ("rotation", lambda rotation: rotation[None]),
        ("rotation", lambda rotation: rotation * 2),
        ("rotation", lambda rotation: rotation * np.nan),
        ("rotation", lambda rotation: rotation.astype(complex)),
        ("rotation", lambda rotation: rotation.astype(str)),
        ("bits", lambda bits: bits[:0]),
        ("bits", lambda bits: bits + 1),
        ("bits", lambda bits: bits.astype(float)),
        ("bits", lambda bits: np.full_like(bits, 40)),
        ("levels", lambda levels: levels[:-1]),
        ("levels", lambda levels: levels[:, None]),
        ("levels", lambda levels: levels * np.nan),
        ("levels", lambda levels: levels.astype(str)),
    ],
)
def test_forged_parameters_are_refused(tmp_path, recwarn, part, forged):
    CompressedCodec.fit(IMAGES, 24).save(tmp_path)
    with np.load(tmp_path / CODE_FILE) as stored:
        arrays = dict(stored)
    np.savez(tmp_path / CODE_FILE, **(arrays | {f"{part}_2": forged(arrays[f"{part}_2"])}))
    digest = hashlib.sha256((tmp_path / CODE_FILE).read_bytes()).hexdigest()
    with pytest.raises(GalleryError, match="invalid parameters of map compression"):
        CompressedCodec.load(tmp_path, digest)
    assert not recwarn


def test_explained_variance_is_the_squared_cosine():
    codec = CompressedCodec.fit(IMAGES, 16)
    products = [[(kept * own).sum(0) for kept, own in zip(decoded(i, codec).maps, i.maps, strict=True)] for i in IMAGES]
    shares = [np.mean([np.square(of_image[scale]).mean() for of_image in products]) for scale in range(3)]
    assert codec.explained_variance(vectors_of(IMAGES, 1000)) == pytest.approx(np.mean(shares), abs=1e-5)
    nothing = [np.zeros((5, 256), np.float32)] * 3
    assert codec.explained_variance(nothing) == 0


def test_fidelity_is_recorded(tmp_path):
    with GalleryWriter(tmp_path / "g", replace(CODED, maps="coded:16")) as writer:
        writer.fit(IMAGES, FakeEngines().score)
        writer.put(Path("/0.jpg"), STAMP, IMAGES[0])
    fidelity = read_info(tmp_path / "g").fidelity
    assert fidelity == writer.info.fidelity
    assert 0.9 <= fidelity.explained_variance < 1
    assert fidelity.position_bytes == 16
    assert fidelity.scores.pairs == 2 * SCORED - 1
    assert 0 < fidelity.scores.mean < fidelity.scores.largest < 0.1
    assert str(fidelity) == (
        f"16 bytes per position, {fidelity.explained_variance:.2%} explained variance; scores of 15 pairs among the "
        f"first images change by {fidelity.scores.mean:.4f} on average, {fidelity.scores.largest:.4f} at most"
    )
    assert str(replace(fidelity, scores=None)).endswith("% explained variance")


def test_a_shard_is_little_larger_than_its_data(tmp_path):
    rng, count = np.random.default_rng(0), 20
    sizes = unit_map_sizes((48, 64))  # of 1024x768 px
    payload = 24 * sum(height * width for height, width in sizes) + 4 * DESCRIPTOR_DIM
    with GalleryWriter(tmp_path / "g", CODED) as writer:
        for number in range(count):
            maps = [(scale, 256, *size, rng.bytes(24 * size[0] * size[1])) for scale, size in enumerate(sizes)]
            image = StoredImage(0, Path(f"/{number}.jpg"), (48, 64), IMAGES[0].descriptor, STAMP)
            writer.store(image, {"maps": maps})
    assert (tmp_path / "g" / "shard-00000.sqlite").stat().st_size < 1.06 * count * payload


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(7):
        photo(tmp_path / "photos" / f"{number}.jpg", seed=number)
    return tmp_path / "photos"


@pytest.mark.parametrize("first", [3, 7, 100])
def test_index_fits_to_the_first_images_and_stores_all(photos, tmp_path, monkeypatch, first):
    monkeypatch.setattr(indexing, "FIT_IMAGES", first)
    report, done = IndexReport(), []
    with GalleryWriter(tmp_path / "g", CODED) as writer:
        index(find_images([photos]), FakeEngines(), writer, None, report, done.append)
    assert (report.added, report.updated) == (7, 0)
    assert report.score_drift > 0
    assert done == sorted(photos.iterdir())
    with Gallery(tmp_path / "g") as gallery:
        assert gallery.paths == done
        assert all(gallery.features(row).is_finite for row in range(7))


def test_index_interrupted_before_the_fit_starts_again(photos, tmp_path):
    class Stopped(FakeEngines):
        def extract(self, image: np.ndarray) -> Features:
            if self.seen == 2:
                raise KeyboardInterrupt
            return super().extract(image)

    with GalleryWriter(tmp_path / "g", CODED) as writer, pytest.raises(KeyboardInterrupt):
        index(find_images([photos]), Stopped(), writer, None, IndexReport())
    report = IndexReport()
    with GalleryWriter(tmp_path / "g", CODED) as writer:
        index(find_images([photos]), FakeEngines(), writer, None, report)
    assert report.added == 7


def test_maps_pooled_before_rotation_equal_pooled_maps(tmp_path, monkeypatch):
    with Gallery(write(tmp_path / "g")) as gallery:
        whole = [pooled(gallery.features(row)) for row in range(len(gallery))]
        monkeypatch.setattr(MapCompression, "decode", lambda *_: pytest.fail("a whole map"))
        images = with_pooled_maps(gallery)
        for row, features in enumerate(whole):
            found = images.features(row)
            assert images.map_size(row) == found.map_size == features.map_size
            assert np.array_equal(found.descriptor, features.descriptor)
            for scale, expected in enumerate(features.maps):
                np.testing.assert_allclose(found.maps[scale], expected, atol=1e-5)


def test_float16_maps_are_pooled_when_read(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(Path("/0.jpg"), STAMP, IMAGES[0])
    with Gallery(tmp_path / "g") as gallery:
        assert isinstance(with_pooled_maps(gallery), Pooled)
