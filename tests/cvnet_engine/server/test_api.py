"""API of the server, with fake engines."""

from __future__ import annotations

import asyncio
import gc
import json
import mimetypes
import tempfile
import weakref
from typing import ClassVar

import cv2
import numpy as np
import pytest

from cvnet_engine.engine.gallery.shards import DAMAGED
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.images import decode
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher
from cvnet_engine.server import request_body
from cvnet_engine.server.problems import ProblemError
from cvnet_engine.server.scheduler import Scheduler
from cvnet_engine.server.served_gallery import id_of
from cvnet_engine.server.service import unless_gone
from tests.cvnet_engine.server.conftest import IMAGES, ScoringEngines, add
from tests.pictures import photo, png


def problem(answer, status: int, kind: str) -> str:
    """The detail of the problem document that an answer is expected to be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["type"]) == (status, f"urn:cvnet-engine:problem:{kind}")
    return document["detail"]


def events_of(answer) -> list[tuple[str, dict]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in answer.text.split("\n\n") if frame]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]


def expected(served, data: bytes, plan: Plan):
    """The results of the engine without the server."""

    with Searcher(ScoringEngines(), served.snapshot.gallery) as searcher:
        return searcher.find(ScoringEngines().extract(decode(data)), plan)


@pytest.mark.parametrize("method", ["cvnet", "superglobal", "both"])
def test_an_upload_is_searched_as_the_engine_does(client, served, photos, method):
    data = photos[4].read_bytes()
    answer = client.post("/v1/search", files={"image": data}, data={"top_k": "7", "rerank": "5", "method": method})
    found = expected(served, data, Plan(7, 5, method))
    content, top = answer.json(), found.ranking.first(7)
    assert [hit["id"] for hit in content["results"]] == [served.snapshot.id(row) for row in top.rows]
    assert [hit["score"] for hit in content["results"]] == top.scores.tolist()
    assert [hit["rank"] for hit in content["results"]] == list(range(1, 8))
    before = found.before.rows.tolist()
    assert [hit["before"] for hit in content["results"]] == [before.index(row) + 1 for row in top.rows]
    assert content["pairs"] == (0 if method == "superglobal" else 5)
    assert content["notice"] == "a notice"
    assert set(content["seconds"]) == {"features", "global", "rerank"}
    assert content["global"] == "exact"
    assert content["query"] is None


def test_a_gallery_image_is_searched_without_its_file(client, photos):
    photos[2].unlink()
    asked = {"id": id_of(photos[2]), "top_k": 3}
    by_json, by_form = client.post("/v1/search", json=asked).json(), client.post("/v1/search", data=asked).json()
    assert by_json["results"] == by_form["results"]
    assert len(by_json["results"]) == 3
    assert (by_json["query"]["id"], by_json["query"]["path"]) == (id_of(photos[2]), str(photos[2]))


def test_a_gallery_image_is_not_among_its_results(client, photos):
    for more in ({"rerank": 0}, {"method": "both"}, {"box": [0, 0, 40, 40]}, {"name": "view"}):
        found = client.post("/v1/search", json={"id": id_of(photos[2]), "top_k": IMAGES, **more}).json()["results"]
        assert {hit["path"] for hit in found} == {str(path) for path in photos} - {str(photos[2])}
        assert sorted(hit["before"] for hit in found) == list(range(1, IMAGES))


def test_a_box_is_the_cropped_image(client, photos, tmp_path):
    cropped = tmp_path / "cropped.png"
    cv2.imwrite(str(cropped), cv2.imread(str(photos[0]))[4:60, 8:72])
    fields = {"top_k": IMAGES}
    whole = client.post("/v1/search", files={"image": cropped.read_bytes()}, data=fields).json()["results"]
    box = {"box": "8,4,72,60"}
    upload = client.post("/v1/search", files={"image": photos[0].read_bytes()}, data=fields | box)
    assert upload.json()["results"] == whole
    stored = client.post("/v1/search", data={"id": id_of(photos[0])} | fields | box).json()["results"]
    others = {hit["id"]: hit["score"] for hit in whole if hit["id"] != id_of(photos[0])}
    assert {hit["id"]: hit["score"] for hit in stored} == pytest.approx(others, abs=1e-3)  # of other batches


def test_a_stream_sends_global_ranking_scores_and_result(client, photos):
    asked = {"id": id_of(photos[1]), "top_k": 12, "rerank": 9}
    plain = client.post("/v1/search", json=asked).json()
    events = events_of(client.post("/v1/search", json=asked, headers={"Accept": "text/event-stream"}))
    assert [name for name, _ in events] == ["global", "scores", "scores", "scores", "result"]
    ranking, *scores, result = (data for _, data in events)
    assert all(hit["rerank_score"] is None for hit in ranking["results"])
    assert [hit["rank"] for hit in ranking["results"]] == [hit["before"] for hit in ranking["results"]]
    assert [(s["done"], s["total"]) for s in scores] == [(4, 9), (8, 9), (9, 9)]
    told = {id_: score for s in scores for id_, score in s["scores"].items()}
    assert told == {hit["id"]: hit["rerank_score"] for hit in result["results"] if hit["rerank_score"] is not None}
    assert result["results"] == plain["results"]


def test_coarse_to_fine_marks_the_resolution_of_scores(client, photos):
    asked = {"id": id_of(photos[1]), "top_k": 12, "rerank": 9, "rerank_full": 4}
    events = events_of(client.post("/v1/search", json=asked, headers={"Accept": "text/event-stream"}))
    assert [name for name, _ in events] == ["global", "scores", "result"]
    (_, scores), (_, result) = events[1:]
    assert (scores["done"], scores["total"], result["pairs"]) == (4, 4, 4)
    hits = result["results"]
    in_full = [hit["rerank_score"] is not None for hit in hits]
    assert in_full == [True] * 4 + [False] * 7
    assert [hit["pooled_score"] is not None for hit in hits] == [True] * 9 + [False] * 2
    assert scores["scores"] == {hit["id"]: hit["rerank_score"] for hit in hits[:4]}
    assert {"features", "global", "pooled", "rerank"} == set(result["seconds"])


@pytest.mark.parametrize("rerank_full", [9, 12, 1000])
def test_rerank_full_that_reaches_all_changes_nothing(client, photos, rerank_full):
    asked = {"id": id_of(photos[1]), "top_k": 12, "rerank": 9}
    plain, fined = (client.post("/v1/search", json=asked | more).json() for more in ({}, {"rerank_full": rerank_full}))
    assert fined["results"] == plain["results"]


def test_a_failure_in_a_stream_is_its_last_event(client, photos, monkeypatch):
    def damaged(*_):
        yield [0], np.zeros(1, np.float32)
        raise MemoryError

    monkeypatch.setattr(ScoringEngines, "score_batches", damaged)
    asked = {"id": id_of(photos[1])}
    name, data = events_of(client.post("/v1/search", json=asked, headers={"Accept": "text/event-stream"}))[-1]
    assert (name, data["status"]) == ("problem", 503)
    assert 'cvnet_errors_total{kind="busy"} 1.0' in client.get("/metrics").text


def test_searches_are_filtered_by_folder_and_name(client, photos, tmp_path):
    asked = {"id": id_of(photos[0]), "folder": str(tmp_path / "Abbey"), "name": "VIEW 1", "top_k": 50}
    content = client.post("/v1/search", json=asked).json()
    assert {hit["path"] for hit in content["results"]} == {str(photos[1]), str(photos[11])}
    assert content["images"] == content["pairs"] == 2
    for method in ("cvnet", "superglobal", "both"):
        content = client.post("/v1/search", json=asked | {"name": "nothing of the kind", "method": method}).json()
        assert (content["results"], content["pairs"], content["images"]) == ([], 0, 0)


def test_searches_are_filtered_by_date(client, photos):
    asked = {"id": id_of(photos[0]), "taken_from": "2019-06-03", "taken_to": "2019-06-04", "top_k": 50}
    content = client.post("/v1/search", json=asked).json()
    assert {(hit["path"], hit["taken"]) for hit in content["results"]} == {
        (str(photos[2]), "2019-06-03T12:00:00"),
        (str(photos[3]), "2019-06-04T12:00:00"),
    }
    assert client.get("/v1/images", params={"taken_from": "2019"}).json()["total"] == IMAGES // 2
    assert client.get("/v1/gallery").json()["taken"] == {"first": "2019-06-01", "last": "2019-06-06"}
    for name, other in (("taken_from", "2019-02-30"), ("taken_to", "June")):
        problem(client.post("/v1/search", json=asked | {name: other}), 422, "invalid-request")
        assert name in problem(client.get("/v1/images", params={name: other}), 422, "invalid-request")


def test_a_result_that_is_near_identical_to_a_better_one_names_it(client, served, gallery, photos):
    again = photos[3].with_name("again.jpg")
    again.write_bytes(photos[3].read_bytes())
    add(gallery, [again])
    served.refresh()
    asked = {"files": {"image": again.read_bytes()}, "data": {"top_k": "50", "rerank": "0"}}
    hits = client.post("/v1/search", **asked).json()["results"]
    first, second = hits[:2]
    assert {first["id"], second["id"]} == {id_of(photos[3]), id_of(again)}
    assert first["same_as"] is None
    assert second["same_as"] == first["id"]
    assert all(hit["same_as"] is None for hit in hits[2:])


def test_an_image_that_was_removed_since_the_gallery_was_opened(client, gallery, photos):
    with GalleryWriter.reopen(gallery) as writer:
        writer.remove([photos[0]])
    for path in ("", "/thumbnail"):
        answer = client.get(f"/v1/images/{id_of(photos[0])}{path}")
        assert "no longer in the gallery" in problem(answer, 410, "changed-image")
    for asked in ({"id": id_of(photos[0])}, {"id": id_of(photos[0]), "box": [0, 0, 40, 40]}):
        problem(client.post("/v1/search", json=asked), 410, "changed-image")
    assert not (gallery / DAMAGED).exists()


def test_a_gallery_image_is_left_out_of_its_shortlist(client, photos):
    asked = {"id": id_of(photos[2]), "candidates": [str(path) for path in photos[1:4]]}
    for more in ({}, {"box": [0, 0, 40, 40]}):
        found = client.post("/v1/rerank", json=asked | more).json()["results"]
        assert {hit["path"]: hit["before"] for hit in found} == {str(photos[1]): 1, str(photos[3]): 3}


def test_an_external_shortlist_is_reranked(client, photos):
    names = [str(photos[7]), id_of(photos[2]), id_of(photos[9]), str(photos[2])]
    for sent in (
        {"json": {"id": id_of(photos[5]), "candidates": names}},
        {"data": {"id": id_of(photos[5]), "candidates": names}},
    ):
        content = client.post("/v1/rerank", **sent).json()
        ids = [hit["id"] for hit in content["results"]]
        assert set(ids) == {id_of(photos[place]) for place in (7, 2, 9)}
        assert [hit["before"] for hit in content["results"]] == [
            [id_of(photos[place]) for place in (7, 2, 9)].index(id_) + 1 for id_ in ids
        ]
        scores = [hit["score"] for hit in content["results"]]
        assert scores == sorted(scores, reverse=True)
        assert all(
            hit["score"] == pytest.approx(hit["similarity"] + hit["rerank_score"] / 2) for hit in content["results"]
        )
    uploaded = client.post("/v1/rerank", files={"image": photos[5].read_bytes()}, data={"candidates": names})
    assert [hit["id"] for hit in uploaded.json()["results"]] == ids
    unknown = client.post("/v1/rerank", json={"id": id_of(photos[5]), "candidates": [*names, "/etc/passwd"]})
    assert "1 of 5 candidates" in problem(unknown, 422, "unknown-candidates")
    body = json.dumps({"id": id_of(photos[5]), "candidates": ["\ud800", "\0"]})
    unspeakable = client.post("/v1/rerank", content=body, headers={"Content-Type": "application/json"})
    problem(unspeakable, 422, "unknown-candidates")


def test_descriptors(client, served, photos):
    content = client.post("/v1/descriptors", files={"image": photos[3].read_bytes()}).json()
    row = served.snapshot.row(id_of(photos[3]))
    np.testing.assert_array_equal(np.float32(content["descriptor"]), served.snapshot.gallery.descriptors[row])
    assert content["features_id"] == served.snapshot.gallery.info.features_id


def test_the_gallery_and_its_images(client, photos, tmp_path):
    content = client.get("/v1/gallery").json()
    assert (content["images"], content["model"]) == (IMAGES, "fake model")
    assert content["folders"] == {str(tmp_path / "Abbey"): 6, str(tmp_path / "harbour"): 6}
    page = client.get("/v1/images", params={"offset": 4, "limit": 3}).json()
    assert [entry["path"] for entry in page["images"]] == [str(path) for path in photos[4:7]]
    assert page["total"] == IMAGES
    assert client.get("/v1/images", params={"name": "view 1", "folder": str(tmp_path / "Abbey")}).json()["total"] == 2
    problem(client.get("/v1/images", params={"limit": 0}), 422, "invalid-request")


def test_images_are_served_by_id_and_only_if_unchanged(client, photos):
    answer = client.get(f"/v1/images/{id_of(photos[0])}")
    assert (answer.content, answer.headers["content-type"]) == (photos[0].read_bytes(), "image/jpeg")
    assert "sandbox" in answer.headers["content-security-policy"]
    small = client.get(f"/v1/images/{id_of(photos[0])}/thumbnail")
    assert max(decode(small.content).shape) <= 240
    again = client.get(f"/v1/images/{id_of(photos[0])}/thumbnail", headers={"If-None-Match": small.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    photo(photos[0], seed=77)
    for path in ("", "/thumbnail"):
        problem(client.get(f"/v1/images/{id_of(photos[0])}{path}"), 410, "changed-image")
    for name in ("..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "x"):
        assert client.get(f"/v1/images/{name}").status_code == 404
    problem(client.post("/v1/search", json={"id": id_of(photos[0]), "box": [0, 0, 40, 40]}), 410, "changed-image")


def test_webp_is_served_without_mime_types_of_the_system(client, served, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(mimetypes, "_db", mimetypes.MimeTypes())  # no /etc/mime.types
    path = photo(tmp_path / "new.webp", seed=99)  # as its name says, that is
    add(gallery, [path])
    served.refresh()
    assert client.get(f"/v1/images/{id_of(path)}").headers["content-type"] == "image/webp"


def test_new_images_are_found_after_a_refresh(client, served, gallery, tmp_path):
    new = photo(tmp_path / "new.jpg", seed=99)
    add(gallery, [new])
    served.refresh()
    assert client.get("/v1/gallery").json()["images"] == IMAGES + 1
    answer = client.post("/v1/search", files={"image": new.read_bytes()}, data={"rerank": "0"}).json()
    assert answer["results"][0]["path"] == str(new)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no image", "not an image"),
        (b"", "not an image"),
        (png(4, 4), "too few"),
        (png(20000, 20000, whole=False), "too many"),
    ],
    ids=["text", "empty", "small", "huge"],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_unusable_uploads_are_problems(client, data, message, accept):
    answer = client.post("/v1/search", files={"image": data}, headers={"Accept": accept})
    assert message in problem(answer, 422, "unusable-image")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either an image"),
        ({"top_k": "0"}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"rerank": "100000"}, "rerank"),
        ({"method": "magic"}, "method"),
        ({"box": "1,2,3"}, "box"),
        ({"colour": "red"}, "colour"),
        ({"deadline_s": "0"}, "deadline_s"),
        ({"method": "superglobal", "rerank_full": "3"}, "body: rerank_full 3: superglobal scores no pair"),
    ],
)
def test_invalid_fields_are_problems(client, fields, message):
    assert message in problem(client.post("/v1/search", data=fields or {"top_k": "3"}), 422, "invalid-request")


@pytest.mark.parametrize("box", ["0,0,1000,10", "50,10,20,60", "0,0,nan,50"])
def test_boxes_outside_the_image_are_problems(client, photos, box):
    answer = client.post("/v1/search", files={"image": photos[0].read_bytes()}, data={"box": box})
    assert "bbox" in problem(answer, 422, "unusable-image")


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ("application/json", b"{", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b"[]", 422),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense", 422),
        ("application/x-www-form-urlencoded", b"name=&" * (request_body.MAX_FIELDS + 1), 400),
        ("application/json", json.dumps(dict.fromkeys(map(str, range(request_body.MAX_FIELDS + 1)))).encode(), 400),
    ],
)
def test_malformed_bodies_are_problems(client, kind, body, status):
    answer = client.post("/v1/search", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_too_large_upload_is_refused(client):
    answer = client.post("/v1/search", files={"image": bytes(request_body.MAX_UPLOAD_BYTES)})
    problem(answer, 413, "too-large")


def test_an_endless_body_is_read_up_to_the_limit():
    read = []

    class Endless:
        headers: ClassVar = {}

        async def stream(self):
            while True:
                read.append(2**20)
                yield bytes(2**20)

    async def whole():
        async for _ in request_body.bounded(Endless(), 2**25):
            pass

    with pytest.raises(ProblemError) as refused:
        asyncio.run(whole())
    assert refused.value.status == 413
    assert sum(read) == 2**25 + 2**20


def test_uploads_are_never_written_to_disk(client, photos, monkeypatch):
    def refuse(*_arguments, **_options):
        pytest.fail("a temporary file was made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    data = photos[0].read_bytes() + bytes(8 * 2**20)  # a JPEG ends where it ends
    answer = client.post("/v1/search", files={"image": data}, data={"top_k": "1"})
    assert answer.status_code == 200, answer.text


def test_a_full_queue_is_refused_at_once(serve, photos):
    client = serve(scheduler=Scheduler(capacity=0))
    for answer in (
        client.post("/v1/search", files={"image": photos[0].read_bytes()}),
        client.post("/v1/rerank", json={"id": id_of(photos[0]), "candidates": [id_of(photos[1])]}),
        client.post("/v1/descriptors", json={"id": id_of(photos[0])}),
        client.get("/readyz"),
    ):
        problem(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) > 0
    assert client.get("/healthz").status_code == 200


def test_the_deadline_does_not_wait_for_the_engines(serve, photos, monkeypatch):
    scheduler = Scheduler()
    monkeypatch.setattr(scheduler, "start", lambda: None)  # no step is ever taken
    client = serve(scheduler=scheduler)
    asked = {"id": id_of(photos[0]), "deadline_s": 0.01}
    for accept in ("application/json", "text/event-stream"):
        problem(client.post("/v1/search", json=asked, headers={"Accept": accept}), 504, "deadline")
    assert [job.cancelled for job in scheduler._jobs] == [True, True]


class OneStep(Scheduler):
    """Takes the first step of a job; the others are taken by hand."""

    def start(self):
        pass

    def submit(self, steps, deliver):
        job = super().submit(steps, deliver)
        self.turn()
        return job


def test_a_search_past_its_deadline_releases_the_gallery(serve, served, gallery, photos, tmp_path):
    client = serve(scheduler=OneStep())
    asked = {"id": id_of(photos[0]), "deadline_s": 0.1}
    events = events_of(client.post("/v1/search", json=asked, headers={"Accept": "text/event-stream"}))
    assert [(name, data["status"]) for name, data in events] == [("problem", 504)]
    client.app._app.state.service.scheduler.turn()  # which finds it cancelled
    before = weakref.ref(served.snapshot)
    add(gallery, [photo(tmp_path / "new.jpg", seed=99)])
    served.refresh()
    gc.collect()
    assert before() is None


def test_an_unexpected_error_in_a_stream_is_logged(client, photos, monkeypatch, caplog):
    def failing(*_):
        yield [0], np.zeros(1, np.float32)
        raise KeyError("secret")

    monkeypatch.setattr(ScoringEngines, "score_batches", failing)
    asked = {"id": id_of(photos[1])}
    name, data = events_of(client.post("/v1/search", json=asked, headers={"Accept": "text/event-stream"}))[-1]
    assert (name, data["status"]) == ("problem", 500)
    assert "secret" not in data["detail"]
    assert "KeyError: 'secret'" in caplog.text


def test_unexpected_errors_disclose_nothing(client, served, photos, monkeypatch):
    monkeypatch.setattr(served.snapshot.searcher, "steps", lambda *_: {}["secret"])
    detail = problem(client.post("/v1/search", json={"id": id_of(photos[0])}), 500, "internal")
    assert "secret" not in detail


def test_unknown_paths_and_methods_are_problems(client):
    problem(client.get("/nothing"), 404, "not-found")
    problem(client.get("/v1/search"), 405, "method-not-allowed")


def test_metrics(client, photos):
    client.post("/v1/search", json={"id": id_of(photos[0]), "rerank": 6})
    client.get("/nothing")
    client.request("BREW", "/nothing")
    text = client.get("/metrics").text
    for line in (
        'cvnet_requests_total{method="POST",route="/v1/search",status="200"} 1.0',
        'cvnet_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'cvnet_requests_total{method="other",route="unmatched",status="404"} 1.0',
        'cvnet_errors_total{kind="not-found"} 2.0',
        'cvnet_stage_seconds_count{stage="rerank"} 1.0',
        "cvnet_pairs_total 6.0",
        "cvnet_queue 0.0",
        "cvnet_gallery_images 12.0",
    ):
        assert line in text


def test_openapi_describes_uploads_and_problems(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/rerank", "/v1/descriptors", "/v1/images/{id}/thumbnail", "/readyz"} <= set(paths)
    search = paths["/v1/search"]["post"]
    form = search["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"image", "id", "box", "top_k", "rerank", "method"} <= set(form["properties"])
    assert "application/problem+json" in search["responses"]["default"]["content"]
    assert "text/event-stream" in search["responses"]["200"]["content"]


class Leaver:
    """A request whose client goes away."""

    async def receive(self):
        return {"type": "http.disconnect"}


def test_a_disconnected_client_cancels_its_job(client):
    """Waited for or streamed: the job is cancelled, and its work closed at its next turn."""
    service, log = client.app._app.state.service, []

    def work():
        try:
            while True:
                yield "step"
        finally:
            log.append("closed")

    async def waited():
        scheduler = Scheduler()  # takes no turns by itself
        events = type(service)(**{**vars(service), "scheduler": scheduler}).events(work(), 60)

        async def all_of_it():
            async for _ in events:
                pass

        with pytest.raises(ProblemError, match="disconnected"):
            await unless_gone(Leaver(), all_of_it())
        return scheduler

    async def streamed():
        scheduler = Scheduler()
        events = type(service)(**{**vars(service), "scheduler": scheduler}).events(work(), 60)
        first = asyncio.create_task(anext(events))
        while not len(scheduler):
            await asyncio.sleep(0)
        scheduler.turn()
        assert await first == "step"
        await events.aclose()
        return scheduler

    for way in (waited, streamed):
        scheduler = asyncio.run(way())
        while scheduler.turn():
            pass
    assert log == ["closed"]  # the first had not begun
