"""API over two shard workers: results equal those of one process; missing images are reported."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from starlette.testclient import TestClient

from cvnet_engine.engine.retrieval.engines import batches_of_equal
from cvnet_engine.engine.retrieval.search import DescriptorIndex, similarities
from cvnet_engine.engine.retrieval.sharded import ShardedSearcher
from cvnet_engine.server.access import Access
from cvnet_engine.server.app import create_app
from cvnet_engine.server.served_gallery import ServedGallery, id_of
from cvnet_engine.server.service import ModelInfo
from tests.cvnet_engine.server.conftest import IMAGES, LOCAL, ScoringEngines, add
from tests.cvnet_engine.server.test_api import events_of, problem
from tests.galleries import INFO
from tests.pictures import photo

FIRST = IMAGES // 3  # images of the first part


class Steady(ScoringEngines):
    """Scores that do not depend on the batch: a product of BLAS does, in its last bits."""

    def score_batches(self, query, collection, rows, _is_needed=None):
        for batch in batches_of_equal(rows, collection.map_size):
            yield batch, np.abs(similarities(collection.descriptors[batch], query.descriptor) * 997) % 1


class Half:
    """Some rows of a gallery, searched in this process at once."""

    def __init__(self, engines, gallery, rows: range) -> None:
        self.engines, self.gallery, self.rows, self.lost = engines, gallery, rows, False

    def __len__(self):
        return len(self.rows)

    def is_here(self):
        return not self.lost

    def search(self, descriptor, k, selection):
        descriptors = self.gallery.descriptors[self.rows.start : self.rows.stop]
        return answer(DescriptorIndex(descriptors).search(descriptor, k, selection))

    def score(self, query, rows, _rough):
        ((_, scores),) = self.engines.score_batches(query, self.gallery, [self.rows.start + row for row in rows])
        return answer(scores)


def answer(found) -> Future:
    future: Future = Future()
    future.set_result(found)
    return future


@pytest.fixture
def parts() -> list[Half]:
    """Those of the gallery that is served."""
    return []


@pytest.fixture
def spread_gallery(gallery, parts) -> ServedGallery:
    def lay_out(engines, opened):
        parts[:] = [Half(engines, opened, rows) for rows in (range(FIRST), range(FIRST, len(opened)))]
        return ShardedSearcher(opened.map_size, parts)

    return ServedGallery(gallery, INFO, Steady(), lay_out)


def serving(served: ServedGallery) -> TestClient:
    app = create_app(Steady(), served, ModelInfo("fake model", "", None), Access("127.0.0.1"))
    return TestClient(app, LOCAL, raise_server_exceptions=False)


@pytest.fixture
def spread(spread_gallery) -> Iterator[TestClient]:
    with serving(spread_gallery) as client:
        yield client


@pytest.fixture
def whole(gallery) -> Iterator[TestClient]:
    with serving(ServedGallery(gallery, INFO, Steady())) as client:
        yield client


@pytest.mark.parametrize("asked", [{"rerank": 9}, {"top_k": 3, "name": "VIEW 1"}, {"box": [4, 4, 60, 60]}])
def test_results_equal_those_of_one_process(whole, spread, photos, asked):
    query = {"id": id_of(photos[1]), "top_k": IMAGES} | asked
    found, expected = (one.post("/v1/search", json=query).json() for one in (spread, whole))
    assert found["results"] == expected["results"]
    assert (found["images"], found["partial"], found["missing"]) == (expected["images"], False, None)
    assert (expected["partial"], expected["missing"]) == (False, None)


def test_responses_report_missing_images(spread, parts, photos):
    parts[0].lost = True
    query = {"id": id_of(photos[1]), "top_k": IMAGES, "rerank": IMAGES}  # its stored features can be read all the same
    events = events_of(spread.post("/v1/search", json=query, headers={"Accept": "text/event-stream"}))
    assert [name for name, _ in events] == ["global", "scores", "scores", "result"]
    for data in (events[0][1], events[-1][1], spread.post("/v1/search", json=query).json()):
        assert (data["images"], len(data["results"]), data["partial"]) == (IMAGES - FIRST, IMAGES - FIRST, True)
        assert data["missing"] == {"images": FIRST, "workers": 1, "of": 2}
    elsewhere = spread.post("/v1/search", json=query | {"name": "view 11"}).json()
    assert (elsewhere["partial"], elsewhere["images"]) == (False, 1)
    shortlist = {"id": id_of(photos[1]), "candidates": [str(photos[0]), str(photos[9])]}
    answered = spread.post("/v1/rerank", json=shortlist).json()
    assert (len(answered["results"]), answered["missing"]["images"]) == (1, 1)


def test_without_any_worker_the_search_is_refused(spread, parts, photos):
    for part in parts:
        part.lost = True
    answer = spread.post("/v1/search", json={"id": id_of(photos[1])})
    assert "try again" in problem(answer, 503, "busy")
    assert answer.headers["retry-after"]


def test_a_changed_gallery_is_divided_again(spread, spread_gallery, gallery, photos, tmp_path):
    add(gallery, [photo(tmp_path / "new.jpg", seed=99)])
    assert spread_gallery.refresh()
    assert spread.post("/v1/search", json={"id": id_of(photos[1])}).json()["images"] == IMAGES + 1
