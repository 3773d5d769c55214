"""`index`: images into a gallery."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from cvnet_engine import console
from engine.bundle import Bundle, Manifest
from engine.errors import CvnetError, GalleryError, ImageError
from engine.gallery.indexing import IndexReport, find_images, index
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


def run(options: Options) -> None:
    if options.maps not in (None, *MAP_TYPES):
        raise GalleryError(f"--maps {options.maps!r} is unknown; expected {' or '.join(MAP_TYPES)}")
    bundle = Bundle(options.bundle)
    paths = find_images(options.images)
    started = time.perf_counter()
    report = IndexReport()
    stopped: BaseException | None = None
    try:
        fill(paths, bundle, options.gallery, options.max_side_px, options.threads, report, options.maps)
    except (KeyboardInterrupt, CvnetError) as error:
        stopped = error
    seconds = time.perf_counter() - started
    if report.usable or report.failed:
        summarise(report, options.gallery, len(paths), seconds)
    if options.json:
        console.write_json(options.json, to_json(report, options.gallery, seconds))
    if isinstance(stopped, KeyboardInterrupt):
        console.say("interrupted; what was added is stored: run the same command again to go on")
        raise typer.Exit(130)
    if stopped:
        raise stopped
    if not report.usable:
        raise ImageError(f"none of {len(paths)} images could be read; expected at least one")
    console.warn_of_model(bundle.manifest)


def fill(
    paths: Sequence[Path],
    bundle: Bundle,
    gallery: Path,
    max_side_px: int | None,
    threads: int | None,
    report: IndexReport,
    maps: str | None = None,
) -> None:
    """Index with a progress bar, `report` kept current; without `maps` a gallery keeps its own kind."""
    made = info(bundle.manifest, max_side_px, maps or map_type_of(gallery))
    with (
        GalleryWriter(gallery, made) as writer,
        Retriever.open(bundle, threads) as retriever,
        console.progress("indexing", len(paths)) as advance,
    ):
        if writer.repairs:
            console.warn(f"{gallery}: {', '.join(writer.repairs)}; of the images given, these are taken in anew")
        index(paths, retriever, writer, max_side_px, report, lambda _: advance())
        if writer.damaged:
            console.warn(
                f"{gallery}: {len(writer.damaged)} images stay damaged, as {writer.damaged[0]}; give them, too"
            )


def info(manifest: Manifest, max_side_px: int | None, maps: str) -> GalleryInfo:
    """What a gallery made with this bundle says of itself."""
    return GalleryInfo(FORMAT, manifest.features_id, manifest.weights, max_side_px, maps)


def summarise(report: IndexReport, gallery: Path, total: int, seconds: float) -> None:
    fresh = report.added + report.updated
    rate = f", {fresh / seconds:.1f} images/s" if fresh else ""
    console.say(
        f"{gallery}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged, "
        f"{len(report.failed)} unreadable of {total} images, {seconds:.1f} s{rate}"
    )
    if report.score_drift is not None:
        console.say(f"maps in 8 bits change a pair score by {report.score_drift:.1e} at most, on the first images")
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
        "failed": {console.printable(str(path)): reason for path, reason in report.failed.items()},
        "score_drift": report.score_drift,
        "seconds": seconds,
    }
