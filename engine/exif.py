"""EXIF metadata of a photo: orientation, time and place. Damaged entries read as unknown.

An EXIF block is a small TIFF file with directories of 12-byte entries: tag, type, count, and the value or its position.
So a TIFF file, or a raw file that begins like one, is read as an EXIF block itself.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import datetime

ORIENTATION = 0x0112
DATE_TIME, DATE_TIME_ORIGINAL, DATE_TIME_DIGITIZED = 0x0132, 0x9003, 0x9004
EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE = 1, 2, 3, 4
RATIONAL = 5  # a type: two unsigned 32-bit integers, numerator and denominator
DATE = re.compile(rb"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)
DATE_BYTES = 19
EPOCH = datetime(1970, 1, 1)

Directory = dict[int, int]  # tag -> position of its entry in the block


@dataclass(frozen=True)
class Shot:
    """Time and place of a photo; None if unknown.

    `taken` is in seconds since 1970 by the camera's clock, without a time zone; `place` is latitude and longitude in
    degrees, north and east positive.
    """

    taken: int | None = None
    place: tuple[float, float] | None = None


class Block:
    """An EXIF block, with or without the prefix of six bytes that it has in a JPEG."""

    def __init__(self, exif: bytes) -> None:
        self._tiff = exif.removeprefix(b"Exif\0\0")
        self._order = {b"II": "<", b"MM": ">"}.get(self._tiff[:2])
        self._main = self._directory(4)

    def __contains__(self, tag: int) -> bool:
        """Tell if the first directory has the tag."""
        return tag in self._main

    def number(self, tag: int) -> int | None:
        """The first 16 bits of a tag's value in the first directory; None without the tag."""
        return self._integer("H", self._main[tag] + 8) if tag in self else None

    def orientation(self) -> int:
        """EXIF orientation, 1 to 8; 1 (upright) if it is missing.

        Like `cv2.imread`, this reads the first directory only. Pillow reads XMP too, and fails on damaged EXIF.
        """
        return self.number(ORIENTATION) or 1

    def shot(self) -> Shot:
        photo, gps = (self._subdirectory(tag) for tag in (EXIF_DIRECTORY, GPS_DIRECTORY))
        dates = ((photo, DATE_TIME_ORIGINAL), (photo, DATE_TIME_DIGITIZED), (self._main, DATE_TIME))
        taken = next((date for place, tag in dates if (date := self._date(place, tag)) is not None), None)
        latitude = self._degrees(gps, LATITUDE, LATITUDE_REF, (b"N", b"S"), 90)
        longitude = self._degrees(gps, LONGITUDE, LONGITUDE_REF, (b"E", b"W"), 180)
        return Shot(taken, None if latitude is None or longitude is None else (latitude, longitude))

    def _integer(self, form: str, position: int) -> int:
        """Read an integer of the struct format `form`.

        Raises:
            struct.error: the block ends before it.
        """
        return int(struct.unpack_from(f"{self._order}{form}", self._tiff, position)[0])

    def _directory(self, pointer: int) -> Directory:
        """The directory whose position is stored at `pointer`; cut short if the block is."""
        found: Directory = {}
        if self._order is None:
            return found
        try:
            start = self._integer("I", pointer)
            for number in range(self._integer("H", start)):
                entry = start + 2 + 12 * number
                tag, _ = struct.unpack_from(f"{self._order}H6xH", self._tiff, entry)
                found.setdefault(tag, entry)
        except struct.error:  # cut short
            pass
        return found

    def _subdirectory(self, tag: int) -> Directory:
        return self._directory(self._main[tag] + 8) if tag in self else {}

    def _date(self, directory: Directory, tag: int) -> int | None:
        try:
            start = self._integer("I", directory[tag] + 8)
            date = DATE.fullmatch(self._tiff[start : start + DATE_BYTES])
            if date is None:
                return None
            year, month, day, hour, minute, second = map(int, date.groups())
            return int((datetime(year, month, day, hour, minute, second) - EPOCH).total_seconds())
        except (KeyError, struct.error, ValueError):  # missing; cut short; no such day
            return None

    def _degrees(
        self, gps: Directory, tag: int, reference: int, signs: tuple[bytes, bytes], limit: int
    ) -> float | None:
        """Degrees, minutes and seconds as one number, negative where the reference is the second of `signs`."""
        try:
            kind = self._integer("H", gps[tag] + 2)
            numbers = struct.unpack_from(f"{self._order}6I", self._tiff, self._integer("I", gps[tag] + 8))
            start = gps[reference] + 8
            sign = signs.index(self._tiff[start : start + 1])
            degrees = sum(n / d / unit for n, d, unit in zip(numbers[::2], numbers[1::2], (1, 60, 3600), strict=True))
        except (KeyError, struct.error, ValueError, ZeroDivisionError):  # missing, cut short or invalid
            return None
        return (-degrees if sign else degrees) if kind == RATIONAL and degrees <= limit else None
