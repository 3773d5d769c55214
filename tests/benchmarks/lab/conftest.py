"""A few photographs in a gallery, by a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.lab import appending, generated, scale
from benchmarks.lab.generated import MAPS, Photographs
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.gallery.indexing import IndexReport, index
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.engines import Engines
from tests.hostile.tiny import write_bundle
from tests.pictures import photo

COUNT = 5


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def photographs(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Photographs:
    """`COUNT` of them; shards of 20 images, as many asked for as there are photographs."""
    monkeypatch.setattr(generated, "IMAGES_PER_SHARD", 20)
    monkeypatch.setattr(scale, "TOP_K", COUNT)
    monkeypatch.setattr(appending, "RERANKED", COUNT)
    files = [photo(tmp_path / f"{number}.jpg", 64, 80, number) for number in range(COUNT + 1)]
    return Photographs(indexed(files[1:], tiny_bundle, tmp_path / "photographs"), files[0])


def indexed(files: Sequence[Path], bundle: Path, gallery: Path) -> Path:
    opened = Bundle(bundle)
    with (
        Engines.open(opened) as engines,
        GalleryWriter(gallery, GalleryInfo.made_with(opened.manifest, None, MAPS)) as writer,
    ):
        index(files, engines, writer, None, IndexReport())
    return gallery
