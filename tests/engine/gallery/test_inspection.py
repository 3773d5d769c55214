"""Deleted files are told from those of a disk that is not there."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from cvnet_engine.engine.gallery import inspection as module
from cvnet_engine.engine.gallery.inspection import find_missing


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Files that are there, in two folders and one below."""
    found = [tmp_path / name for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/c/4.jpg", "b/c/5.jpg")]
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return found


def test_nothing_has_vanished(paths):
    assert find_missing(paths) == module.MissingFiles([], {}, {})


def test_a_file_that_is_gone_from_among_others_was_deleted(paths):
    paths[1].unlink()
    assert find_missing(paths).deleted == [paths[1]]


def test_a_folder_that_is_gone_from_among_others_was_deleted(paths, tmp_path):
    shutil.rmtree(tmp_path / "b/c")
    found = find_missing(paths)
    assert (found.deleted, found.doubtful) == (paths[3:], {})


def test_an_empty_folder_may_be_where_a_disk_was(paths, tmp_path):
    for path in (tmp_path / "b/c").iterdir():
        path.unlink()
    found = find_missing(paths)
    assert (found.deleted, found.doubtful) == ([], {tmp_path / "b/c": paths[3:]})


def test_what_is_gone_below_an_empty_folder_may_be_on_a_disk(paths, tmp_path):
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "b").mkdir()
    found = find_missing(paths)
    assert (found.deleted, found.doubtful) == ([], {tmp_path / "b": paths[2:]})


def test_images_of_another_disk_are_no_evidence(paths, tmp_path, monkeypatch):
    """As in /media, whose mount points come and go with their disks."""
    shutil.rmtree(tmp_path / "a")
    assert find_missing(paths).deleted == paths[:2]
    monkeypatch.setattr(module, "disk", lambda folder: 2 if folder.is_relative_to(tmp_path / "b") else 1)
    found = find_missing(paths)
    assert (found.deleted, found.doubtful) == ([], {tmp_path: paths[:2]})


def test_the_root_alone_is_no_evidence(paths):
    gone = Path("/no such folder at all/1.jpg")
    assert find_missing([*paths, gone]).doubtful == {Path("/"): [gone]}


def test_a_broken_link_has_vanished(paths, tmp_path):
    (tmp_path / "a/link.jpg").symlink_to(tmp_path / "absent.jpg")
    assert find_missing([*paths, tmp_path / "a/link.jpg"]).deleted == [tmp_path / "a/link.jpg"]


def test_a_disk_that_does_not_answer_is_not_taken_for_gone(paths, monkeypatch):
    stat = Path.stat

    def failing(path: Path, **options: bool) -> object:
        if path == paths[2]:
            raise OSError(errno.EIO, "Input/output error")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", failing)
    assert find_missing(paths) == module.MissingFiles([], {}, {paths[2]: "Input/output error"})
