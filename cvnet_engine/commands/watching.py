"""Watcher of folders that adds new and changed images to a gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.engine.errors import CvnetError, ImageError, install_hint
from cvnet_engine.engine.files import absolute
from cvnet_engine.engine.gallery.indexing import IndexReport, Patterns, find, is_folder
from cvnet_engine.engine.gallery.ray_indexing import Indexer
from cvnet_engine.engine.gallery.writer import GalleryWriter

QUIET_MS = 1000  # pause without changes before indexing, because a file that is being copied changes all the time
MOST_MS = 30_000  # longest time to collect changes if there is no such pause
WAIT_MS = 100  # timeout of one wait for changes

Changes = Iterator[set[Path]]  # endless batches of changed files and folders


def open_changes(folders: Sequence[Path]) -> Changes:
    """Start watching folders. Changes are recorded from this call on, not from the first `next`.

    Raises:
        CvnetError: there are no folders, or watchfiles is not installed.
    """
    if not folders:
        raise CvnetError("--watch: no folder to watch; expected at least one")
    try:
        from watchfiles import watch
    except ImportError as error:
        raise CvnetError(f"--watch needs watchfiles: {install_hint('photos')}") from error
    seen = watch(
        *map(absolute, folders),
        watch_filter=None,
        debounce=MOST_MS,
        step=QUIET_MS,
        rust_timeout=WAIT_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    first = next(seen)  # starts the watch

    def changes() -> Changes:
        yield {Path(path) for _, path in first}
        for some in seen:
            yield {Path(path) for _, path in some}

    return filter(None, changes())


def folders_of(sources: Sequence[Path]) -> list[Path]:
    """Return the sources that are folders.

    Raises:
        ImageError: a source does not exist, or is neither a file nor a folder.
    """
    return [source for source in sources if is_folder(source)]


def follow(
    changes: Changes,
    folders: Sequence[Path],
    patterns: Patterns,
    indexer: Indexer,
    writer: GalleryWriter,
    report: IndexReport,
) -> None:
    """Index changed images until interrupted, update `report`, and print what was added.

    Raises:
        GalleryError: the gallery cannot be written.
    """
    for changed in changes:
        images = changed_images(changed, folders, patterns)
        for path in images:
            report.failed.pop(path, None)
        before = replace(report)
        indexer(images, writer, report, lambda _: None)
        if (report.added, report.updated) != (before.added, before.updated):
            console.say(
                f"{writer.path}: {report.added - before.added} added, {report.updated - before.updated} updated"
            )
        for path in images:
            if path in report.failed:
                console.warn(f"  {path}: {report.failed[path]}")


def changed_images(changed: set[Path], folders: Sequence[Path], patterns: Patterns) -> list[Path]:
    """Return the images that match the patterns and have changed themselves or lie below a changed folder."""
    try:
        images = find(folders, patterns).images
    except ImageError:  # no images left, or a folder was deleted
        return []
    return [path for path in images if not changed.isdisjoint((path, *path.parents))]
