"""`cvnet-engine gallery`: each command as its users meet it, on a gallery of photos."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from cvnet_engine.commands.gallery import ann, duplicates
from cvnet_engine.engine.gallery.ann_file import ANN, AnnFile
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.retrieval.ann_building import Built, Trial
from tests.cvnet_engine.program import Cli, assert_one_line
from tests.galleries import INFO, STAMP, features, flip_column, write
from tests.hostile.tiny import write_bundle
from tests.pictures import photo

NAMES = ("a/0.jpg", "a/1.jpg", "a/2.png", "b/3.jpg", "b/4.jpg")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(tmp_path / "photos" / name, 64, 80, seed)
    return tmp_path / "photos"


@pytest.fixture
def gallery(cli: Cli, bundle: Path, photos: Path, tmp_path: Path) -> Path:
    assert cli("index", photos, "--bundle", bundle, "--gallery", tmp_path / "g").code == 0
    return tmp_path / "g"


def run(cli: Cli, command: str, *words: object, code: int = 0) -> Any:
    """A command's JSON; it must end with that code."""
    result = cli("gallery", command, *words, "--json -")
    assert result.code == code, result.err
    return json.loads(result.out)


def paths(gallery: Path) -> list[Path]:
    with Gallery(gallery) as opened:
        return opened.paths


# ---------------------------------------------------------------------------------------------- info, list


def test_info_counts_and_says_what_made_the_gallery(cli, gallery):
    facts = run(cli, "info", "--gallery", gallery)
    assert (facts["images"], facts["shards"], facts["free_bytes"]) == (5, 1, 0)
    assert facts["bytes"] == sum(file.stat().st_size for file in gallery.iterdir())
    assert (facts["weights"], facts["max_side_px"], facts["maps"]) == ("tiny:0", 1024, "float16")
    assert facts["features_id"] in (gallery / "gallery.json").read_text()
    shown = cli("gallery info --gallery", gallery)
    assert "5 in 1 shard\n" in shown.out
    assert "tiny:0" in shown.out
    assert "compact" not in shown.out  # there is nothing to give back


def test_list_is_one_path_a_line(cli, gallery, photos):
    assert cli("gallery list --gallery", gallery).out.splitlines() == [str(photos / name) for name in NAMES]
    chosen = cli("gallery list", photos / "b", "*.png", "--gallery", gallery)
    assert chosen.out.splitlines() == [str(photos / name) for name in ("a/2.png", "b/3.jpg", "b/4.jpg")]


def test_list_gives_names_byte_for_byte(tmp_path):
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(Path(os.fsdecode(b"/photos/bad\xff.jpg")), STAMP, features(0))
    command = [sys.executable, "-m", "cvnet_engine", "gallery", "list", "--gallery", tmp_path / "g"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"/photos/bad\xff.jpg\n"


def test_list_for_machines_tells_of_the_files(cli, gallery, photos):
    (entry,) = run(cli, "list", "3.jpg", "--gallery", gallery)
    status = (photos / "b/3.jpg").stat()
    assert (entry["path"], entry["size"], entry["mtime_ns"]) == (
        str(photos / "b/3.jpg"),
        status.st_size,
        status.st_mtime_ns,
    )
    assert entry["map_size"] == [4, 5]
    assert re.fullmatch("[0-9a-f]{64}", entry["digest"])


@pytest.mark.parametrize(
    "command",
    ["info", "list", "verify", "remove *.jpg", "prune", "compact", "export --out e.npz", "ann", "ann --remove"],
)
def test_no_gallery(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert_one_line(cli("gallery", command, "--gallery absent"), "absent: not a gallery")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- verify


def test_verify_finds_a_whole_gallery_whole(cli, gallery):
    assert run(cli, "verify", "--gallery", gallery) == {
        "gallery": str(gallery), "whole": 5, "damaged": {}, "repaired": False,
    }  # fmt: skip


def test_verify_names_what_is_damaged_and_index_mends_it(cli, gallery, photos, bundle):
    flip_column(gallery, "maps", "data", 1)
    flip_column(gallery, "images", "descriptor", 3)
    result = cli("gallery verify --gallery", gallery)
    assert_one_line(result, "2 images damaged or missing", "'cvnet-engine index'")
    assert f"{photos / 'a/1.jpg'}: checksum differs" in result.out
    assert f"{photos / 'b/3.jpg'}: checksum differs" in result.out
    assert cli("index", photos, "--bundle", bundle, "--gallery", gallery).code == 0
    assert run(cli, "verify", "--gallery", gallery)["whole"] == 5


def test_repair_drops_what_is_damaged_and_the_next_index_takes_it_in_anew(cli, gallery, photos, bundle):
    flip_column(gallery, "maps", "data", 1)
    flip_column(gallery, "images", "descriptor", 3)
    result = run(cli, "verify", "--repair", "--gallery", gallery)
    assert (result["whole"], result["repaired"]) == (3, True)
    assert result["damaged"].keys() == {str(photos / "a/1.jpg"), str(photos / "b/3.jpg")}
    assert paths(gallery) == [photos / name for name in ("a/0.jpg", "a/2.png", "b/4.jpg")]
    assert run(cli, "verify", "--gallery", gallery)["whole"] == 3
    added = cli("index", photos, "--bundle", bundle, "--gallery", gallery, "--json -")
    assert (json.loads(added.out)["added"], json.loads(added.out)["unchanged"]) == (2, 3)


def test_verify_goes_on_past_a_shard_that_is_no_database(cli, tmp_path):
    write(tmp_path / "g", range(6), per_shard=2)
    (tmp_path / "g/shard-00001.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "g/shard-00002.sqlite").unlink()
    found = run(cli, "verify", "--gallery", tmp_path / "g", code=1)
    assert found["whole"] == 2
    assert "file is not a database" in found["damaged"][str(tmp_path / "g/shard-00001.sqlite")]
    assert "missing from the gallery" in found["damaged"][str(tmp_path / "g/shard-00002.sqlite")]


# --------------------------------------------------------------------------------- remove, prune, compact


def test_remove_takes_images_out_and_leaves_the_photos(cli, gallery, photos):
    words = (photos / "b", "1.jpg", "--gallery", gallery)
    listed = cli("gallery list", *words).out.splitlines()
    assert listed == [str(photos / name) for name in ("a/1.jpg", "b/3.jpg", "b/4.jpg")]
    done = cli("gallery remove", *words).out.splitlines()
    assert done == [f"{gallery}: 3 images removed, 2 left", *(f"  {path}" for path in listed)]
    assert paths(gallery) == [photos / "a/0.jpg", photos / "a/2.png"]
    assert all((photos / name).is_file() for name in NAMES)


def test_prune_removes_deleted_files(cli, gallery, photos):
    (photos / "a/1.jpg").unlink()
    assert cli("gallery prune --dry-run --gallery", gallery).out.splitlines() == [
        f"{gallery}: 1 of 5 images would be removed", f"  {photos / 'a/1.jpg'}",
    ]  # fmt: skip
    assert len(paths(gallery)) == 5
    assert "1 image removed, 4 left" in cli("gallery prune --gallery", gallery).out
    assert paths(gallery) == [photos / name for name in NAMES if name != "a/1.jpg"]


@pytest.mark.parametrize("words", ["prune", "prune --dry-run"])
def test_prune_keeps_the_images_of_an_unmounted_disk(cli, gallery, photos, words):
    shutil.move(photos, photos.with_name("unmounted"))
    photos.mkdir()  # the mount point
    message = f"kept 5 images, because everything in {photos} is missing; mount that disk"
    assert_one_line(cli("gallery", words, "--gallery", gallery), message)
    assert len(paths(gallery)) == 5


def test_compact_returns_disk_space(cli, gallery, photos):
    with GalleryWriter.reopen(gallery) as writer:
        for n in range(40):
            writer.put(Path(f"/more/{n}.jpg"), STAMP, features(n, ((12, 16), (17, 23), (24, 32))))
    assert "40 images removed, 5 left" in cli("gallery remove /more --gallery", gallery).out
    assert "which 'gallery compact' returns" in cli("gallery info --gallery", gallery).out
    before = run(cli, "info", "--gallery", gallery)
    assert cli("gallery compact --gallery", gallery).code == 0
    after = run(cli, "info", "--gallery", gallery)
    assert before["bytes"] - after["bytes"] >= before["free_bytes"] > 10_000_000
    assert paths(gallery) == [photos / name for name in NAMES]
    assert run(cli, "verify", "--gallery", gallery)["whole"] == 5


# -------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("words", ["", "--maps"])
def test_export_to_npz(cli, gallery, photos, tmp_path, words):
    assert "5 images" in cli("gallery export --gallery", gallery, "--out", tmp_path / "e.npz", words).out
    with np.load(tmp_path / "e.npz") as exported, Gallery(gallery) as opened:
        assert exported["paths"].tolist() == [str(photos / name) for name in NAMES]
        assert exported["digests"].tolist() == [opened.stamp(row).digest for row in range(5)]
        assert np.array_equal(exported["descriptors"], opened.descriptors)
        assert exported["features_id"] == opened.info.features_id
        assert any(name.startswith("maps/") for name in exported) == bool(words)
        if words:
            for scale, stored in enumerate(opened.features(3).maps):
                assert np.array_equal(exported[f"maps/3/{scale}"], stored)


@pytest.mark.parametrize("words", ["", "--maps"])
def test_export_to_parquet(cli, gallery, photos, tmp_path, words):
    assert cli("gallery export --gallery", gallery, "--out", tmp_path / "e.parquet", words).code == 0
    table = parquet.read_table(tmp_path / "e.parquet")
    with Gallery(gallery) as opened:
        assert table["path"].to_pylist() == [str(photos / name) for name in NAMES]
        assert np.array_equal(np.stack(table["descriptor"].to_numpy()), opened.descriptors)
        assert table.schema.metadata[b"features_id"].decode() == opened.info.features_id
        assert ("map_0" in table.column_names) == bool(words)
        if words:
            for scale, stored in enumerate(opened.features(3).maps):
                data, shape = (table[name][3].as_py() for name in (f"map_{scale}", f"map_{scale}_shape"))
                assert np.array_equal(np.frombuffer(data, np.float16).reshape(shape), stored)


def test_a_path_that_is_no_text_is_exported(cli, tmp_path):
    path = Path(os.fsdecode(b"/photos/bad\xff.jpg"))
    with GalleryWriter(tmp_path / "g", INFO) as writer:
        writer.put(path, STAMP, features(0))
    for name in ("e.npz", "e.parquet"):
        assert cli("gallery export --gallery", tmp_path / "g", "--out", tmp_path / name).code == 0
    with np.load(tmp_path / "e.npz") as exported:
        assert exported["paths"].tolist() == [str(path)]
    assert parquet.read_table(tmp_path / "e.parquet")["path"].to_pylist() == ["/photos/bad\ufffd.jpg"]


def test_an_empty_gallery_is_exported_and_has_no_duplicates(cli, bundle, gallery, tmp_path):
    assert cli("gallery remove / --gallery", gallery).code == 0
    for name in ("e.npz", "e.parquet"):
        assert "0 images" in cli("gallery export --maps --gallery", gallery, "--out", tmp_path / name).out
    with np.load(tmp_path / "e.npz") as exported:
        assert exported["descriptors"].shape == (0, 2048)
    found = run(cli, "duplicates", "--bundle", bundle, "--gallery", gallery)
    assert (found["exact"], found["similar"]) == ([], [])
    assert run(cli, "verify", "--gallery", gallery)["whole"] == 0


def test_parquet_without_pyarrow_says_what_to_install(cli, gallery, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = cli("gallery export --gallery", gallery, "--out", tmp_path / "e.parquet")
    assert_one_line(result, "pip install '.[parquet]'", "or export to .npz")
    assert not list(tmp_path.glob("*e.parquet*"))


def test_export_to_another_kind_of_file(cli, gallery, tmp_path):
    result = cli("gallery export --gallery", gallery, "--out", tmp_path / "e.csv")
    assert_one_line(result, "expected a file that ends in .npz or .parquet")


def test_a_damaged_gallery_is_not_exported(cli, gallery, tmp_path):
    flip_column(gallery, "maps", "data", 1)
    result = cli("gallery export --maps --gallery", gallery, "--out", tmp_path / "e.npz")
    assert_one_line(result, "a/1.jpg: features damaged")
    assert not list(tmp_path.glob("*e.npz*"))


# ---------------------------------------------------------------------------------------------- duplicates


def test_duplicates_tells_the_same_file_from_the_same_photo(cli, bundle, gallery, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "LEAST_SIMILARITY", 0.9999)
    shutil.copy(photos / "a/0.jpg", photos / "b/again.jpg")
    Image.open(photos / "b/4.jpg").save(photos / "b/compressed.jpg", quality=60)
    assert cli("index", photos, "--bundle", bundle, "--gallery", gallery).code == 0
    words = ("--bundle", bundle, "--gallery", gallery, "--html", tmp_path / "d.html")
    found = run(cli, "duplicates", *words)
    assert [[entry["path"] for entry in group] for group in found["exact"]] == [
        [str(photos / "a/0.jpg"), str(photos / "b/again.jpg")]
    ]
    (group,) = found["similar"]
    assert [entry["path"] for entry in group] == [str(photos / "b/4.jpg"), str(photos / "b/compressed.jpg")]
    assert [entry["like"] for entry in group] == [entry["path"] for entry in reversed(group)]
    assert all(entry["score"] >= 0.5 for entry in group)
    page = (tmp_path / "d.html").read_text()
    assert all(name in page for name in ("again.jpg", "compressed.jpg", "The same file", "The same photo"))
    assert page.count("<img ") == 4
    assert "untrained" in page
    assert len(paths(gallery)) == 7  # nothing is removed


def test_what_the_pair_score_does_not_confirm_is_no_duplicate(cli, bundle, gallery, tmp_path):
    words = ("--bundle", bundle, "--gallery", gallery, "--score 1 --html", tmp_path / "d.html")
    found = run(cli, "duplicates", *words)
    assert (found["exact"], found["similar"]) == ([], [])
    assert "No duplicates." in (tmp_path / "d.html").read_text()


def test_duplicates_by_another_model(cli, gallery, tmp_path):
    other = write_bundle(tmp_path / "other", seed=1)
    result = cli("gallery duplicates --gallery", gallery, "--bundle", other)
    assert_one_line(result, "made with another model")


# --------------------------------------------------------------------------------------------------- merge


def test_merge_takes_galleries_together(cli, bundle, photos, gallery, tmp_path):
    assert cli("index", photos / "b", "--bundle", bundle, "--gallery", tmp_path / "b").code == 0
    (tmp_path / "photos/c").mkdir()
    photo(tmp_path / "photos/c/5.jpg", seed=5)
    assert cli("index", photos / "c", "--bundle", bundle, "--gallery", tmp_path / "c").code == 0
    words = ("gallery merge", tmp_path / "b", tmp_path / "c", gallery, "--gallery", tmp_path / "all")
    assert "6 added, 0 updated, 2 unchanged, 6 images now" in cli(*words).out
    assert "0 added, 0 updated, 8 unchanged" in cli(*words).out
    assert paths(tmp_path / "all") == [photos / n for n in ("b/3.jpg", "b/4.jpg", "c/5.jpg", *NAMES[:3])]
    assert run(cli, "verify", "--gallery", tmp_path / "all")["whole"] == 6


@pytest.mark.parametrize("command", ["merge", "convert"])
def test_damaged_images_are_not_copied(cli, gallery, photos, tmp_path, command):
    flip_column(gallery, "maps", "data", 1)
    result = cli("gallery", command, gallery, "--gallery", tmp_path / "all")
    assert_one_line(result, "left out: 1 damaged image")
    assert "4 added" in result.out
    assert f"{photos / 'a/1.jpg'}: checksum differs" in result.out
    assert photos / "a/1.jpg" not in paths(tmp_path / "all")


@pytest.mark.parametrize("target", ["g", "g/inside", "."])
def test_a_gallery_is_not_merged_with_itself(cli, gallery, tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    assert_one_line(cli("gallery merge g --gallery", target), "cannot be copied into itself")
    assert len(paths(gallery)) == 5


def test_galleries_of_other_making_are_not_merged(cli, gallery, tmp_path):
    GalleryWriter(tmp_path / "other", INFO).close()
    for words in (
        (tmp_path / "other", "--gallery", gallery),
        (gallery, tmp_path / "other", "--gallery", tmp_path / "n"),
    ):
        assert_one_line(cli("gallery merge", *words), "made with another model (")
    assert not (tmp_path / "n").exists()


# ----------------------------------------------------------------------------------------------------- ann


def test_a_small_gallery_needs_no_approximate_index(cli, gallery):
    assert_one_line(cli("gallery ann --gallery", gallery), "5 images; expected at least 2,000")
    assert run(cli, "info", "--gallery", gallery)["ann"] is None
    assert "search is exact" in cli("gallery ann --remove --gallery", gallery).out


def test_an_approximate_index_is_kept_told_of_and_taken_away(cli, approximate_gallery, tmp_path, monkeypatch):
    large = shutil.copytree(approximate_gallery, tmp_path / "large")
    there = AnnFile.load(large)
    trial = Trial(there.about.effort, np.array([0.9, 1.0]), 0)
    monkeypatch.setattr(ann, "build", lambda *_: Built(there.file, trial))  # once a session is enough
    assert cli("gallery ann --recall 0.9 --gallery", large).code == 0
    made = run(cli, "info", "--gallery", large)["ann"]
    assert (made["images"], made["wanted"], made["recall"], made["queries"]) == (2400, 0.9, 0.95, 2)
    shown = cli("gallery info --gallery", large).out
    assert "2,400 images, recall@100 0.9500 ± 0.0500, measured with 2 of its images" in shown
    assert cli("gallery ann --remove --gallery", large).code == 0
    assert run(cli, "info", "--gallery", large)["ann"] is None
    assert not (large / ANN).exists()
    assert "approximate index" in cli("gallery info --gallery", large).out


# ------------------------------------------------------------------------------------------------- convert


def test_convert_compresses_the_maps(cli, gallery, tmp_path):
    small = tmp_path / "small"
    words = ("gallery convert", gallery, "--gallery", small)
    assert "5 added" in cli(*words).out
    facts = run(cli, "info", "--gallery", small)
    assert (facts["maps"], facts["images"]) == ("coded:24", len(NAMES))
    assert "map compression" in cli("gallery info --gallery", small).out
    assert "5 unchanged" in cli(*words).out
    assert "map compression" not in cli("gallery info --gallery", gallery).out
