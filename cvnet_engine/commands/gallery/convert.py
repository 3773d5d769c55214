"""`gallery convert`: a gallery whose maps are kept in another way, in less space."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.commands.gallery.copied import counts, require_whole, to_json
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.census import count
from cvnet_engine.engine.gallery.converting import convert
from cvnet_engine.engine.gallery.fidelity import Score
from cvnet_engine.engine.gallery.info import GalleryInfo, read_info, require_equal
from cvnet_engine.engine.gallery.map_codec import kind_wanted
from cvnet_engine.engine.gallery.merging import Merge
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.outputs import Files, within


@dataclass(frozen=True)
class Options:
    """The gallery to take images from, the one that they are added to, and how that keeps maps.

    `bundle` is a model to say what a learnt code does to its scores, None if nobody asks.
    """

    source: Path
    gallery: Path
    maps: str
    bundle: Path | None = None
    json: Path | None = None

    @property
    def files(self) -> Files:
        bundle = [self.bundle] if self.bundle else []
        return Files({"--json": self.json}, kept=[self.source, self.gallery, *bundle])


def run(options: Options) -> None:
    options.files.require_apart()
    if within(options.source, options.gallery) or within(options.gallery, options.source):
        raise GalleryError(f"{options.source}: cannot be converted in its place; give --gallery another folder")
    info = read_info(options.source)
    bundle = model_of(info, options.bundle, options.source) if options.bundle else None
    wanted = replace(info, maps=kind_wanted(options.maps), code="", fidelity=None, shards=0)
    before, report = count(options.source, info), Merge()
    try:
        with (
            GalleryWriter(options.gallery, wanted) as writer,
            scorer(bundle if writer.is_unlearnt else None) as score,
            console.progress("converting", before.images) as advance,
        ):
            convert(options.source, info, writer, report, advance, score)
            made = writer.info
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("what was copied is stored: run the same command again to go on") from error
    after = count(options.gallery, made)
    console.say(
        f"{options.gallery}: {counts(report)}; {decimal(after.stored_bytes)}, "
        f"{options.source} has {decimal(before.stored_bytes)}"
    )
    if made.fidelity:
        console.say(f"maps: {made.fidelity}")
    if options.json:
        maps = {"maps": made.maps, "fidelity": asdict(made.fidelity) if made.fidelity else None}
        sizes = {"images": after.images, "bytes": after.stored_bytes, "bytes_before": before.stored_bytes}
        console.write_json(options.json, to_json(options.gallery, report) | maps | sizes)
    require_whole(report, "and convert it again")


def model_of(source: GalleryInfo, bundle: Path, path: Path) -> Bundle:
    """The bundle, which must be of the model that the gallery at `path` was made with.

    Raises:
        GalleryError: it is of another.
    """
    opened = Bundle(bundle)
    require_equal(source, source.by(opened.manifest), path)
    return opened


@contextlib.contextmanager
def scorer(bundle: Bundle | None) -> Iterator[Score | None]:
    """How the model scores pairs; None without one."""
    if bundle is None:
        yield None
    else:
        with Retriever.open(bundle) as retriever:
            yield retriever.score
