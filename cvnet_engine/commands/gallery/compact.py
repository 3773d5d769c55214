"""`gallery compact`: the space of removed images back to the disk."""

from __future__ import annotations

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.commands.gallery.options import GalleryOptions
from cvnet_engine.engine.gallery.census import count
from cvnet_engine.engine.gallery.writer import GalleryWriter

Options = GalleryOptions


def run(options: Options) -> None:
    options.files.require_apart()
    with GalleryWriter.reopen(options.gallery) as writer:
        if writer.repairs:
            console.warn(f"{options.gallery}: {', '.join(writer.repairs)}")
        before = count(options.gallery, writer.info)
        with console.progress("compacting", before.shards) as advance:
            writer.compact(advance)
        info = writer.info
    after = count(options.gallery, info)
    given = before.stored_bytes - after.stored_bytes
    console.say(
        f"{options.gallery}: {decimal(before.stored_bytes)} before, {decimal(after.stored_bytes)} now, "
        f"{after.images:,} images"
    )
    if given < before.free_bytes:
        console.warn("other programs have the gallery open; what is missing is given back when the last one closes it")
    if options.json:
        content = {"gallery": str(options.gallery), "bytes_before": before.stored_bytes, "bytes": after.stored_bytes}
        console.write_json(options.json, content | {"images": after.images})
