"""Dates and places are read from EXIF as cameras write it; anything else reads as unknown, never as an error."""

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
    """A TIFF file with a directory of (tag, type, count, value), in the first directory or below its tag `pointer`."""
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
def test_exif_is_read_from_every_format(kind):
    exif = dated(TEXT, (-33.5, 151.25))
    assert read_shot(encode(Image.fromarray(picture()), kind, exif=exif)) == Shot(SECONDS, (-33.5, 151.25))


def test_without_exif_both_are_unknown():
    assert read_shot(encode(Image.fromarray(picture()), "JPEG")) == Shot()
    assert read_shot(b"Dear diary") == Shot()


def test_the_first_known_date_counts():
    exif = Image.Exif()
    photo = exif.get_ifd(0x8769)
    exif[0x0132] = "2021:01:01 00:00:00"
    assert Block(exif.tobytes()).shot().taken == (datetime(2021, 1, 1) - datetime(1970, 1, 1)).total_seconds()
    photo[0x9004] = TEXT
    assert Block(exif.tobytes()).shot().taken == SECONDS
    photo[0x9003] = "0000:00:00 00:00:00"  # a camera whose clock was never set
    assert Block(exif.tobytes()).shot().taken == SECONDS


@pytest.mark.parametrize(
    ("text", "is_date"),
    [
        ("0001:01:01 00:00:00", True),
        ("9999:12:31 23:59:59", True),
        ("1826-07-04T10:00:00", True),
        ("0000:00:00 00:00:00", False),
        ("2019:02:30 12:00:00", False),
        ("2019:06:15 24:00:00", False),
        ("2019:06:15 12:00:60", False),
        ("    :  :     :  :  ", False),
        ("2019:06:15", False),
        ("99999:06:15 12:00:00", False),
        ("-019:06:15 12:00:00", False),
        ("\u0662\u0660\u0661\u0669", False),
        ("nan", False),
    ],
)
def test_any_day_of_the_calendar_is_a_date(text, is_date):
    data = text.encode().ljust(20, b"\0")
    assert (Block(block("<", [(0x9003, 2, len(data), data)], 0x8769)).shot() != Shot()) == is_date


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
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\0\0\0\0" * 40,
        block("<", [(0x8769, 4, 1, struct.pack("<I", 8))]),  # a directory within itself
        block("<", [(0x9003, 2, 2**32 - 1, b"\xff\xff\xff\xff")], 0x8769),
    ],
)
def test_malformed_blocks_are_unknown(hostile):
    assert (Block(hostile).orientation(), Block(hostile).shot()) == (1, Shot())


def test_randomly_damaged_blocks_read_as_plausible_or_unknown():
    rng, whole = random.Random(0), dated(TEXT, (48.5, 2.25), orientation=6)
    changed = 0
    for _ in range(1000):
        found = Block(damaged(whole, rng, start=6)).shot()
        assert found.taken is None or abs(found.taken) < 300e9
        assert found.place is None or (abs(found.place[0]) <= 90 and abs(found.place[1]) <= 180)
        changed += found != Shot(SECONDS, (48.5, 2.25))
    assert changed > 100


def test_orientation_is_found_among_other_tags():
    assert [Block(oriented(value)).orientation() for value in range(1, 9)] == list(range(1, 9))
