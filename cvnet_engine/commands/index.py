"""`index`: images added to a gallery."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.commands.watching import folders_of, follow, open_changes
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import CvnetError, ImageError, counted
from cvnet_engine.engine.gallery.indexing import Found, IndexReport, Patterns, find
from cvnet_engine.engine.gallery.ray_indexing import Indexer, opened_indexer
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import parse_scales
from cvnet_engine.engine.presets import gallery_settings
from cvnet_engine.options import IndexOptions, cluster_of

STANDARD_INPUT = Path("-")
LISTED = 20  # unreadable images shown; all of them are in the JSON


def run(options: IndexOptions) -> None:
    cluster = cluster_of(options)
    if options.watch and cluster:
        raise CvnetError("--watch works in this process only; remove --runner")
    sources, patterns = (
        with_listed(options.images),
        Patterns(tuple(options.include or ()), tuple(options.exclude or ())),
    )
    folders = folders_of(sources) if options.watch else []
    changes = open_changes(folders) if options.watch else None
    bundle, gallery = Bundle(options.bundle), options.gallery
    scales = parse_scales(options.scales) if options.scales else None
    settings = gallery_settings(bundle.manifest, gallery, options.preset, options.max_side, options.maps, scales)
    found = find_now(sources, patterns, options.watch)
    paths = found.images
    started = time.perf_counter()
    report = IndexReport(skipped=found.skipped)
    stopped: BaseException | None = None
    try:
        with (
            GalleryWriter(gallery, settings) as writer,
            opened_indexer(bundle, settings, options.threads, cluster) as indexer,
        ):
            fill(indexer, paths, writer, report)
            if changes:
                console.say(f"{gallery}: {counted(len(writer), 'image')}; watching for more, Ctrl-C to stop")
                follow(changes, folders, patterns, indexer, writer, report)
    except (KeyboardInterrupt, CvnetError) as error:
        stopped = error
    seconds = time.perf_counter() - started
    if report.usable or report.failed:
        summarise(report, gallery, max(len(paths), report.usable + len(report.failed)), seconds)
    if options.json:
        console.write_json(options.json, to_json(report, gallery, seconds))
    if isinstance(stopped, KeyboardInterrupt):
        raise KeyboardInterrupt("what was added is stored: run the same command again to resume") from stopped
    if stopped:
        raise stopped
    if not report.usable:
        raise ImageError(f"none of {counted(len(paths), 'image')} could be read; expected at least one")
    console.warn_of_model(bundle.manifest)


def find_now(sources: Sequence[Path], patterns: Patterns, watch: bool) -> Found:
    """Return the images that `find` finds; with `watch`, finding none is not an error."""
    try:
        return find(sources, patterns)
    except ImageError:
        if not watch:
            raise
        return Found([], {})


def with_listed(sources: Sequence[Path]) -> list[Path]:
    """Replace '-' by the paths that standard input lists.

    Raises:
        ImageError: standard input lists no paths.
    """
    listed = paths_of(sys.stdin.buffer.read()) if STANDARD_INPUT in sources else []
    if STANDARD_INPUT in sources and not listed:
        raise ImageError("standard input: no paths; expected one a line")
    return [path for source in sources for path in (listed if source == STANDARD_INPUT else [source])]


def paths_of(data: bytes) -> list[Path]:
    """Parse a list of paths, separated by NUL bytes if it contains any, else by newlines."""
    separator = b"\0" if b"\0" in data else b"\n"
    return [Path(os.fsdecode(name)) for name in data.split(separator) if name]


def fill(indexer: Indexer, paths: Sequence[Path], writer: GalleryWriter, report: IndexReport) -> None:
    """Index images with a progress bar; print which images were lost before, and which stay damaged."""
    console.warn_of_repairs(writer, "; those of its images that are given here are indexed again")
    with console.progress("indexing", len(paths)) as advance:
        indexer(paths, writer, report, lambda _: advance())
    if writer.damaged:
        console.warn(
            f"{writer.path}: still damaged: {counted(len(writer.damaged), 'image')}, such as {writer.damaged[0]}; "
            "index them too, to repair them"
        )


def summarise(report: IndexReport, gallery: Path, total: int, seconds: float) -> None:
    fresh = report.added + report.updated
    rate = f", {fresh / seconds:.1f} images/s" if fresh else ""
    console.say(
        f"{gallery}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged, "
        f"{len(report.failed)} unreadable of {counted(total, 'image')}, {seconds:.1f} s{rate}"
    )
    if report.score_drift is not None:
        console.say(f"compressed maps change pair scores by at most {report.score_drift:.1e}, on the last images")
    if report.fidelity:
        console.say(f"maps: {report.fidelity}")
    for reason, count in Counter(report.skipped.values()).most_common():
        console.say(f"  {count} passed over: {reason}")
    for path, reason in list(report.failed.items())[:LISTED]:
        console.warn(f"  {path}: {reason}")
    if len(report.failed) > LISTED:
        console.warn(f"  and {len(report.failed) - LISTED} more, all of them in --json")


def to_json(report: IndexReport, gallery: Path, seconds: float) -> dict[str, object]:
    return {
        "gallery": str(gallery),
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "failed": {str(path): reason for path, reason in report.failed.items()},
        "skipped": {str(path): reason for path, reason in report.skipped.items()},
        "score_drift": report.score_drift,
        "fidelity": asdict(report.fidelity) if report.fidelity else None,
        "seconds": seconds,
    }
