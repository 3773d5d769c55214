"""Missing files: deleted ones, and those that may be on an unmounted disk."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from cvnet_engine.engine.gallery import inspection as module
from cvnet_engine.engine.gallery.inspection import find_missing


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Existing files in two folders and a subfolder."""
    found = [tmp_path / name for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/c/4.jpg", "b/c/5.jpg")]
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return found


def remove_contents(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("change", "deleted", "doubtful"),
    [
        (lambda _: None, [], {}),
        (lambda root: (root / "a/2.jpg").unlink(), [1], {}),
        (lambda root: shutil.rmtree(root / "b/c"), [3, 4], {}),
        (lambda root: remove_contents(root / "b/c"), [], {"b/c": [3, 4]}),
        (lambda root: remove_contents(root / "b"), [], {"b": [2, 3, 4]}),
    ],
)
def test_missing_files_are_deleted_or_doubtful(paths, tmp_path, change, deleted, doubtful):
    """An empty folder may be the mount point of a disk."""
    change(tmp_path)
    found = find_missing(paths)
    assert found.deleted == [paths[n] for n in deleted]
    assert found.doubtful == {tmp_path / folder: [paths[n] for n in missing] for folder, missing in doubtful.items()}


def test_images_on_another_disk_do_not_count_as_evidence(paths, tmp_path, monkeypatch):
    """As in /media, whose mount points come and go with their disks."""
    shutil.rmtree(tmp_path / "a")
    assert find_missing(paths).deleted == paths[:2]
    monkeypatch.setattr(module, "disk", lambda folder: 2 if folder.is_relative_to(tmp_path / "b") else 1)
    found = find_missing(paths)
    assert (found.deleted, found.doubtful) == ([], {tmp_path: paths[:2]})


def test_the_root_folder_does_not_count_as_evidence(paths):
    gone = Path("/no such folder at all/1.jpg")
    assert find_missing([*paths, gone]).doubtful == {Path("/"): [gone]}


def test_a_broken_link_counts_as_missing(paths, tmp_path):
    (tmp_path / "a/link.jpg").symlink_to(tmp_path / "absent.jpg")
    assert find_missing([*paths, tmp_path / "a/link.jpg"]).deleted == [tmp_path / "a/link.jpg"]


def test_a_disk_that_does_not_respond_is_unknown(paths, monkeypatch):
    stat = Path.stat

    def failing(path: Path, **options: bool) -> object:
        if path == paths[2]:
            raise OSError(errno.EIO, "Input/output error")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", failing)
    assert find_missing(paths) == module.MissingFiles([], {}, {paths[2]: "Input/output error"})
