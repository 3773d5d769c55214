"""Pillow image file for raw files of cameras, read through LibRaw."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageFile

from cvnet_engine.engine.exif import Block
from cvnet_engine.engine.photo_formats import RAW, TIFF_MAGIC, load_library

HEAD_BYTES = 65536  # enough for the first directory of a raw file

# Tags that distinguish a TIFF-based raw file from a TIFF.
SUBFILE_TYPE, COMPRESSION, SUBDIRECTORIES, DNG_VERSION = 0x00FE, 0x0103, 0x014A, 0xC612
REDUCED = 1  # a SUBFILE_TYPE: the full picture is in a subdirectory
MAKERS_COMPRESSIONS = (32767, 32770, 34713, 65535)  # of Sony, Samsung, Nikon, Pentax

MIN_PREVIEW_SIDE_PX = 1024  # of a preview's longer side: the default size to which `index` shrinks photos
FLIPS = {3: 3, 5: 8, 6: 6}  # LibRaw's orientation -> EXIF's


def is_raw(head: bytes) -> bool:
    """Tell if a file that `may_be_raw` is raw, from its first `HEAD_BYTES`."""
    if not head.startswith(TIFF_MAGIC):
        return True
    block = Block(head)
    return (
        head[8:10] == b"CR"  # of Canon
        or DNG_VERSION in block
        or block.number(COMPRESSION) in MAKERS_COMPRESSIONS
        or (SUBDIRECTORIES in block and block.number(SUBFILE_TYPE) == REDUCED)
    )


class RawFile(ImageFile.ImageFile):
    """A raw file of a camera: its JPEG preview if that is large enough, else the developed sensor values.

    The preview is the camera's own rendering and loads in a tenth of the time. If its longer side is below
    `MIN_PREVIEW_SIDE_PX`, the file is developed with the camera's white balance.
    """

    format = RAW
    format_description = "raw file of a camera"

    def _open(self) -> None:
        """Read the headers and choose the preview or the sensor values.

        Raises:
            SyntaxError: the file is a TIFF.
            ImageError: LibRaw is not installed.
            OSError: the file is damaged, or LibRaw does not know the camera.
            DecompressionBombError: the sensor has more pixels than Pillow's limit.
        """
        assert self.fp
        head = self.fp.read(HEAD_BYTES)
        if not is_raw(head):
            raise SyntaxError("not a raw file")
        data = head + self.fp.read()
        library = load_library(RAW)
        try:
            raw = library.imread(io.BytesIO(data))
            preview = open_preview(library, raw, data)
        except library.LibRawError as error:
            raise raw_failure(error) from error
        if preview is None and raw.sizes.raw_width * raw.sizes.raw_height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError("more on the sensor than in the picture")
        self._mode, self._size = "RGB", preview.size if preview else (raw.sizes.width, raw.sizes.height)
        self._pixels: Callable[[], Image.Image] = (lambda: preview) if preview else lambda: develop(library, raw)
        self.info["exif"] = data if head.startswith((b"II", b"MM")) else exif_of(raw, preview)

    def load(self) -> Any:
        if self._im is None:
            image = self._pixels().convert("RGB")
            self._size, self.im = image.size, image.im
        return super().load()


def open_preview(library: Any, raw: Any, data: bytes) -> Image.Image | None:
    """The JPEG preview in a raw file; None if it is missing or too small.

    Raises:
        OSError: the preview is cut short.
    """
    try:
        preview = raw.extract_thumb()
    except (library.LibRawNoThumbnailError, library.LibRawUnsupportedThumbnailError):
        return None
    if preview.format != library.ThumbFormat.JPEG:
        return None
    image = Image.open(io.BytesIO(preview.data), formats=("JPEG",))
    if max(image.size) < MIN_PREVIEW_SIDE_PX:
        return None
    # LibRaw may prepend EXIF, and fills a missing end with uninitialised memory
    if preview.data[len(preview.data) // 2 :] not in data:
        raise OSError("the preview is cut short")
    return image


def develop(library: Any, raw: Any) -> Image.Image:
    """Develop the sensor values, without rotation."""
    try:
        return Image.fromarray(raw.postprocess(use_camera_wb=True, user_flip=0, output_bps=8))
    except library.LibRawError as error:
        raise raw_failure(error) from error


def raw_failure(error: Exception) -> OSError:
    reason = error.args[0] if error.args else ""
    return OSError(f"LibRaw: {reason.decode() if isinstance(reason, bytes) else reason}")


def exif_of(raw: Any, preview: Image.Image | None) -> bytes:
    """An EXIF block for a raw file that is not TIFF-based: the preview's, else one with LibRaw's metadata."""
    if preview and "exif" in preview.info:
        return bytes(preview.info["exif"])
    exif = Image.Exif()
    exif[0x0112] = FLIPS.get(raw.sizes.flip, 1)
    exif[0x0132] = f"{raw.other.timestamp:%Y:%m:%d %H:%M:%S}"
    return exif.tobytes()
