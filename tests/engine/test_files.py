"""Files are whole or not there at all, devices and links stay what they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvnet_engine.engine.files import absolute, write_atomically, writing_atomically


@pytest.mark.parametrize("content", ["caf\u00e9\n", b"\x00\xff"])
def test_a_file_is_written_or_replaced_and_nothing_else_left(tmp_path, content):
    for _ in range(2):
        write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_written_bit_by_bit_is_there_at_the_end_or_as_before(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with writing_atomically(tmp_path / "file") as stream:
        stream.write(b"new")
        assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(ZeroDivisionError), writing_atomically(tmp_path / "file") as stream:
        stream.write(bytes([1 // 0]))
    assert (tmp_path / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_what_is_no_plain_file_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", "passing")
    assert os.read(reader, 100) == b"passing"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["absent/file", ".", "folder"])
def test_what_cannot_be_written_is_an_os_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"No such file|Is a directory"):
        write_atomically(tmp_path / name, "content")


@pytest.mark.parametrize("name", ["b/file", "./b/file", "../a/b/file", "b/../b/file"])
def test_one_name_for_one_file(tmp_path, monkeypatch, name):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert absolute(Path(name)) == tmp_path / "a" / "b" / "file"


def test_a_step_back_out_of_a_link_goes_where_the_file_system_goes(tmp_path, monkeypatch):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    monkeypatch.chdir(tmp_path)
    assert absolute(Path("link/../file")) == tmp_path / "far" / "file"
    assert absolute(Path("link/file")) == tmp_path / "link" / "file"
