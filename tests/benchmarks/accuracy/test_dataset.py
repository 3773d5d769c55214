"""Ground truth in the revisitop layout: read as data only, checked, and its images there."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvnet_engine.benchmarks.accuracy.dataset import load, read_distractors
from cvnet_engine.engine.errors import DatasetError
from tests.golden_inputs import SHARED

IMAGES, QUERIES = ["a", "b", "c"], ["q"]
RECORD = {"bbx": [1.5, 2, 30, 40], "easy": [0], "hard": [2], "junk": []}
TRUTH = {"imlist": IMAGES, "qimlist": QUERIES, "gnd": [RECORD]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DATA_DIR/small with its images, and no ground truth yet."""
    (tmp_path / "small" / "jpg").mkdir(parents=True)
    for name in IMAGES + QUERIES:
        (tmp_path / "small" / "jpg" / f"{name}.jpg").touch()
    return tmp_path / "small"


def write(folder: Path, truth: Any = TRUTH, protocol: int = 2) -> None:
    (folder / "gnd_small.pkl").write_bytes(pickle.dumps(truth, protocol))


def with_record(**changes: Any) -> dict[str, Any]:
    return TRUTH | {"gnd": [RECORD | changes]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle(folder, protocol):
    write(folder, protocol=protocol)
    dataset = load(folder.parent, "small")
    assert [path.name for path in dataset.images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert dataset.queries == (folder / "jpg" / "q.jpg",)
    (truth,) = dataset.ground_truth
    assert truth.bbx == (1.5, 2.0, 30.0, 40.0)
    assert [rows.tolist() for rows in (truth.easy, truth.hard, truth.junk)] == [[0], [2], []]
    assert truth.junk.dtype == np.int64


def test_the_json_twin_is_accepted_where_there_is_no_pickle(folder):
    (folder / "gnd_small.json").write_text(json.dumps(TRUTH))
    twin = load(folder.parent, "small")
    write(folder)
    (folder / "gnd_small.json").write_text("ignored")
    pickled = load(folder.parent, "small")
    assert (twin.images, twin.queries) == (pickled.images, pickled.queries)
    assert twin.ground_truth[0].bbx == pickled.ground_truth[0].bbx
    assert np.array_equal(twin.ground_truth[0].easy, pickled.ground_truth[0].easy)


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_published_ground_truth_is_plain_data(tmp_path, name):
    source = SHARED / "data" / "gnd" / f"gnd_{name}.pkl"
    if not source.is_file():
        pytest.skip("the published ground truth is not here")
    (tmp_path / name / "jpg").mkdir(parents=True)
    (tmp_path / name / source.name).write_bytes(source.read_bytes())
    with pytest.raises(DatasetError, match=r"\d{4} of \d{4} images missing \(.*, \.\.\.\); they come from www\.robots"):
        load(tmp_path, name)


@pytest.mark.parametrize("data_dir", [".", "../{}", "./../{}/."])
def test_images_go_by_one_name_wherever_they_are_named_from(folder, monkeypatch, data_dir):
    write(folder)
    monkeypatch.chdir(folder.parent)
    assert load(Path(data_dir.format(folder.parent.name)), "small").queries == (folder / "jpg" / "q.jpg",)


# ------------------------------------------------------------------------------------------------ evil, broken


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("place", [lambda evil: evil, lambda evil: TRUTH | {"gnd": [evil]}])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_does_not_run(folder, place, protocol):
    write(folder, place(Evil(f"touch {folder / 'ran'}")), protocol)
    with pytest.raises(DatasetError, match=r"asks for .*system; .* do not use this file"):
        load(folder.parent, "small")
    assert not (folder / "ran").exists()
    pickle.loads((folder / "gnd_small.pkl").read_bytes())
    assert (folder / "ran").exists()  # it would have run


def test_arrays_in_a_pickle_are_refused_too(folder):
    write(folder, with_record(easy=np.array([0])))
    with pytest.raises(DatasetError, match="expected plain data only"):
        load(folder.parent, "small")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_pickle(folder, share):
    data = pickle.dumps(TRUTH, 2)
    (folder / "gnd_small.pkl").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match="not readable") as caught:
        load(folder.parent, "small")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "\x00", "[" * 100_000])
def test_broken_json(folder, content):
    (folder / "gnd_small.json").write_text(content)
    with pytest.raises(DatasetError, match="not readable"):
        load(folder.parent, "small")


@pytest.mark.parametrize("truth", [[], "text", None, 7])
def test_something_else_than_a_dict(folder, truth):
    write(folder, truth)
    with pytest.raises(DatasetError, match=f"is a {type(truth).__name__}; expected a dict"):
        load(folder.parent, "small")


@pytest.mark.parametrize(
    "truth",
    [
        {},
        TRUTH | {"imlist": None},
        TRUTH | {"imlist": []},
        TRUTH | {"qimlist": [], "gnd": []},
        TRUTH | {"gnd": []},
        TRUTH | {"gnd": [[1, 2]]},
        TRUTH | {"gnd": {"q": RECORD}},
        {"imlist": IMAGES, "qimlist": QUERIES},
        TRUTH | {"gnd": [{"bbx": [0, 0, 1, 1], "ok": [0], "junk": []}]},
        with_record(bbx=[1, 2, 3]),
        with_record(bbx=None),
        with_record(bbx=7),
        with_record(bbx=[1, 2, "x", 4]),
        with_record(bbx=[1, 2, float("nan"), 4]),
        with_record(bbx=[1, 2, float("inf"), 4]),
        with_record(bbx=[1, 2, 10**400, 4]),
        with_record(easy=["a"]),
        with_record(easy=None),
        with_record(easy=[2**70]),
        with_record(easy=[[0], [1, 2]]),
    ],
)
def test_malformed_ground_truth(folder, truth):
    write(folder, truth)
    with pytest.raises(DatasetError, match="ground truth malformed"):
        load(folder.parent, "small")


@pytest.mark.parametrize("label", ["easy", "hard", "junk"])
@pytest.mark.parametrize("row", [3, -1, 1000, 2**70, 1.0, 0.5, True, "1", None, [0]])
def test_what_is_no_row_is_named_with_its_query_and_entry(folder, label, row):
    write(folder, TRUTH | {"gnd": [RECORD | {"easy": [], "hard": [], "junk": [], label: [0, row, 1]}]})
    with pytest.raises(DatasetError, match=rf"query 'q', {label}\[1\] is .*; expected a row of 3 images"):
        load(folder.parent, "small")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"easy": [0, 1, 0]}, r"query 'q', easy\[2\] is 0, as easy\[0\] is"),
        ({"hard": [2, 0]}, r"query 'q', hard\[1\] is 0, as easy\[0\] is"),
        ({"junk": [1, 2]}, r"query 'q', junk\[1\] is 2, as hard\[0\] is"),
    ],
)
def test_an_image_in_two_lists_or_twice_in_one_is_named_with_its_query_and_entries(folder, changes, message):
    write(folder, with_record(**changes))
    with pytest.raises(DatasetError, match=message + "; expected an image in one list, once"):
        load(folder.parent, "small")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imlist": ["a", "b", "a"]}, "imlist has 'a' more than once"),
        ({"imlist": ["a", "b", "../c"]}, r"imlist\[2\] is '\.\./c'; expected an image's name"),
        ({"imlist": ["a", "b", 7]}, r"imlist\[2\] is 7; expected an image's name"),
        ({"qimlist": ["/etc/q"]}, r"qimlist\[0\] is '/etc/q'; expected an image's name"),
        ({"qimlist": ["q\0"]}, "expected an image's name"),
    ],
)
def test_names_that_are_none(folder, changes, message):
    write(folder, TRUTH | changes)
    with pytest.raises(DatasetError, match=message):
        load(folder.parent, "small")


@pytest.mark.parametrize("name", ["b", "q"])
def test_missing_images_are_counted_and_named(folder, name):
    write(folder)
    (folder / "jpg" / f"{name}.jpg").unlink()
    with pytest.raises(DatasetError, match=rf"1 of 4 images missing \({name}\.jpg\); copy"):
        load(folder.parent, "small")


@pytest.mark.parametrize("name", ["unknown", "small", "small/jpg", "", "../small"])
def test_an_unknown_data_set(folder, name):
    with pytest.raises(DatasetError, match="no ground truth"):
        load(folder.parent, name)


# -------------------------------------------------------------------------------------------------- distractors


def test_distractors_enlarge_the_database_and_leave_the_labels(folder):
    write(folder)
    for name in ("x.jpg", "y z.jpg"):
        (folder.parent / name).touch()
    listing = folder.parent / "more.txt"
    listing.write_text(f"x.jpg\n\n  {folder.parent / 'y z.jpg'}\r\n")
    dataset = load(folder.parent, "small")
    larger = dataset.with_distractors(read_distractors(listing))
    assert larger.images == (*dataset.images, folder.parent / "x.jpg", folder.parent / "y z.jpg")
    assert larger.queries == dataset.queries
    assert larger.ground_truth == dataset.ground_truth


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"absent.jpg\n", "1 of 1 images missing"),
        (b"more.txt\nabsent.jpg\n", r"1 of 2 images missing .*absent\.jpg"),
        (b"", "an empty list"),
        (b"\n \n", "an empty list"),
        (b"\xff\xfe\x00", "not readable"),
        (None, "not readable"),
    ],
)
def test_bad_distractor_lists(tmp_path, content, message):
    if content is not None:
        (tmp_path / "more.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_distractors(tmp_path / "more.txt")
