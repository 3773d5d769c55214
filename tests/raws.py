"""Small raw files: DNGs with sensor values, with or without a JPEG preview; and HEIC photos."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import numpy as np
from PIL import Image
from pillow_heif import from_pillow

from cvnet_engine.engine.contract import Array

SHORT, LONG, RATIONAL, SRATIONAL, BYTE, ASCII = "H", "I", "II", "ii", "B", "s"
TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "II": 5, "ii": 10}
Values = Mapping[int, tuple[str, tuple[int, ...] | bytes]]  # tag -> struct letters of its type, and the values

IDENTITY = tuple(n for i in range(9) for n in (int(i % 4 == 0), 1))  # (3, 3) in rationals


def dng(
    image: Array,
    preview: bytes | None = None,
    preview_size: tuple[int, int] = (0, 0),
    orientation: int = 1,
    taken: str = "2019:06:15 12:30:45",
) -> bytes:
    """A DNG of an image (H, W, 3) uint8 RGB, even sides, seen through a mosaic of red, green, green, blue.

    `preview` is a JPEG of `preview_size`, (width, height), stored in the same file.
    """
    height, width = image.shape[:2]
    mosaic = np.empty((height, width), np.uint16)
    linear = ((image / 255.0) ** 2.2 * 65535).astype(np.uint16)
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[y::2, x::2] = linear[y::2, x::2, channel]
    sensor: dict[int, tuple[str, tuple[int, ...] | bytes]] = {
        254: (LONG, (0,)),
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (16,)),
        259: (SHORT, (1,)),
        262: (SHORT, (32803,)),  # a colour filter array
        277: (SHORT, (1,)),
        278: (LONG, (height,)),
        33421: (SHORT, (2, 2)),
        33422: (BYTE, bytes((0, 1, 1, 2))),
        50714: (SHORT, (0,)),
        50717: (LONG, (65535,)),
    }
    camera: dict[int, tuple[str, tuple[int, ...] | bytes]] = {
        271: (ASCII, b"maker\0"),
        272: (ASCII, b"camera\0"),
        274: (SHORT, (orientation,)),
        306: (ASCII, taken.encode() + b"\0"),
        50706: (BYTE, bytes((1, 4, 0, 0))),
        50707: (BYTE, bytes((1, 1, 0, 0))),
        50708: (ASCII, b"maker camera\0"),
        50721: (SRATIONAL, IDENTITY),
        50728: (RATIONAL, (1, 1) * 3),
        50778: (SHORT, (21,)),
    }
    if preview is None:
        return tiff([sensor | camera], [mosaic.tobytes()])
    small: dict[int, tuple[str, tuple[int, ...] | bytes]] = {
        254: (LONG, (1,)),
        256: (LONG, (preview_size[0],)),
        257: (LONG, (preview_size[1],)),
        258: (SHORT, (8, 8, 8)),
        259: (SHORT, (7,)),
        262: (SHORT, (6,)),
        277: (SHORT, (3,)),
        278: (LONG, (preview_size[1],)),
    }
    return tiff([small | camera, sensor], [preview, mosaic.tobytes()])


def tiff(directories: list[Values], strips: list[bytes]) -> bytes:
    """A TIFF file with one strip per directory; the second directory is a subdirectory of the first."""
    strip_tags = {273: (LONG, (0,)), 279: (LONG, (0,))}
    full = [
        dict(values) | strip_tags | ({330: (LONG, (0,))} if n + 1 < len(directories) else {})
        for n, values in enumerate(directories)
    ]
    sizes = [2 + 12 * len(values) + 4 + sum(len(packed(*v)) + 8 for v in values.values()) for values in full]
    starts = [8 + sum(sizes[:n]) for n in range(len(full))]
    places = [8 + sum(sizes) + sum(map(len, strips[:n])) for n in range(len(strips))]
    data = b"II" + struct.pack("<HI", 42, 8)
    for number, values in enumerate(full):
        values[273], values[279] = (LONG, (places[number],)), (LONG, (len(strips[number]),))
        if 330 in values:
            values[330] = (LONG, (starts[number + 1],))
        entries, behind = b"", b""
        for tag, (form, value) in sorted(values.items()):
            packing = packed(form, value)
            count = len(value) // len(form.replace("s", "x"))
            if len(packing) > 4:
                position = starts[number] + 2 + 12 * len(values) + 4 + len(behind)
                behind += packing + bytes(len(packing) % 2)
                packing = struct.pack("<I", position)
            entries += struct.pack("<HHI", tag, TYPES[form], count) + packing.ljust(4, b"\0")
        directory = struct.pack("<H", len(values)) + entries + bytes(4) + behind
        data += directory.ljust(sizes[number], b"\0")
    return data + b"".join(strips)


def packed(form: str, value: tuple[int, ...] | bytes) -> bytes:
    return value if isinstance(value, bytes) else struct.pack(f"<{len(value)}{form[0]}", *value)


def heic(image: Image.Image, **options: object) -> bytes:
    """A HEIC photo."""
    stream = io.BytesIO()
    from_pillow(image).save(stream, quality=90, **options)
    return stream.getvalue()
