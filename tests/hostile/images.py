"""Hostile images: damaged, cut, misnamed, of other formats, with huge headers; and irregular files."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.images import FORMATS, MAX_BYTES, SUFFIXES, decode, load, read_size
from cvnet_engine.engine.photo_formats import LIBRARIES
from tests.hostile.trial import Anything, Case, Refusal, digest
from tests.pictures import encode, oriented, picture, png

SELF_CHECKING = ("PNG",)  # its checksums notice a changed pixel; in other formats a changed byte is another picture
FOREIGN = {"EPS": ".jpg", "ICO": ".png", "PCX": ".bmp", "TGA": ".tif", "SGI": ".gif", "JPEG2000": ".jpg", "DDS": ".png"}
HEADERS = {  # of formats that Pillow would open, or hand to another program
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(40),
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 60, 80, 8, 3) + bytes(64),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\n%%EndComments\n",
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(64),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='80' height='60'/>",
    "gzip": b"\x1f\x8b" + bytes(64),
    "ELF": b"\x7fELF" + bytes(64),
}


def make_too_large(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)  # sparse: it takes no space


NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda file: file.symlink_to("/dev/zero"),
    "socket": lambda file: socket.socket(socket.AF_UNIX).bind(str(file)),
    "folder": Path.mkdir,
    "nothing": lambda _: None,
    "circle of links": lambda file: file.symlink_to(file),
    "too large": make_too_large,
}


class Images:
    """Makes image cases; `whole` are good files, by Pillow's name of their format."""

    def __init__(self) -> None:
        image = Image.fromarray(picture(60, 80))
        # not those of the extra `photos`: their libraries start threads, so this process could not be forked
        self.whole = {kind: encode(image, kind) for kind in FORMATS if kind not in LIBRARIES}
        self.pixels = {kind: digest(see(decode(data))) for kind, data in self.whole.items()}
        self.foreign = {kind: encode(image, kind) for kind in FOREIGN}
        self.makers: list[tuple[int, Callable[[random.Random], Case]]] = [
            (6, self.damaged),
            (3, self.cut),
            (1, self.mislabelled),
            (2, self.foreign_format),
            (2, self.no_image),
            (1, self.no_file),
            (2, self.huge),
            (1, self.odd_exif),
        ]

    def make(self, rng: random.Random) -> Case:
        ((_, maker),) = rng.choices(self.makers, [weight for weight, _ in self.makers])
        return maker(rng)

    def damaged(self, rng: random.Random) -> Case:
        kind = rng.choice(list(self.whole))
        data = bytearray(self.whole[kind])
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        expected = self.pixels[kind] if kind in SELF_CHECKING else Anything
        return case("images: flipped bits", f"{kind}, bits flipped", bytes(data), suffix(kind), expected)

    def cut(self, rng: random.Random) -> Case:
        kind = rng.choice(list(self.whole))
        data = self.whole[kind][: rng.randrange(len(self.whole[kind]))]
        # accepted if only bytes after the pixels are missing
        return case("images: cut short", f"{kind}, {len(data)} bytes left", data, suffix(kind), self.pixels[kind])

    def mislabelled(self, rng: random.Random) -> Case:
        kind, name = rng.choice(list(self.whole)), rng.choice(list(SUFFIXES))
        return case("images: mislabelled", f"{kind} named {name}", self.whole[kind], name, self.pixels[kind])

    def foreign_format(self, rng: random.Random) -> Case:
        kind = rng.choice([*FOREIGN, *HEADERS])
        data, name = (self.foreign[kind], FOREIGN[kind]) if kind in FOREIGN else (HEADERS[kind], ".jpg")
        return case("images: foreign formats", f"{kind} named {name}", data, name, Refusal)

    def no_image(self, rng: random.Random) -> Case:
        """Random bytes, alone or after the first bytes of an image."""
        kind = rng.choice(list(self.whole))
        data = self.whole[kind][: rng.choice((0, 2, 4, 8, 16, 32))] + rng.randbytes(rng.choice((0, 1, 100, 5000)))
        return case("images: random bytes", f"random bytes as {kind}", data, suffix(kind), Anything)

    def no_file(self, rng: random.Random) -> Case:
        name = rng.choice(list(NO_FILES))

        def read(place: Path) -> object:
            file = place / "image.jpg"
            NO_FILES[name](file)
            return see(load(file))

        return Case("images: no regular file", name, read, Refusal)

    def huge(self, rng: random.Random) -> Case:
        """Headers with more pixels than the file has, or than the memory can hold."""
        side = rng.choice((20_000, 65_535, 100_000, 2**31 - 1))
        data = {
            "PNG": lambda: png(side, side, whole=False),
            "BMP": lambda: patched(self.whole["BMP"], 18, "<ii", side, rng.choice((side, -side))),
            "GIF": lambda: patched(self.whole["GIF"], 6, "<HH", 65_535, 65_535),
            "PPM": lambda: b"P6 %d %d 255\n" % (side, side),
            "TIFF": lambda: self.whole["TIFF"].replace(struct.pack("<H", 80), struct.pack("<H", 65_535)),
        }
        kind = rng.choice(list(data))
        read_it = rng.choice((load, read_size))
        return case("images: huge headers", f"{kind} of {side}", data[kind](), suffix(kind), Anything, read_it)

    def odd_exif(self, rng: random.Random) -> Case:
        """Damaged EXIF may change the rotation; the image is not refused."""
        exif = bytearray(oriented(rng.randrange(9)))
        for _ in range(rng.randrange(20)):
            exif[rng.randrange(6, len(exif))] = rng.randrange(256)
        image = Image.fromarray(picture(60, 80))
        return case("images: odd EXIF", "EXIF damaged", encode(image, "JPEG", exif=bytes(exif)), ".jpg", Anything)


def case(
    kind: str, what: str, data: bytes, name: str, expected: object, reader: Callable[[Path], object] = load
) -> Case:
    def put(place: Path) -> str:
        file = place / f"image{name}"
        file.write_bytes(data)
        return digest(see(reader(file)))

    return Case(kind, what, put, expected)


def see(found: object) -> object:
    """The bytes of an image, after checking its shape and type; a size unchanged."""
    if isinstance(found, tuple):
        return found
    image: Array = found  # type: ignore[assignment]
    assert image.ndim == 3  # (H, W, 3) uint8
    assert image.shape[2] == 3
    assert image.dtype == "uint8"
    assert image.size
    return repr(image.shape).encode() + image.tobytes()


def suffix(kind: str) -> str:
    return next(name for name, its_kind in SUFFIXES.items() if its_kind == kind)


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    packed = struct.pack(form, *values)
    return data[:offset] + packed + data[offset + len(packed) :]
