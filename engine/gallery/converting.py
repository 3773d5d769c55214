"""Conversion of a gallery: its images copied into another gallery that stores maps in another way."""

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
    """Copy all images that the writer's gallery lacks or has in another version, encoding maps with its codec.

    If the codec is not fitted yet, it is fitted to the first images; `score` then measures the change of pair scores.
    Otherwise as `copy`.
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
    """Return an image's rows with its maps encoded by the target's codec."""
    maps = [
        (scale, channels, *size, target.encode(scale, source.decode(scale, data, *size)))
        for scale, channels, *size, data in belongings["maps"]
    ]
    return {**belongings, "maps": maps}
