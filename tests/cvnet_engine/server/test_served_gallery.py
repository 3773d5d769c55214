"""Snapshots: ids, filters, files that have changed, and a gallery that grows."""

from __future__ import annotations

import gc
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.ann_file import ANN
from cvnet_engine.engine.gallery.filter import Filter
from cvnet_engine.engine.gallery.info import write_info
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.searcher import Plan
from cvnet_engine.server import app
from cvnet_engine.server.problems import ProblemError
from cvnet_engine.server.served_gallery import ServedGallery, id_of
from tests.cvnet_engine.server.conftest import IMAGES, ScoringEngines, add
from tests.galleries import INFO, NoPairs, photographs
from tests.pictures import photo


def test_ids_and_paths_lead_to_rows(served, photos):
    snapshot = served.snapshot
    assert len({snapshot.id(row) for row in range(IMAGES)}) == IMAGES
    for path in photos:
        row = snapshot.row(id_of(path))
        assert snapshot.gallery.paths[row] == path
        assert snapshot.row_of(str(path)) == snapshot.row_of(id_of(path)) == row
    assert snapshot.row_of("nowhere") is None
    with pytest.raises(ProblemError, match="nowhere") as missing:
        snapshot.row("nowhere")
    assert missing.value.status == 404


def test_filters(served, tmp_path):
    snapshot = served.snapshot

    def matching(*filters: str) -> set[str]:
        return {snapshot.gallery.paths[row].name for row in snapshot.matching(Filter(*filters))}

    assert snapshot.matching(Filter()) is None
    assert matching("VIEW 1", "") == {"view 1.jpg", "view 10.jpg", "view 11.jpg"}
    assert matching("view 1", str(tmp_path / "Abbey")) == {"view 1.jpg", "view 11.jpg"}
    assert matching("", f"{tmp_path}/Abb") == set()
    assert len(matching("abbey", "")) == IMAGES // 2
    assert matching("", "", "2019-06-05", "") == {"view 4.jpg", "view 5.jpg"}
    assert matching("view", str(tmp_path / "Abbey"), "", "2019-06-04") == {"view 1.jpg", "view 3.jpg"}
    assert snapshot.folders == {str(tmp_path / "Abbey"): 6, str(tmp_path / "harbour"): 6}


def test_dates(served, gallery, photos):
    snapshot = served.snapshot
    assert snapshot.taken_at(snapshot.row(id_of(photos[2]))) == "2019-06-03T12:00:00"
    assert snapshot.taken_at(snapshot.row(id_of(photos[-1]))) is None
    assert snapshot.taken_span == ("2019-06-01", "2019-06-06")
    GalleryWriter(gallery.with_name("empty"), INFO).close()
    assert ServedGallery(gallery.with_name("empty"), INFO, ScoringEngines()).snapshot.taken_span is None


def test_a_file_is_read_as_it_was_indexed(served, photos):
    snapshot, path = served.snapshot, photos[3]
    row, content = snapshot.row(id_of(path)), path.read_bytes()
    assert snapshot.read(row) == content
    path.touch()  # a new time, the same content
    assert snapshot.read(row) == content
    for change in (content[:-1] + b"!", content + b"!", content[:-1]):
        path.write_bytes(change)
        with pytest.raises(ProblemError, match="has changed") as changed:
            snapshot.read(row)
        assert changed.value.status == 410
    path.unlink()
    with pytest.raises(ProblemError, match="cannot be read"):
        snapshot.read(row)


def test_a_changed_gallery_is_reopened_and_the_old_one_closed(served, gallery, tmp_path):
    assert not served.refresh()
    before = served.snapshot
    add(gallery, [photo(tmp_path / "new.jpg", seed=99)])
    assert served.refresh()
    assert (len(before), len(served.snapshot)) == (IMAGES, IMAGES + 1)
    before.gallery.features(0)  # still of use to a search under way
    old = before.gallery
    del before
    with pytest.raises(GalleryError):
        old.features(0)
    assert not served.refresh()


def test_replaced_snapshots_are_unmapped_without_garbage_collection(served, gallery, tmp_path):
    def mapped():
        return sum("columns" in line for line in Path("/proc/self/maps").read_text().splitlines())

    before = mapped()
    gc.disable()
    try:
        for number in range(3):
            add(gallery, [photo(tmp_path / f"{number}.jpg", seed=number)])
            assert served.refresh()
            snapshot = served.snapshot
            list(snapshot.searcher.steps(snapshot.gallery.features(snapshot.row(snapshot.id(1))), Plan(rerank=3)))
            assert snapshot.matching(Filter("jpg", "")) is not None
            del snapshot
        assert mapped() == before
    finally:
        gc.enable()


def test_a_gallery_that_cannot_be_laid_out_is_closed(gallery):
    opened = []

    def lay_out(_, gallery):
        opened.append(gallery)
        raise MemoryError

    with pytest.raises(MemoryError):
        ServedGallery(gallery, INFO, ScoringEngines(), lay_out)
    with pytest.raises(GalleryError, match="closed"):
        opened[0].features(0)


def test_refreshing_goes_on_after_any_error(serve, served, monkeypatch):
    looks = threading.Semaphore(0)

    def refresh():
        looks.release()
        raise MemoryError

    monkeypatch.setattr(app, "REFRESH_S", 0.01)
    monkeypatch.setattr(served, "refresh", refresh)
    serve()
    assert all(looks.acquire(timeout=60) for _ in range(2))


def test_a_gallery_of_another_model_is_refused(served, gallery, tmp_path):
    snapshot = served.snapshot
    add(gallery, [photo(tmp_path / "new.jpg", seed=99)])
    write_info(gallery, replace(INFO, features_id="other"))
    with pytest.raises(GalleryError, match="another model"):
        served.refresh()
    assert served.snapshot is snapshot
    with pytest.raises(GalleryError, match="another model"):
        ServedGallery(gallery, INFO, ScoringEngines())


def test_the_approximate_index_is_used_until_it_is_removed(approximate_gallery, tmp_path):
    gallery = shutil.copytree(approximate_gallery, tmp_path / "g")
    query = Features(photographs(np.array([3]), 5)[0], ())

    def is_exact(served: ServedGallery) -> bool:
        return served.snapshot.searcher.find(query, Plan(rerank=0)).exact

    served = ServedGallery(gallery, INFO, NoPairs())
    assert not is_exact(served)
    assert not served.refresh()
    (gallery / ANN).unlink()
    assert served.refresh()
    assert is_exact(served)
