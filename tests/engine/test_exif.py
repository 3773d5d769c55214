"""Dates and places are read from EXIF as cameras write it; whatever else is there is unknown, and never an error."""

from __future__ import annotations

import random
import struct
from datetime import datetime

import pytest
from PIL import Image

from cvnet_engine.engine.exif import Block, Shot
from cvnet_engine.engine.images import read_shot
from tests.pictures import damaged, dated, encode, oriented, picture

TAKEN = datetime(2019, 6, 15, 12, 30, 45)
SECONDS = int((TAKEN - datetime(1970, 1, 1)).total_seconds())
TEXT = "2019:06:15 12:30:45"


def block(order: str, entries: list[tuple[int, int, int, bytes]], pointer: int | None = None) -> bytes:
    """A TIFF header and one directory of (tag, type, count, value), the values behind it; `pointer` is the tag that
    leads to a second directory, which the entries are in."""
    start = 8 if pointer is None else 26
    behind, lines = start + 6 + 12 * len(entries), b""
    values = b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            value, values = struct.pack(f"{order}I", behind + len(values)), values + value
        lines += struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
    directory = struct.pack(f"{order}H", len(entries)) + lines + bytes(4)
    leading = b"" if pointer is None else struct.pack(f"{order}HHHIII", 1, pointer, 4, 1, start, 0)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return header + leading + directory + values


def gps(
    order: str = "<", *, latitude: tuple[int, ...] = (48, 1, 51, 1, 30, 1), ref: bytes = b"N\0", kind: int = 5
) -> bytes:
    entries = [
        (1, 2, 2, ref),
        (2, kind, 3, struct.pack(f"{order}6I", *latitude)),
        (3, 2, 2, b"W\0"),
        (4, 5, 3, struct.pack(f"{order}6I", 2, 1, 2100, 100, 0, 1)),
    ]
    return block(order, entries, 0x8825)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_dates_and_places_in_both_byte_orders(order, prefix):
    date = block(order, [(0x9003, 2, 20, TEXT.encode() + b"\0")], 0x8769)
    assert Block(prefix + date).shot() == Shot(SECONDS, None)
    assert Block(prefix + gps(order)).shot() == Shot(None, (48 + 51 / 60 + 30 / 3600, -2.35))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_format_brings_its_exif(kind):
    exif = dated(TEXT, (-33.5, 151.25))
    assert read_shot(encode(Image.fromarray(picture()), kind, exif=exif)) == Shot(SECONDS, (-33.5, 151.25))


def test_a_photo_without_exif_has_neither():
    assert read_shot(encode(Image.fromarray(picture()), "JPEG")) == Shot()
    assert read_shot(b"Dear diary") == Shot()


def test_what_a_camera_took_goes_before_what_it_stored_and_what_was_edited():
    exif = Image.Exif()
    photo = exif.get_ifd(0x8769)
    exif[0x0132] = "2021:01:01 00:00:00"
    assert Block(exif.tobytes()).shot().taken == (datetime(2021, 1, 1) - datetime(1970, 1, 1)).total_seconds()
    photo[0x9004] = TEXT
    assert Block(exif.tobytes()).shot().taken == SECONDS
    photo[0x9003] = "0000:00:00 00:00:00"  # a camera whose clock was never set
    assert Block(exif.tobytes()).shot().taken == SECONDS


@pytest.mark.parametrize(
    "text",
    [
        "0000:00:00 00:00:00",
        "2019:02:30 12:00:00",
        "2019:06:15 24:00:00",
        "2019:06:15 12:00:60",
        "    :  :     :  :  ",
        "2019:06:15",
        "99999:06:15 12:00:00",
        "-019:06:15 12:00:00",
        "\u0662\u0660\u0661\u0669",
        "nan",
    ],
)
def test_dates_that_are_none_are_unknown(text):
    data = text.encode().ljust(20, b"\0")
    assert Block(block("<", [(0x9003, 2, len(data), data)], 0x8769)).shot() == Shot()


@pytest.mark.parametrize("text", ["0001:01:01 00:00:00", "9999:12:31 23:59:59", "1826-07-04T10:00:00"])
def test_any_day_of_the_calendar_is_a_date(text):
    assert Block(block("<", [(0x9003, 2, 20, text.encode() + b"\0")], 0x8769)).shot().taken is not None


@pytest.mark.parametrize(
    "hostile",
    [
        gps(latitude=(48, 0, 51, 1, 30, 1)),
        gps(latitude=(0, 0, 0, 0, 0, 0)),
        gps(latitude=(91, 1, 0, 1, 0, 1)),
        gps(latitude=(2**32 - 1, 1, 2**32 - 1, 1, 2**32 - 1, 1)),
        gps(ref=b"\0\0"),
        gps(ref=b"E\0"),
        gps(kind=12),
        gps()[:-30],
        gps()[:60],
    ],
)
def test_places_that_are_none_are_unknown(hostile):
    assert Block(hostile).shot() == Shot()


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\0\0\0\0" * 40,
        block("<", [(0x8769, 4, 1, struct.pack("<I", 8))]),  # a directory within itself
        block("<", [(0x9003, 2, 2**32 - 1, b"\xff\xff\xff\xff")], 0x8769),
    ],
)
def test_blocks_that_are_none_say_nothing(hostile):
    assert (Block(hostile).orientation(), Block(hostile).shot()) == (1, Shot())


def test_random_damage_is_a_shot_or_none():
    rng, whole = random.Random(0), dated(TEXT, (48.5, 2.25), orientation=6)
    changed = 0
    for _ in range(3000):
        found = Block(damaged(whole, rng, start=6)).shot()
        assert found.taken is None or abs(found.taken) < 300e9
        assert found.place is None or (abs(found.place[0]) <= 90 and abs(found.place[1]) <= 180)
        changed += found != Shot(SECONDS, (48.5, 2.25))
    assert changed > 300


def test_orientation_stands_beside_other_tags():
    assert [Block(oriented(value)).orientation() for value in range(1, 9)] == list(range(1, 9))
