"""`index` takes lists from standard input, files of folders by pattern, and what is added to watched folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine import Retriever
from cvnet_engine.commands.index import paths_of
from cvnet_engine.commands.watching import changed_images, follow, open_changes
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.indexing import IndexReport, Patterns, find
from cvnet_engine.engine.gallery.ray_indexing import indexer_with
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.geometry import IMAGE_SCALES
from cvnet_engine.engine.retrieval.engines import Engines
from tests.galleries import INFO, FakeEngines
from tests.hostile.tiny import write_bundle
from tests.pictures import photo

PROGRAM = [sys.executable, "-m", "cvnet_engine"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "thumbs/a.jpg", "2019/thumbs/c.jpg", "2019/d.jpg"):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(tmp_path / "album" / name, seed=len(name))
    return tmp_path / "album"


# -------------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ((), (), ["2019/d.jpg", "2019/thumbs/c.jpg", "a.jpg", "b.png", "thumbs/a.jpg"]),
        (("*.png",), (), ["b.png"]),
        (("*.png", "d.*"), (), ["2019/d.jpg", "b.png"]),
        ((), ("thumbs/*",), ["2019/d.jpg", "2019/thumbs/c.jpg", "a.jpg", "b.png"]),
        ((), ("thumbs/*", "*/thumbs/*"), ["2019/d.jpg", "a.jpg", "b.png"]),
        (("*.jpg",), ("a.jpg",), ["2019/d.jpg", "2019/thumbs/c.jpg"]),
    ],
)
def test_patterns_choose_among_the_files_of_a_folder(album, include, exclude, names):
    found = find([album], Patterns(include, exclude))
    assert [str(path.relative_to(album)) for path in found.images] == names
    assert len(found.images) + len(found.skipped) == 5
    assert set(found.skipped.values()) <= {"not matched by --include", "matched by --exclude"}


def test_a_file_that_is_named_is_taken_whatever_the_patterns(album):
    assert find([album / "a.jpg"], Patterns(("*.png",))).images == [album / "a.jpg"]


def test_links_that_lead_in_circles_end(album):
    (album / "2019" / "up").symlink_to(album)
    (album / "self").symlink_to(album / "self")
    assert len(find([album]).images) == 5


# -------------------------------------------------------------------------------------------- standard input


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"a\nb c\n", ["a", "b c"]),
        (b"a\n\nb", ["a", "b"]),
        (b"a\nb\0c\0", ["a\nb", "c"]),
        (b"caf\xc3\xa9\n\xff.jpg\n", ["caf\u00e9", "\udcff.jpg"]),
        (b"", []),
    ],
)
def test_paths_are_one_a_line_or_ended_by_nul(data, names):
    assert [str(path) for path in paths_of(data)] == names


def run(tiny: Path, gallery: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, "index", *map(str, arguments), "--bundle", str(tiny), "--gallery", str(gallery)]
    return subprocess.run(command, capture_output=True, timeout=120, **options)


def test_index_takes_a_list_from_standard_input(tiny, album, tmp_path):
    names = [album / "a.jpg", album / "thumbs"]
    done = run(tiny, tmp_path / "g", "-", "--exclude", "b.*", input=b"\0".join(map(os.fsencode, names)))
    assert done.returncode == 0, done.stderr
    assert Gallery(tmp_path / "g").paths == [album / "a.jpg", album / "thumbs" / "a.jpg"]


def test_an_empty_list_is_said_on_one_line(tiny, tmp_path):
    done = run(tiny, tmp_path / "g", "-", input=b"")
    assert (done.returncode, done.stderr) == (1, b"error: standard input: no paths; expected one a line\n")


# --------------------------------------------------------------------------------------------------- scales


def test_a_gallery_keeps_its_longest_side_and_scales(tiny, album, tmp_path):
    """Pixels of noise differ when they are scaled, so that a query of other scales would not be its own match."""
    gallery = tmp_path / "g"
    first = run(tiny, gallery, album / "a.jpg", "--scales", "1,0.7071", "--max-side", "60")
    assert first.returncode == 0, first.stderr
    again = run(tiny, gallery, album / "a.jpg", album / "b.png")  # takes the gallery's settings
    assert again.returncode == 0, again.stderr
    other = run(tiny, gallery, album / "a.jpg", "--scales", "0.7071,1,1.4142")
    assert (other.returncode, other.stderr.decode()) == (
        1,
        f"error: {gallery}: made with --scales 0.7071,1; got 0.7071,1,1.4142: use the same, or another --gallery\n",
    )
    bundle = Bundle(tiny)
    with Gallery(gallery) as opened, Engines.open(bundle, 1, (0.7071, 1.0)) as engines:
        assert (opened.info.scales, opened.info.max_side_px) == ((0.7071, 1.0), 60)
        expected = engines.extract_from(album / "b.png", max_side_px=60).descriptor
        np.testing.assert_array_equal(opened.descriptors[1], expected)
        published = replace(engines, scales=IMAGE_SCALES).extract_from(album / "b.png", max_side_px=60).descriptor
        assert np.abs(published - expected).max() > 1e-4
        with Retriever(bundle, opened) as searching:
            np.testing.assert_array_equal(searching.descriptor(album / "b.png"), expected)


def test_scales_that_cannot_be_are_said_on_one_line(tiny, album, tmp_path):
    done = run(tiny, tmp_path / "g", album, "--scales", "0.7071")
    assert (done.returncode, done.stderr) == (
        1,
        b"error: scales 0.7071: expected 1 and any others of 0.7071,1,1.4142\n",
    )
    assert not (tmp_path / "g").exists()


# ------------------------------------------------------------------------------------------------- watching


def test_what_is_watched_goes_into_the_gallery_until_ctrl_c(tiny, tmp_path):
    (tmp_path / "album").mkdir()
    command = [*PROGRAM, "index", str(tmp_path / "album"), "--watch", "--bundle", str(tiny), "--gallery"]
    with subprocess.Popen(
        [*command, str(tmp_path / "g")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert "0 images; watching for more, Ctrl-C to stop" in process.stdout.readline()
        (tmp_path / "new").mkdir()
        photo(tmp_path / "new" / "a.jpg")
        (tmp_path / "new" / "text.jpg").write_text("Dear diary")
        (tmp_path / "new").rename(tmp_path / "album" / "new")
        assert process.stdout.readline().endswith("g: 1 added, 0 updated\n")
        assert "text.jpg: not an image" in process.stdout.readline()
        photo(tmp_path / "album" / "new" / "a.jpg", seed=1)
        assert process.stdout.readline().endswith("g: 0 added, 1 updated\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted; what was added is stored: run the same command again to resume\n"
    assert Gallery(tmp_path / "g").paths == [tmp_path / "album" / "new" / "a.jpg"]


def test_only_what_has_changed_is_looked_at(album):
    assert changed_images({album / "a.jpg", album / "notes.txt"}, [album], Patterns()) == [album / "a.jpg"]
    assert len(changed_images({album / "2019"}, [album], Patterns(exclude=("*thumbs/*",)))) == 1
    assert changed_images({album / "gone.jpg"}, [album], Patterns()) == []
    assert changed_images({album}, [album / "absent"], Patterns()) == []


def test_a_file_that_can_be_read_at_last_is_no_failure_any_more(album, tmp_path):
    def changes() -> Iterator[set[Path]]:
        (album / "a.jpg").write_bytes(b"half")
        yield {album / "a.jpg"}
        assert list(report.failed) == [album / "a.jpg"]
        photo(album / "a.jpg")
        yield {album / "a.jpg"}

    report = IndexReport()
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        follow(changes(), [album], Patterns(), indexer_with(FakeEngines()), writer, report)
    assert (report.added, report.failed) == (1, {})


def test_watching_needs_a_folder_and_its_library(album, monkeypatch):
    with pytest.raises(CvnetError, match="no folder to watch"):
        open_changes([])
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(CvnetError, match=r"pip install '.\[photos\]'"):
        open_changes([album])
