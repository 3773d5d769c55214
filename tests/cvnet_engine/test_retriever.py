"""Searching from Python: queries, results and errors."""

from __future__ import annotations

import contextlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cvnet_engine import Bundle, CvnetError, Filter, Gallery, GalleryImage, Retriever, index
from cvnet_engine.engine.errors import BackendError, GalleryError, ImageError
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import INFO, STAMP, features
from tests.pictures import photo

IMAGES = 8
BLACK = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos in two folders, by turns."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("abbey", "harbour"):
        (folder / name).mkdir()
    return [photo(folder / ("abbey", "harbour")[seed % 2] / f"{seed}.jpg", seed=seed) for seed in range(IMAGES)]


@pytest.fixture(scope="module")
def gallery(bundle: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    report = index(*photos, bundle=Bundle.open(bundle), gallery=folder, max_side_px=None)
    assert (report.added, report.failed) == (IMAGES, {})
    return folder


@pytest.fixture(scope="module")
def retriever(bundle, gallery):
    with Gallery.open(gallery) as opened, Retriever(Bundle.open(bundle), opened) as made:
        yield made


def names(results) -> list[str]:
    return [hit.path.name for hit in results.hits]


def test_a_search(retriever, photos):
    results = retriever.search(str(photos[3]), top_k=5, rerank=4)
    assert results.query == photos[3]
    assert [hit.rank for hit in results.hits] == [1, 2, 3, 4, 5]
    assert {hit.path for hit in results.hits} < set(photos)
    assert (results.images, results.pairs) == (IMAGES, 4)
    first = next(hit for hit in results.hits if hit.before == 1)
    assert (first.path, first.similarity) == (photos[3], pytest.approx(1))
    assert [hit.rerank_score is None for hit in results.hits] == [False] * 4 + [True]
    assert all(hit.score == pytest.approx(hit.similarity + 0.5 * hit.rerank_score) for hit in results.hits[:4])
    assert results.seconds.keys() == {"features", "global", "rerank"}
    assert "untrained" in results.notice


def test_every_form_of_an_image_finds_the_same(retriever, photos):
    path = photos[2]
    expected = retriever.search(path, rerank=3).hits
    for image in (path.read_bytes(), cv2.imread(str(path)), Image.open(path)):
        assert retriever.search(image, rerank=3).hits == expected


def test_a_box_is_the_cropped_image(retriever, photos):
    pixels = cv2.imread(str(photos[0]))
    expected = retriever.search(pixels[10:60, 5:70], rerank=3).hits
    for image in (photos[0], pixels):
        results = retriever.search(image, rerank=3, bbox=(5, 10, 70, 60))
        assert results.hits == expected
        assert results.bbox == (5, 10, 70, 60)


def test_a_gallery_image_is_searched_without_its_file(retriever, bundle, photos, tmp_path):
    moved = photo(tmp_path / "gone.jpg", seed=4)
    index(*photos[:4], moved, bundle=Bundle.open(bundle), gallery=tmp_path / "g")
    moved.unlink()
    with Gallery.open(tmp_path / "g") as opened, Retriever(Bundle.open(bundle), opened) as small:
        for options in ({}, {"where": Filter(folder=f"{tmp_path}/..")}, {"method": "superglobal"}):
            results = small.search(GalleryImage(moved), **options)
            assert {hit.path for hit in results.hits} == set(photos[:4])
    stored, fresh = (retriever.descriptor(image) for image in (GalleryImage(photos[4]), photos[4]))
    np.testing.assert_allclose(stored, fresh, atol=1e-6)


def test_descriptors_are_those_of_the_gallery(retriever, gallery, photos):
    descriptor = retriever.descriptor(photos[1])
    assert (descriptor.shape, descriptor.dtype) == ((2048,), np.float32)
    with Gallery.open(gallery) as opened:
        assert opened.descriptors[opened.paths.index(photos[1])] @ descriptor == pytest.approx(1)


def test_filters(retriever, photos, monkeypatch):
    results = retriever.search(photos[0], where=Filter(folder=str(photos[0].parent)))
    assert {hit.path for hit in results.hits} == set(photos[::2])
    assert (results.images, results.pairs) == (4, 4)
    monkeypatch.chdir(photos[0].parent.parent)
    assert names(retriever.search(photos[0], where=Filter("5.JPG", "harbour"))) == ["5.jpg"]
    nothing = retriever.search(photos[0], where=Filter("nothing"))
    assert (nothing.hits, nothing.images, nothing.pairs) == ((), 0, 0)


def test_a_shortlist_found_elsewhere(retriever, photos):
    shortlist = [photos[6], photos[1], photos[6], photos[0]]
    results = retriever.search(photos[0], candidates=shortlist)
    assert {hit.path: hit.before for hit in results.hits} == {photos[6]: 1, photos[1]: 2, photos[0]: 3}
    assert (results.images, results.pairs) == (3, 3)
    everything = {hit.path: hit.rerank_score for hit in retriever.search(photos[0]).hits}
    assert all(hit.rerank_score == everything[hit.path] for hit in results.hits)
    assert retriever.search(photos[0], rerank=1, candidates=shortlist).pairs == 1
    filtered = retriever.search(photos[0], candidates=shortlist, where=Filter(folder=str(photos[0].parent)))
    assert {hit.path for hit in filtered.hits} == {photos[6], photos[0]}


def test_numpy_boxes_settings_and_copies_of_results(retriever, photos, tmp_path, bundle):
    with np.errstate(all="raise"):
        index(*photos[:2], bundle=Bundle.open(bundle), gallery=tmp_path / "g")
        results = retriever.search(photos[0], bbox=np.array([5, 10, 70, 60]))
    assert results.bbox == (5, 10, 70, 60)
    assert "<img" in results._repr_html_()
    assert asdict(results)["pairs"] == results.pairs
    assert pickle.loads(pickle.dumps(results)).hits == results.hits


def test_threads_share_a_retriever(retriever, photos):
    expected = {path: retriever.search(path).hits for path in photos}
    with ThreadPoolExecutor(4) as threads:
        for path, results in zip(photos * 3, threads.map(retriever.search, photos * 3), strict=True):
            assert results.hits == expected[path]


def test_a_forked_process_opens_its_own_retriever(retriever, bundle, gallery, photos):
    expected = retriever.search(photos[0]).hits
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            with pytest.raises(BackendError, match="open the bundle in the child process"):
                retriever.search(photos[0])
            with Gallery.open(gallery) as opened, Retriever(Bundle.open(bundle), opened) as own:
                status = int(own.search(photos[0]).hits != expected)
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_closed_retriever_says_so(bundle, gallery, photos):
    with Gallery.open(gallery) as opened:
        closed = Retriever(Bundle.open(bundle), opened)
        closed.close()
        closed.close()
        for query in (photos[0], GalleryImage(photos[0])):
            with pytest.raises(CvnetError, match="retriever is closed; open another one"):
                closed.search(query)


def test_progress_is_reported(retriever, photos):
    told: list[tuple[int, int]] = []
    retriever.search(photos[0], rerank=6, done=lambda *done: told.append(done))
    assert sum(pairs for pairs, _ in told) == 6
    assert {most for _, most in told} == {6}


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        ("absent.jpg", {}, ImageError, "absent.jpg: cannot be read"),
        (b"", {}, ImageError, "not an image"),
        (BLACK, {"bbox": (0, 0, 65, 9)}, ImageError, "outside the image"),
        (BLACK, {"candidates": ["x.jpg", "y.jpg"]}, GalleryError, "x.jpg: not in .*, the first of 2"),
        (BLACK, {"bbox": (1, 2, 3)}, ImageError, r"bbox \(1, 2, 3\): expected four numbers"),
        (BLACK, {"bbox": "1,2,30,40"}, ImageError, "bbox 1,2,30,40: expected four numbers"),
        (BLACK, {"candidates": []}, GalleryError, "no candidates"),
        (BLACK, {"candidates": "x.jpg"}, CvnetError, "candidates is the path x.jpg; expected a list"),
        (BLACK, {"where": {}}, CvnetError, "where is dict; expected a Filter"),
        (BLACK, {"top_k": "5"}, CvnetError, "top_k is '5'.*whole numbers"),
        (BLACK, {"rerank": 5.5}, CvnetError, "rerank 5.5.*whole numbers"),
        (BLACK, {"top_k": 0}, CvnetError, "top_k is 0"),
        (BLACK, {"rerank": -1}, CvnetError, "rerank -1"),
        (BLACK, {"method": "magic"}, CvnetError, "method 'magic'"),
        (GalleryImage("x.jpg"), {}, GalleryError, "x.jpg: not in"),
        (GalleryImage("x.jpg"), {"bbox": (0, 0, 9, 9)}, CvnetError, "x.jpg: stored features cover the whole image"),
    ],
)
def test_invalid_searches_raise_errors(retriever, image, options, error, message):
    with pytest.raises(error, match=message):
        retriever.search(image, **options)


@pytest.mark.parametrize("max_side_px", [0, -5])
def test_an_invalid_max_side_creates_no_gallery(bundle, photos, tmp_path, max_side_px):
    with pytest.raises(CvnetError, match=f"max_side_px {max_side_px}: expected at least 1, or None for no limit"):
        index(photos[0], bundle=Bundle.open(bundle), gallery=tmp_path / "g", max_side_px=max_side_px)
    assert not (tmp_path / "g").exists()


def test_a_gallery_of_another_model_or_without_images(bundle, tmp_path):
    opened = Bundle.open(bundle)
    with GalleryWriter(tmp_path / "other", INFO) as writer:
        writer.put(Path("/a.jpg"), STAMP, features(0))
    GalleryWriter(tmp_path / "empty", replace(INFO, features_id=opened.manifest.features_id)).close()
    for name, message in (("other", "another model"), ("empty", "holds no images yet")):
        with Gallery.open(tmp_path / name) as gallery, pytest.raises(GalleryError, match=message):
            Retriever(opened, gallery)
