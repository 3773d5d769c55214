"""Photo formats of the extra `photos`: HEIC through libheif, raw files through LibRaw.

`engine.images` registers both with Pillow. The decoding library is imported for the first such photo.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import IO, TYPE_CHECKING, Any

from cvnet_engine.engine.errors import ImageError, install_hint

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEIC, RAW = "HEIC", "CAMERA-RAW"  # names of the formats in Pillow
LIBRARIES = {HEIC: ("HEIC photos", "pillow_heif"), RAW: ("raw files of cameras", "rawpy")}
SUFFIXES = {
    ".arw": RAW,
    ".cr2": RAW,
    ".cr3": RAW,
    ".dng": RAW,
    ".heic": HEIC,
    ".heif": HEIC,
    ".hif": HEIC,
    ".nef": RAW,
    ".nrw": RAW,
    ".orf": RAW,
    ".pef": RAW,
    ".raf": RAW,
    ".rw2": RAW,
    ".srw": RAW,
}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TIFF_MAGIC = (b"II*\0", b"MM\0*")
RAW_MAGIC = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")  # of Olympus, Panasonic, Fujifilm


def missing(format_name: str) -> str | None:
    """The error for a format whose decoding library is not installed; None if nothing is missing."""
    what, library = LIBRARIES.get(format_name, ("", None))
    if library is None or importlib.util.find_spec(library):
        return None
    return f"{what} need {library}: {install_hint('photos')}"


def load_library(format_name: str) -> Any:
    """Import the library that decodes a format.

    Raises:
        ImageError: it is not installed.
    """
    try:
        return importlib.import_module(LIBRARIES[format_name][1])
    except ImportError as error:
        raise ImageError(missing(format_name) or str(error)) from error


def is_heic(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp" and prefix[8:12] in HEIC_BRANDS


def open_heic(stream: IO[bytes], name: str | bytes) -> ImageFile:
    """Open a HEIC photo upright: libheif rotates it and removes the orientation from its EXIF block.

    Raises:
        ImageError: libheif is not installed.
        OSError: the photo is damaged.
    """
    library = load_library(HEIC)
    try:
        image: ImageFile = library.HeifImageFile(stream, name)
    except SyntaxError as error:  # to Pillow, "another format"
        raise OSError(str(error)) from error
    return image


def may_be_raw(prefix: bytes) -> bool:
    return prefix.startswith((*RAW_MAGIC, *TIFF_MAGIC)) or prefix[4:12] == b"ftypcrx "
