"""Watching folders: new and changed images are added to the gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.engine.errors import CvnetError, ImageError, install_hint
from cvnet_engine.engine.files import absolute
from cvnet_engine.engine.gallery.indexing import IndexReport, Patterns, find, index, is_folder
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.engines import Engines

QUIET_MS = 1000  # without a change, before changes are looked at: a file that is being copied changes all the time
MOST_MS = 30_000  # that changes are gathered for, where there is no such quiet
WAIT_MS = 100  # for a change, before the next is waited for

Changes = Iterator[set[Path]]  # files and folders that have changed, each time that some have, without end


def open_changes(folders: Sequence[Path]) -> Changes:
    """Watch folders from now on, before the first change is asked for.

    Raises:
        CvnetError: there are none, they cannot be watched, or the library for it is not installed.
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
    first = next(seen)  # the watch is there once it has given something

    def changes() -> Changes:
        yield {Path(path) for _, path in first}
        for some in seen:
            yield {Path(path) for _, path in some}

    return filter(None, changes())


def folders_of(sources: Sequence[Path]) -> list[Path]:
    """
    Raises:
        ImageError: a source is not there, or is neither file nor folder.
    """
    return [source for source in sources if is_folder(source)]


def follow(
    changes: Changes,
    folders: Sequence[Path],
    patterns: Patterns,
    retriever: Engines,
    writer: GalleryWriter,
    report: IndexReport,
) -> None:
    """Index what changes, until interrupted; `report` is kept current, and what is done is said.

    Raises:
        GalleryError: the gallery cannot be written.
    """
    for changed in changes:
        images = changed_images(changed, folders, patterns)
        for path in images:
            report.failed.pop(path, None)
        before = replace(report)
        index(images, retriever, writer, writer.info.max_side_px, report)
        if (report.added, report.updated) != (before.added, before.updated):
            console.say(
                f"{writer.path}: {report.added - before.added} added, {report.updated - before.updated} updated"
            )
        for path in images:
            if path in report.failed:
                console.warn(f"  {path}: {report.failed[path]}")


def changed_images(changed: set[Path], folders: Sequence[Path], patterns: Patterns) -> list[Path]:
    """Images that `index` would take, of those that have changed or are below a folder that has."""
    try:
        images = find(folders, patterns).images
    except ImageError:  # none is left, or a folder has gone
        return []
    return [path for path in images if not changed.isdisjoint((path, *path.parents))]
