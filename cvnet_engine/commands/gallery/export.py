"""`gallery export`: descriptors and feature maps in a file for other programs."""

from __future__ import annotations

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.files import writing_atomically
from cvnet_engine.engine.gallery.export import write_npz, write_parquet
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.options import ExportOptions

FORMATS = {".npz": write_npz, ".parquet": write_parquet}


def run(options: ExportOptions) -> None:
    write = FORMATS.get(options.out.suffix.lower())
    if not write:
        raise CvnetError(f"--out {options.out}: expected a file that ends in {' or '.join(FORMATS)}")
    with Gallery(options.gallery) as gallery:
        with console.progress("exporting", len(gallery)) as advance, writing_atomically(options.out) as stream:
            write(gallery, stream, options.maps, advance)
        images = len(gallery)
    console.say(f"{options.out}: {images:,} images, {decimal(options.out.stat().st_size)}")
