"""A gallery's maps kept in another way, in a gallery of their own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from operator import eq
from pathlib import Path

from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.fidelity import Score
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.learnt_codec import LEARN_FROM
from cvnet_engine.engine.gallery.map_codec import MapCodec, open_codec
from cvnet_engine.engine.gallery.merging import Merge, copy
from cvnet_engine.engine.gallery.shards import Belongings
from cvnet_engine.engine.gallery.walk import Whole, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter


def convert(
    source: Path,
    info: GalleryInfo,
    writer: GalleryWriter,
    report: Merge,
    done: Callable[[int], None] = lambda _: None,
    score: Score | None = None,
) -> None:
    """Copy what the writer's gallery has not, or has of another file, its maps kept as that gallery keeps them.

    Where its code is still to be learnt, that is done from the first images, whose pairs are scored by `score`; as
    `copy` else.
    """
    codec = open_codec(info.maps, source, info.code)
    if writer.is_unlearnt:
        whole = (found for found in walk(source, info) if isinstance(found, Whole))
        if first := [features(found, codec) for found in islice(whole, LEARN_FROM)]:
            writer.learn(first, score)
    copy(source, info, writer, report, eq, lambda rows: kept_otherwise(rows, codec, writer.codec), done)


def features(found: Whole, codec: MapCodec) -> Features:
    maps = (codec.decode(scale, data, *size) for scale, _, *size, data in found.belongings["maps"])
    return Features(found.image.descriptor, tuple(maps))


def kept_otherwise(belongings: Belongings, source: MapCodec, target: MapCodec) -> Belongings:
    """An image's rows with its maps in the target's code."""
    maps = [
        (scale, channels, *size, target.encode(scale, source.decode(scale, data, *size)))
        for scale, channels, *size, data in belongings["maps"]
    ]
    return {**belongings, "maps": maps}
