"""`index`: images added to a gallery."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.commands.watching import folders_of, follow, open_changes
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.cluster import Cluster
from cvnet_engine.engine.errors import CvnetError, ImageError
from cvnet_engine.engine.gallery.indexing import Found, IndexReport, Patterns, find, index, streams
from cvnet_engine.engine.gallery.info import GalleryInfo, kind_of, scales_of
from cvnet_engine.engine.gallery.map_codecs import kind_wanted
from cvnet_engine.engine.gallery.ray_indexing import index_on_cluster
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import IMAGE_SCALES, Scales, parse_scales
from cvnet_engine.engine.presets import PRESETS, PresetName, limit_px
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.options import IndexOptions, cluster_of

STANDARD_INPUT = Path("-")
LISTED = 20  # unreadable images shown; all of them are in the JSON


def run(options: IndexOptions) -> None:
    cluster = cluster_of(options)
    if options.watch and cluster:
        raise CvnetError("--watch adds images as they come, by this process: leave --runner out")
    max_side_px = limit_px(options.max_side, options.preset)
    maps = maps_for(options.maps, options.preset, options.gallery)
    scales = scales_for(options.scales, options.preset, options.gallery)
    sources, patterns = (
        with_listed(options.images),
        Patterns(tuple(options.include or ()), tuple(options.exclude or ())),
    )
    folders = folders_of(sources) if options.watch else []
    changes = open_changes(folders) if options.watch else None
    bundle = Bundle(options.bundle)
    found = find_now(sources, patterns, options.watch)
    paths = found.images
    started = time.perf_counter()
    report = IndexReport(skipped=found.skipped)
    stopped: BaseException | None = None
    made = GalleryInfo.made_with(bundle.manifest, max_side_px, maps, scales)
    try:
        with GalleryWriter(options.gallery, made) as writer:
            if cluster:
                fill_on_cluster(paths, bundle, writer, report, cluster)
            else:
                at_once = streams(bundle, options.threads, max_side_px)
                with Engines.open(bundle, options.threads, scales, at_once) as engines:
                    fill(paths, engines, writer, report)
                    if changes:
                        console.say(f"{options.gallery}: {len(writer)} images; watching for more, Ctrl-C to stop")
                        follow(changes, folders, patterns, engines, writer, report)
    except (KeyboardInterrupt, CvnetError) as error:
        stopped = error
    seconds = time.perf_counter() - started
    if report.usable or report.failed:
        summarise(report, options.gallery, max(len(paths), report.usable + len(report.failed)), seconds)
    if options.json:
        console.write_json(options.json, to_json(report, options.gallery, seconds))
    if isinstance(stopped, KeyboardInterrupt):
        raise KeyboardInterrupt("what was added is stored: run the same command again to go on") from stopped
    if stopped:
        raise stopped
    if not report.usable:
        raise ImageError(f"none of {len(paths)} images could be read; expected at least one")
    console.warn_of_model(bundle.manifest)


def maps_for(maps: str | None, preset: PresetName | None, gallery: Path) -> str:
    """Return the format of --maps, else the preset's, else the gallery's."""
    if maps is None and preset is None:
        return kind_of(gallery)
    return kind_wanted(maps or PRESETS[preset or "exact"].maps)


def scales_for(scales: str | None, preset: PresetName | None, gallery: Path | None) -> Scales:
    """Return the scales of --scales, else the preset's, else the gallery's, else all."""
    if scales:
        return parse_scales(scales)
    if preset:
        return PRESETS[preset].scales
    return scales_of(gallery) if gallery else IMAGE_SCALES


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


def fill(paths: Sequence[Path], engines: Engines, writer: GalleryWriter, report: IndexReport) -> None:
    """Index images in this process with a progress bar; updates `report`."""
    with filling(len(paths), writer) as done:
        index(paths, engines, writer, writer.info.max_side_px, report, done)


def fill_on_cluster(
    paths: Sequence[Path], bundle: Bundle, writer: GalleryWriter, report: IndexReport, cluster: Cluster
) -> None:
    """Index images on a Ray cluster with a progress bar; updates `report`."""
    with filling(len(paths), writer) as done:
        index_on_cluster(paths, bundle, writer, report, cluster, done)


@contextlib.contextmanager
def filling(images: int, writer: GalleryWriter) -> Iterator[Callable[[Path], None]]:
    """Show progress. Yields the callback to call after each image; reports repaired and still-damaged images."""
    if writer.repairs:
        console.warn(f"{writer.path}: {', '.join(writer.repairs)}; of the images given, these are taken in anew")
    with console.progress("indexing", images) as advance:
        yield lambda _: advance()
    if writer.damaged:
        console.warn(
            f"{writer.path}: {len(writer.damaged)} images stay damaged, as {writer.damaged[0]}; give them, too"
        )


def summarise(report: IndexReport, gallery: Path, total: int, seconds: float) -> None:
    fresh = report.added + report.updated
    rate = f", {fresh / seconds:.1f} images/s" if fresh else ""
    console.say(
        f"{gallery}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged, "
        f"{len(report.failed)} unreadable of {total} images, {seconds:.1f} s{rate}"
    )
    if report.score_drift is not None:
        console.say(f"maps kept so change a pair score by {report.score_drift:.1e} at most, on the last images")
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
