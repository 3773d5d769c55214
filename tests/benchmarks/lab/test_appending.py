"""Answers beside a writer are those without; what a reader sees is whole."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from benchmarks.lab.appending import FOLDER, require_whole
from benchmarks.lab.generated import Photographs, generate
from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.galleries import STAMP


def test_an_appended_image_that_is_not_whole_is_seen(photographs: Photographs, tmp_path: Path) -> None:
    generate(tmp_path / "g", 25, photographs.gallery)
    with Gallery(tmp_path / "g") as opened:
        info, features = opened.info, opened.features(0)
    with GalleryWriter(tmp_path / "g", info) as writer:
        writer.put(FOLDER / "0.jpg", STAMP, features)
    require_whole(tmp_path / "g", 26)
    with contextlib.closing(sqlite3.connect(tmp_path / "g" / "shard-00001.sqlite")) as shard, shard as transaction:
        transaction.execute("DELETE FROM maps WHERE image = 5 AND scale = 1")
    with pytest.raises(GalleryError, match="maps are missing"):
        require_whole(tmp_path / "g", 26)
