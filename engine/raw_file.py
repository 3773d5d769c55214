"""A camera's raw file, opened by LibRaw as an image of Pillow's."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageFile

from cvnet_engine.engine.exif import Block
from cvnet_engine.engine.photo_formats import RAW, TIFF_MAGIC, load_library

HEAD_BYTES = 65536  # of a raw file: its first directory is within

# Tags that tell a raw file made like a TIFF from a TIFF.
SUBFILE_TYPE, COMPRESSION, SUBDIRECTORIES, DNG_VERSION = 0x00FE, 0x0103, 0x014A, 0xC612
REDUCED = 1  # a SUBFILE_TYPE: the picture in full is in a subdirectory
MAKERS_COMPRESSIONS = (32767, 32770, 34713, 65535)  # of Sony, Samsung, Nikon, Pentax

MIN_PREVIEW_SIDE_PX = 1024  # of a preview's longer side: what `index` shrinks photos to unless told otherwise
FLIPS = {3: 3, 5: 8, 6: 6}  # LibRaw's word for how a picture lies -> EXIF's


def is_raw(head: bytes) -> bool:
    """Whether a file that `may_be_raw` is, by its first `HEAD_BYTES`."""
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
    """A raw file of a camera: its JPEG preview where that is large enough, else the sensor's values developed.

    The preview is the camera's own picture, as photos of it are known, and there in a tenth of the time; only where
    `MIN_PREVIEW_SIDE_PX` would show that it is small is the file developed, with the camera's white balance.
    """

    format = RAW
    format_description = "raw file of a camera"

    def _open(self) -> None:
        """
        Raises:
            SyntaxError: the file is a TIFF.
            ImageError: LibRaw is not installed.
            OSError: the file is damaged, or of a camera that LibRaw does not know.
            DecompressionBombError: the sensor has more pixels than an image may, whatever part of them is shown.
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
    """The JPEG that a raw file brings, where it is large enough.

    Raises:
        OSError: the file ends before it does.
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
    # LibRaw may put EXIF before it; what is missing at its end, it leaves to what the memory held
    if preview.data[len(preview.data) // 2 :] not in data:
        raise OSError("the preview is cut short")
    return image


def develop(library: Any, raw: Any) -> Image.Image:
    """The picture from the sensor's values, as it lies on the sensor."""
    try:
        return Image.fromarray(raw.postprocess(use_camera_wb=True, user_flip=0, output_bps=8))
    except library.LibRawError as error:
        raise raw_failure(error) from error


def raw_failure(error: Exception) -> OSError:
    reason = error.args[0] if error.args else ""
    return OSError(f"LibRaw: {reason.decode() if isinstance(reason, bytes) else reason}")


def exif_of(raw: Any, preview: Image.Image | None) -> bytes:
    """An EXIF block for a raw file that is no TIFF: the preview's, else what LibRaw knows."""
    if preview and "exif" in preview.info:
        return bytes(preview.info["exif"])
    exif = Image.Exif()
    exif[0x0112] = FLIPS.get(raw.sizes.flip, 1)
    exif[0x0132] = f"{raw.other.timestamp:%Y:%m:%d %H:%M:%S}"
    return exif.tobytes()
