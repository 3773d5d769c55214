"""`index`: images into a gallery."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.outputs import Files
from engine.bundle import Bundle, Manifest
from engine.errors import CvnetError, GalleryError, ImageError
from engine.gallery.indexing import IndexReport, find, index
from engine.gallery.info import FORMAT, GalleryInfo, map_type_of
from engine.gallery.map_codec import MAP_TYPES
from engine.gallery.writer import GalleryWriter
from engine.retrieval.retriever import Retriever

LISTED = 20  # unreadable images shown; all of them are in the JSON


@dataclass(frozen=True)
class Options:
    """What to index, and into which gallery.

    Attributes:
        images: files, and folders to search for them.
        max_side_px: longest side of an image before extraction, None for no limit.
        maps: one of `MAP_TYPES`; None for what the gallery has.
    """

    images: list[Path]
    bundle: Path
    gallery: Path
    max_side_px: int | None = 1024
    maps: str | None = None
    threads: int | None = None
    json: Path | None = None

    @property
    def files(self) -> Files:
        return Files({"--json": self.json}, self.images, [self.bundle, self.gallery])


def run(options: Options) -> None:
    options.files.require_apart()
    if options.maps not in (None, *MAP_TYPES):
        raise GalleryError(f"--maps {options.maps!r} is unknown; expected {' or '.join(MAP_TYPES)}")
    bundle = Bundle(options.bundle)
    found = find(options.images)
    paths = found.images
    started = time.perf_counter()
    report = IndexReport(skipped=found.skipped)
    stopped: BaseException | None = None
    made = info(bundle.manifest, options.max_side_px, options.maps or map_type_of(options.gallery))
    try:
        with (
            GalleryWriter(options.gallery, made) as writer,
            Retriever.open(bundle, options.threads) as retriever,
        ):
            fill(paths, retriever, writer, report)
    except (KeyboardInterrupt, CvnetError) as error:
        stopped = error
    seconds = time.perf_counter() - started
    if report.usable or report.failed:
        summarise(report, options.gallery, len(paths), seconds)
    if options.json:
        console.write_json(options.json, to_json(report, options.gallery, seconds))
    if isinstance(stopped, KeyboardInterrupt):
        raise KeyboardInterrupt("what was added is stored: run the same command again to go on") from stopped
    if stopped:
        raise stopped
    if not report.usable:
        raise ImageError(f"none of {len(paths)} images could be read; expected at least one")
    console.warn_of_model(bundle.manifest)


def fill(paths: Sequence[Path], retriever: Retriever, writer: GalleryWriter, report: IndexReport) -> None:
    """Index with a progress bar, `report` kept current; what is mended, and what stays damaged, is said."""
    if writer.repairs:
        console.warn(f"{writer.path}: {', '.join(writer.repairs)}; of the images given, these are taken in anew")
    with console.progress("indexing", len(paths)) as advance:
        index(paths, retriever, writer, writer.info.max_side_px, report, lambda _: advance())
    if writer.damaged:
        console.warn(
            f"{writer.path}: {len(writer.damaged)} images stay damaged, as {writer.damaged[0]}; give them, too"
        )


def info(manifest: Manifest, max_side_px: int | None, maps: str) -> GalleryInfo:
    """What a gallery made with this bundle says of itself."""
    return GalleryInfo(
        FORMAT, manifest.features_id, manifest.weights, max_side_px, maps, descriptor=manifest.descriptor
    )


def summarise(report: IndexReport, gallery: Path, total: int, seconds: float) -> None:
    fresh = report.added + report.updated
    rate = f", {fresh / seconds:.1f} images/s" if fresh else ""
    console.say(
        f"{gallery}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged, "
        f"{len(report.failed)} unreadable of {total} images, {seconds:.1f} s{rate}"
    )
    if report.score_drift is not None:
        console.say(f"maps in 8 bits change a pair score by {report.score_drift:.1e} at most, on the first images")
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
        "seconds": seconds,
    }
