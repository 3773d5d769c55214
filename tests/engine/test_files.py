"""Files are written completely or not at all; devices and links are kept; absolute paths are unique."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvnet_engine.engine.files import absolute, write_atomically, writing_atomically


@pytest.mark.parametrize("content", ["caf\u00e9\n", b"\x00\xff"])
def test_a_file_is_written_or_replaced_alone(tmp_path, content):
    for _ in range(2):
        write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_written_in_pieces_appears_at_the_end(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with writing_atomically(tmp_path / "file") as stream:
        stream.write(b"new")
        assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(ZeroDivisionError), writing_atomically(tmp_path / "file") as stream:
        stream.write(bytes([1 // 0]))
    assert (tmp_path / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_kept_and_its_target_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_to_and_kept(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", "passing")
    assert os.read(reader, 100) == b"passing"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["absent/file", ".", "folder"])
def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"No such file|Is a directory"):
        write_atomically(tmp_path / name, "content")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("b/file", "a/b/file"),
        ("./b/file", "a/b/file"),
        ("../a/b/file", "a/b/file"),
        ("b/../absent", "a/absent"),
        (".", "a"),
        ("..", ""),
        ("b/..", "a"),
        ("b/", "a/b"),
        ("../../../../../../../../../..", "/"),
        ("/", "/"),
        ("link", "a/link"),  # to far/away
        ("link/..", "far"),
        ("link/../file", "far/file"),
        ("link/file", "a/link/file"),
        ("../a/link", "far/away"),
        ("../a/link/file", "far/away/file"),
        ("../a/link-to-file", "a/link-to-file"),
    ],
)
def test_one_absolute_path_per_file_or_folder(tmp_path, monkeypatch, path, expected):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "a" / "link-to-file").symlink_to("b/file")
    monkeypatch.chdir(tmp_path / "a")
    found = absolute(Path(path))
    assert str(found) == str(tmp_path / expected)
    if found.is_dir():
        assert absolute(Path(path) / "name") == found / "name"
