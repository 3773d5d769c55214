"""Shortlists from a file: one for all queries, or one for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvnet_engine.commands.shortlists import Shortlists
from cvnet_engine.engine.errors import CvnetError


def test_a_text_file_is_the_shortlist_of_every_query(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes(b"/photos/a.jpg\r\n\n/photos/b c.jpg\n/photos/\x0b.jpg")
    shortlists = Shortlists.read(file)
    for query in ("q.jpg", "-"):
        assert shortlists.of(Path(query)) == ["/photos/a.jpg", "/photos/b c.jpg", "/photos/\x0b.jpg"]


def test_json_has_a_shortlist_for_each_query_by_whatever_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "lists.json"
    file.write_text(json.dumps({"q.jpg": ["a.jpg"], str(tmp_path / "r.jpg"): ["b.jpg"], "-": ["c.jpg"]}))
    shortlists = Shortlists.read(file)
    assert shortlists.of(tmp_path / "q.jpg") == shortlists.of(Path("q.jpg")) == ["a.jpg"]
    assert shortlists.of(Path("r.jpg")) == ["b.jpg"]
    assert shortlists.of(Path("-")) == ["c.jpg"]
    with pytest.raises(CvnetError, match=r"s\.jpg: no candidates in .*lists\.json"):
        shortlists.of(Path("s.jpg"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[1]", "it is of type list"),
        ("a.json", b'{"q.jpg": "a.jpg"}', "'q.jpg' has no list of paths"),
        ("a.json", b'{"q.jpg": [1]}', "'q.jpg' has no list of paths"),
        ("a.json", b"{", "not shortlists"),
        ("a.json", b"[" * 100_000, "not shortlists"),
        ("a.txt", b"\xff\xfe", "not shortlists"),
        ("absent.txt", None, "not readable"),
    ],
)
def test_what_is_no_file_of_shortlists(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CvnetError, match=message):
        Shortlists.read(tmp_path / name)


def test_an_empty_list_is_no_shortlist(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(CvnetError, match="no candidates"):
        Shortlists.read(tmp_path / "empty.txt").of(Path("q.jpg"))
