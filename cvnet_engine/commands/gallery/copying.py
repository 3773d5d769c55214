"""`gallery merge`, `convert` and `export`: images copied into another gallery, or into a file for other programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.errors import CvnetError, GalleryError, counted
from cvnet_engine.engine.files import writing_atomically
from cvnet_engine.engine.gallery.copying import CopyReport, convert, merge, require_equal_settings
from cvnet_engine.engine.gallery.export import write_npz, write_parquet
from cvnet_engine.engine.gallery.info import INFO, GalleryInfo, read_info
from cvnet_engine.engine.gallery.inspection import read_statistics
from cvnet_engine.engine.gallery.map_codecs import CompressedCodec, kind_wanted
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.options import ConvertOptions, ExportOptions, MergeOptions
from cvnet_engine.outputs import within

FORMATS = {".npz": write_npz, ".parquet": write_parquet}


def merge_galleries(options: MergeOptions) -> None:
    require_other_folder(options.sources, options.gallery)
    infos = read_infos(options)
    report = CopyReport()
    images = sum(read_statistics(source, infos[source]).images for source in options.sources)
    with resumable(), GalleryWriter(options.gallery, replace(infos[options.gallery], code="")) as writer:
        console.warn_of_repairs(writer)
        if writer.needs_fit:
            first = infos[options.sources[0]]
            writer.use_codec(CompressedCodec.load(options.sources[0], first.code), first.fidelity)
        with console.progress("merging", images) as advance:
            for source in options.sources:
                merge(source, infos[source], writer, report, advance)
        total = len(writer)
    console.say(f"{options.gallery}: {counts(report)}, {counted(total, 'image')} now")
    require_whole(report, "or index them into the merged one")


def read_infos(options: MergeOptions) -> dict[Path, GalleryInfo]:
    """Return the settings of each gallery; a new target gets those of the first source.

    Raises:
        GalleryError: the settings differ.
    """
    infos = {source: read_info(source) for source in options.sources}
    exists = (options.gallery / INFO).exists()
    infos[options.gallery] = read_info(options.gallery) if exists else infos[options.sources[0]]
    require_equal_settings(infos)
    return infos


def convert_gallery(options: ConvertOptions) -> None:
    require_other_folder([options.source], options.gallery)
    info = read_info(options.source)
    wanted = replace(info, maps=kind_wanted(options.maps), code="", fidelity=None, shards=0)
    before, report = read_statistics(options.source, info), CopyReport()
    with (
        resumable(),
        GalleryWriter(options.gallery, wanted) as writer,
        console.progress("converting", before.images) as advance,
    ):
        convert(options.source, info, writer, report, advance)
        made = writer.info
    after = read_statistics(options.gallery, made)
    console.say(
        f"{options.gallery}: {counts(report)}; {decimal(after.stored_bytes)}, "
        f"{options.source} has {decimal(before.stored_bytes)}"
    )
    if made.fidelity:
        console.say(f"maps: {made.fidelity}")
    require_whole(report, "and convert it again")


def require_other_folder(sources: Sequence[Path], gallery: Path) -> None:
    """Raise GalleryError if the target is, contains or lies in a source."""
    for source in sources:
        if within(source, gallery) or within(gallery, source):
            raise GalleryError(f"{source}: cannot be copied into itself; give --gallery another folder")


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C, raise KeyboardInterrupt with the advice how to resume."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("what was copied is stored: run the same command again to resume") from error


def counts(report: CopyReport) -> str:
    return f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged"


def require_whole(report: CopyReport, remedy: str) -> None:
    """Raise GalleryError if damaged images were left out; `remedy` follows the advice to repair their gallery."""
    if report.damaged:
        for path, reason in report.damaged.items():
            console.warn(f"  {path}: {reason}")
        raise GalleryError(
            f"left out: {counted(len(report.damaged), 'damaged image')}; repair their gallery with "
            f"'cvnet-engine index', {remedy}"
        )


def export_gallery(options: ExportOptions) -> None:
    write = FORMATS.get(options.out.suffix.lower())
    if not write:
        raise CvnetError(f"--out {options.out}: expected a file that ends in {' or '.join(FORMATS)}")
    with Gallery(options.gallery) as gallery:
        with console.progress("exporting", len(gallery)) as advance, writing_atomically(options.out) as stream:
            write(gallery, stream, options.maps, advance)
        images = len(gallery)
    console.say(f"{options.out}: {counted(images, 'image')}, {decimal(options.out.stat().st_size)}")
