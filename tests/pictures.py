"""Small images for tests, in any format, and damaged files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cvnet_engine.engine.contract import Array


def picture(height: int = 61, width: int = 83, seed: int = 0) -> Array:
    """Smooth coloured blobs, (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    blurred = cv2.GaussianBlur(noise, (0, 0), 4)
    return cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file of Pillow's format `kind`."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(path: Path, height: int = 64, width: int = 80, seed: int = 0, exif: bytes = b"") -> Path:
    """Write a JPEG; the suffix of the path does not matter."""
    path.write_bytes(encode(Image.fromarray(picture(height, width, seed)), "JPEG", quality=90, exif=exif))
    return path


def oriented(value: int) -> bytes:
    """EXIF with an orientation and a few other tags."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = value, "maker", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif.tobytes()


def dated(taken: str, place: tuple[float, float] | None = None, orientation: int = 1) -> bytes:
    """EXIF with time and place of a photo: `taken` such as 2019:06:15 12:00:00, `place` in degrees."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x9003] = taken
    if place:
        latitude, longitude = place
        exif.get_ifd(0x8825).update(
            {
                1: "N" if latitude >= 0 else "S",
                2: (abs(latitude), 0.0, 0.0),
                3: "E" if longitude >= 0 else "W",
                4: (abs(longitude), 0.0, 0.0),
            }
        )
    return exif.tobytes()


def damaged(data: bytes, rng: random.Random, start: int = 0) -> bytes:
    """The bytes with up to 20 changed from `start` on, possibly cut short."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 20))):
        broken[rng.randrange(start, len(broken))] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(broken[: rng.randrange(start, len(broken))] if rng.random() < 0.2 else broken)


def png(width: int, height: int, whole: bool = True) -> bytes:
    """A black 1-bit PNG of any size, quick to make; without pixels unless `whole`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height if whole else 0))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows + packer.flush()) + chunk(b"IEND", b"")
