"""Removing, compacting and merging: counts stay right, readers go on, and a kill at any moment loses nothing."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cvnet_engine.engine.errors import GalleryError
from cvnet_engine.engine.gallery.copying import CopyReport, merge, require_equal_settings
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.inspection import verify
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import DAMAGED, SELECT_COUNT, FileStamp
from cvnet_engine.engine.gallery.walk import Intact, walk
from cvnet_engine.engine.gallery.writer import GalleryWriter
from tests.engine.disks import small_disk
from tests.galleries import INFO, STAMP, assert_equal, features

PER_SHARD = 4
LARGE = ((8, 10), (11, 14), (16, 20))  # maps of an image of 256x320 px


def write(gallery: Path, seeds: Sequence[int], stamp: FileStamp = STAMP, folder: str = "/photos") -> Path:
    with GalleryWriter(gallery, INFO, images_per_shard=PER_SHARD) as writer:
        for seed in seeds:
            writer.put(Path(f"{folder}/{seed}.jpg"), stamp, features(seed, LARGE))
    return gallery


def photo(seed: int) -> Path:
    return Path(f"/photos/{seed}.jpg")


def seeds(gallery: Path) -> list[int]:
    """Those of the images, in order; all of them must be what was put in."""
    with Gallery(gallery) as opened:
        found = [int(path.stem) for path in opened.paths]
        for row, seed in enumerate(found):
            assert_equal(opened.features(row), features(seed, LARGE))
    return found


def counts(gallery: Path) -> list[int]:
    """Of images in each shard, as it says and as it is."""
    found = []
    for file in sorted(gallery.glob("shard-*.sqlite")):
        shard = sqlite3.connect(file)
        (count,), (rows,) = (shard.execute(q).fetchone() for q in (SELECT_COUNT, "SELECT count(*) FROM images"))
        shard.close()
        assert count == rows
        found.append(count)
    return found


# -------------------------------------------------------------------------------------------------- removal


def test_removed_images_are_gone_and_counts_are_right(tmp_path):
    write(tmp_path / "g", range(10))
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        told: list[int] = []
        writer.remove([photo(9), photo(1), photo(4), photo(2)], told.append)
        assert (len(writer), photo(4) in writer, sorted(told)) == (6, False, [1, 1, 2])
    assert counts(tmp_path / "g") == [2, 3, 1]
    assert seeds(tmp_path / "g") == [0, 3, 5, 6, 7, 8]
    maps = sqlite3.connect(tmp_path / "g/shard-00000.sqlite").execute("SELECT DISTINCT image FROM maps").fetchall()
    assert maps == [(0,), (3,)]


def test_what_was_removed_can_be_put_in_again(tmp_path):
    write(tmp_path / "g", range(6))
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        writer.remove([photo(0), photo(5)])
        assert writer.stamp(photo(0)) is None
    write(tmp_path / "g", [0, 5, 7])
    assert sorted(seeds(tmp_path / "g")) == [0, 1, 2, 3, 4, 5, 7]
    assert sum(counts(tmp_path / "g")) == 7


def test_everything_can_be_removed(tmp_path):
    write(tmp_path / "g", range(6))
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        writer.remove(writer.paths)
    assert (seeds(tmp_path / "g"), counts(tmp_path / "g")) == ([], [0, 0])
    write(tmp_path / "g", [3])
    assert seeds(tmp_path / "g") == [3]


def test_a_reader_goes_on_beside_a_removal_and_says_what_is_gone(tmp_path):
    write(tmp_path / "g", range(6))
    with Gallery(tmp_path / "g") as reader:
        with GalleryWriter.reopen(tmp_path / "g") as writer:
            writer.remove([photo(1)])
        assert_equal(reader.features(0), features(0, LARGE))
        with pytest.raises(GalleryError, match=r"/photos/1\.jpg: no longer in the gallery; open the gallery again"):
            reader.features(1)
    assert not (tmp_path / "g" / DAMAGED).exists()


def test_a_reader_is_not_given_the_features_of_an_image_that_took_the_place(tmp_path):
    write(tmp_path / "g", range(3))
    with Gallery(tmp_path / "g") as reader:
        with GalleryWriter.reopen(tmp_path / "g") as writer:
            writer.remove([photo(2)])
            writer.put(photo(7), STAMP, features(7, LARGE))
        with pytest.raises(GalleryError, match=r"/photos/2\.jpg: no longer in the gallery"):
            reader.features(2)


def test_a_writer_elsewhere_keeps_a_removal_out(tmp_path):
    write(tmp_path / "g", range(3))
    with (
        GalleryWriter.reopen(tmp_path / "g"),
        pytest.raises(GalleryError, match="another process is writing to this gallery"),
    ):
        GalleryWriter.reopen(tmp_path / "g")


# ----------------------------------------------------------------------------------------------- compaction


def size(gallery: Path) -> int:
    return sum(file.stat().st_size for file in gallery.iterdir())


def thinned(gallery: Path) -> Path:
    """A gallery of four images, from which twelve others were removed."""
    write(gallery, range(16))
    with GalleryWriter.reopen(gallery) as writer:
        writer.remove([photo(seed) for seed in range(16) if seed % 4])
    return gallery


def test_compaction_gives_space_back_and_keeps_rows_where_they_are(tmp_path):
    before = size(thinned(tmp_path / "g"))
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        told: list[int] = []
        writer.compact(told.append)
        assert told == [1, 1, 1, 1]
    assert size(tmp_path / "g") < 0.5 * before
    assert (seeds(tmp_path / "g"), counts(tmp_path / "g")) == ([0, 4, 8, 12], [1, 1, 1, 1])


def test_readers_go_on_beside_a_compaction(tmp_path):
    before = size(thinned(tmp_path / "g"))
    with Gallery(tmp_path / "g") as reader:
        assert_equal(reader.features(0), features(0, LARGE))
        with GalleryWriter.reopen(tmp_path / "g") as writer:
            writer.compact(lambda _: assert_equal(reader.features(1), features(4, LARGE)))
        for row, seed in enumerate((0, 4, 8, 12)):
            assert_equal(reader.features(row), features(seed, LARGE))
        with Gallery(tmp_path / "g") as another:
            assert len(another) == 4
    assert size(tmp_path / "g") < 0.5 * before


def test_a_compaction_writes_nowhere_else(tmp_path, monkeypatch):
    thinned(tmp_path / "g")
    monkeypatch.setenv("SQLITE_TMPDIR", "/absent")
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        told: list[str] = []
        writer.compact(lambda _: told.append(os.environ["SQLITE_TMPDIR"]))
    assert set(told) == {str(tmp_path / "g")}
    assert os.environ["SQLITE_TMPDIR"] == "/absent"
    assert {file.suffix for file in (tmp_path / "g").iterdir()} <= {".json", ".lock", ".sqlite", ".columns"}


def test_a_full_disk_stops_a_compaction_and_loses_nothing(tmp_path):
    with small_disk(tmp_path / "disk", 40_000) as disk:
        thinned(disk / "g")
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "reserve").write_bytes(bytes(free - 300_000))
        with (
            GalleryWriter.reopen(disk / "g") as writer,
            pytest.raises(GalleryError, match="free some space and run the same command again"),
        ):
            writer.compact()
        assert seeds(disk / "g") == [0, 4, 8, 12]
        (disk / "reserve").unlink()
        with GalleryWriter.reopen(disk / "g") as writer:
            writer.compact()
        assert seeds(disk / "g") == [0, 4, 8, 12]


# --------------------------------------------------------------------------------------------------- merging


def merged(target: Path, *sources: Path) -> CopyReport:
    report = CopyReport()
    info = read_info(target) if target.exists() else read_info(sources[0])
    with GalleryWriter(target, info, images_per_shard=PER_SHARD) as writer:
        for source in sources:
            merge(source, read_info(source), writer, report)
    return report


def rows(gallery: Path) -> list[tuple[object, ...]]:
    """Every row of every table."""
    found = []
    for file in sorted(gallery.glob("shard-*.sqlite")):
        shard = sqlite3.connect(file)
        for table in ("images", "maps", "contents"):
            found += sorted(shard.execute(f"SELECT * FROM {table}"))
        shard.close()
    return found


def test_a_merged_gallery_is_the_one_that_index_would_have_made(tmp_path):
    for name, part in (("a", range(5)), ("b", range(5, 9)), ("whole", range(9))):
        with GalleryWriter(tmp_path / name, INFO, images_per_shard=PER_SHARD) as writer:
            for seed in part:
                writer.put(photo(seed), STAMP, features(seed, LARGE))
    report = merged(tmp_path / "m", tmp_path / "a", tmp_path / "b")
    assert (report.added, report.updated, report.unchanged, report.damaged) == (9, 0, 0, {})
    assert rows(tmp_path / "m") == rows(tmp_path / "whole")
    assert (tmp_path / "m/gallery.json").read_text() == (tmp_path / "whole/gallery.json").read_text()


def test_of_one_path_the_later_file_stays(tmp_path):
    older, newer = (replace(STAMP, mtime_ns=STAMP.mtime_ns + offset) for offset in (-1, 1))
    write(tmp_path / "target", [0, 1, 2])
    for name, stamp in (("older", older), ("newer", newer)):
        with GalleryWriter(tmp_path / name, INFO) as writer:
            writer.put(photo(1), stamp, features(100, LARGE))
    assert merged(tmp_path / "target", tmp_path / "older").unchanged == 1
    assert seeds(tmp_path / "target") == [0, 1, 2]
    assert merged(tmp_path / "target", tmp_path / "newer").updated == 1
    with Gallery(tmp_path / "target") as opened:
        assert [path.stem for path in opened.paths] == ["0", "1", "2"]
        assert_equal(opened.features(1), features(100, LARGE))
        assert opened.stamp(1) == newer
    assert counts(tmp_path / "target") == [3]


def test_a_reader_goes_on_beside_a_merge(tmp_path):
    write(tmp_path / "target", range(3))
    write(tmp_path / "source", range(3, 9))
    with Gallery(tmp_path / "target") as reader, Gallery(tmp_path / "source") as other:
        merged(tmp_path / "target", tmp_path / "source")
        for row in range(3):
            assert_equal(reader.features(row), features(row, LARGE))
        assert len(reader) == 3
        assert len(other) == 6
    assert seeds(tmp_path / "target") == list(range(9))


def test_a_damaged_image_of_the_target_is_mended_by_a_merge(tmp_path):
    write(tmp_path / "target", range(3))
    write(tmp_path / "source", range(3))
    with sqlite3.connect(tmp_path / "target/shard-00000.sqlite") as shard:
        shard.execute("DELETE FROM maps WHERE image = 1 AND scale = 0")
    shard.close()
    assert list(verify(tmp_path / "target").damaged) == [photo(1)]
    report = merged(tmp_path / "target", tmp_path / "source")
    assert (report.updated, report.unchanged) == (1, 2)
    assert seeds(tmp_path / "target") == [0, 1, 2]


@pytest.mark.parametrize(
    "change", [{"features_id": "x"}, {"max_side_px": None}, {"maps": "coded:8"}, {"scales": (1.0,)}]
)
def test_galleries_of_other_making_are_named(change):
    with pytest.raises(GalleryError, match=r"b: made with another .* only galleries with equal settings can be merged"):
        require_equal_settings({Path("a"): INFO, Path("b"): replace(INFO, **change)})
    require_equal_settings({Path("a"): INFO, Path("b"): replace(INFO, shards=7)})


# -------------------------------------------------------------------------------------------- verification


def test_an_image_that_is_removed_while_it_is_verified_is_no_damage(tmp_path):
    write(tmp_path / "g", range(3))
    images = walk(tmp_path / "g", INFO)
    first = next(images)
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        writer.remove([photo(1)])
    assert isinstance(first, Intact)
    assert [image.image.path for image in images if isinstance(image, Intact)] == [photo(2)]


def test_what_verify_finds_the_next_writer_looks_for(tmp_path):
    write(tmp_path / "g", range(3))
    assert verify(tmp_path / "g").damaged == {}
    assert not (tmp_path / "g" / DAMAGED).exists()
    with sqlite3.connect(tmp_path / "g/shard-00000.sqlite") as shard:
        shard.execute("UPDATE maps SET data = zeroblob(length(data)) WHERE image = 1 AND scale = 0")
    shard.close()
    assert verify(tmp_path / "g").damaged == {photo(1): "checksum differs"}
    with GalleryWriter.reopen(tmp_path / "g") as writer:
        assert writer.damaged == [photo(1)]


# ---------------------------------------------------------------------------------------------------- kills

CARE = """
import sys
from pathlib import Path
from cvnet_engine.engine.gallery.info import read_info
from cvnet_engine.engine.gallery.copying import CopyReport, merge
from cvnet_engine.engine.gallery.writer import GalleryWriter
what, gallery, *sources = sys.argv[1:]
info = read_info(Path(sources[0] if sources else gallery))
with GalleryWriter(Path(gallery), info, images_per_shard=4) as writer:
    print("ready", flush=True)
    step = lambda _: print("step", flush=True)
    match what:
        case "merge":
            for source in map(Path, sources):
                merge(source, read_info(source), writer, CopyReport(), step)
        case "compact":
            writer.compact(step)
        case "remove":
            writer.remove([path for path in writer.paths if int(path.stem) % 4], step)
"""


def kill(rng: random.Random, steps: int, *words: object) -> bool:
    """Start `CARE`, kill it within the step after some others; whether it was killed before it ended."""
    command = [sys.executable, "-c", CARE, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(1 + rng.randrange(steps)):
            process.stdout.readline()
        moment = time.perf_counter() + rng.uniform(0, 0.01)
        while time.perf_counter() < moment:
            pass
        process.kill()
    return process.returncode == -signal.SIGKILL


def test_a_merge_that_is_killed_again_and_again_ends_in_the_same_gallery(tmp_path):
    write(tmp_path / "a", range(9))
    write(tmp_path / "b", range(7, 16))
    sources = tmp_path / "a", tmp_path / "b"
    rng, sizes = random.Random(0), []
    for _ in range(5):
        assert kill(rng, 14, "merge", tmp_path / "m", *sources)
        sizes.append(len(Gallery(tmp_path / "m")))
        seeds(tmp_path / "m")
    assert sizes == sorted(sizes)
    assert sizes[0] < 16
    merged(tmp_path / "m", *sources)
    merged(tmp_path / "whole", *sources)
    assert rows(tmp_path / "m") == rows(tmp_path / "whole")


@pytest.mark.parametrize("what", ["compact", "remove"])
def test_a_kill_amid_shards_leaves_each_as_it_was_or_as_it_is_to_be(tmp_path, what):
    rng, killed = random.Random(1), 0
    for attempt in range(4):
        gallery = tmp_path / str(attempt)
        if what == "compact":
            thinned(gallery)
        else:
            write(gallery, range(16))
        killed += kill(rng, 4, what, gallery)
        found = seeds(gallery)
        assert set(found) >= {0, 4, 8, 12}
        if what == "compact":
            assert found == [0, 4, 8, 12]
        assert sum(counts(gallery)) == len(found)
        assert verify(gallery).damaged == {}
        with GalleryWriter.reopen(gallery) as writer:  # and go on
            assert writer.repairs == []
            writer.remove([path for path in writer.paths if int(path.stem) % 4])
            writer.compact()
        assert (seeds(gallery), counts(gallery)) == ([0, 4, 8, 12], [1, 1, 1, 1])
        assert {file.suffix for file in gallery.iterdir()} <= {".json", ".lock", ".sqlite", ".columns"}
    assert killed > 1
