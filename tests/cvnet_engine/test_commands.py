"""Results of `index`, `search` and `eval` on images of all kinds."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cvnet_engine.commands.build import sizes_in
from cvnet_engine.engine.bundle import Bundle, write_manifest
from cvnet_engine.engine.errors import ImageError
from cvnet_engine.engine.gallery.ann_file import ANN
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.retrieval.engines import Engines
from tests.bundles import copy_bundle
from tests.cvnet_engine.program import assert_one_line
from tests.pictures import encode, oriented, photo, picture

PROGRAM = [sys.executable, "-m", "cvnet_engine"]


HIT = {"rank", "path", "score", "similarity", "refined", "rerank_score", "pooled_score", "before"}


@pytest.fixture(scope="module")
def odd_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that are unusual and good."""
    folder = tmp_path_factory.mktemp("odd")
    image = Image.fromarray(picture(64, 80))
    deep = np.random.default_rng(0).integers(0, 1 << 16, (64, 80, 3), dtype=np.uint16)
    files = {
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(image.convert("L"), "JPEG"),
        "grey16.png": cv2.imencode(".png", deep[:, :, 0])[1].tobytes(),
        "rgb16.png": cv2.imencode(".png", deep)[1].tobytes(),
        "alpha.png": encode(image.convert("RGBA"), "PNG"),
        "palette.png": encode(image.quantize(16), "PNG", transparency=bytes(range(16))),
        "rotated.jpg": encode(image, "JPEG", exif=oriented(6)),
        "damaged exif.jpg": encode(image, "JPEG", exif=oriented(6)[:-30]),
        "animated.gif": encode(image.quantize(16), "GIF", save_all=True, append_images=[image.rotate(90).quantize(16)]),
        "jpeg called.png": encode(image, "JPEG"),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    photo(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")))
    photo(folder / "caf\u00e9 \u65e5\u672c.jpg")
    photo(folder / "17x17.jpg", 17, 17)
    return folder


def test_build_reads_sizes_of_a_folder_as_index_shrinks_them(bad_photos, tmp_path):
    for n, size in enumerate([(60, 80), (120, 160), (300, 300)]):
        photo(tmp_path / f"{n}.jpg", *size)
    assert sizes_in(tmp_path, 80) == [(60, 80), (80, 80)]
    assert sizes_in(tmp_path, None) == [(60, 80), (120, 160), (300, 300)]
    (tmp_path / "bad").mkdir()
    shutil.copy(bad_photos / "text.jpg", tmp_path / "bad")
    with pytest.raises(ImageError, match="no readable image"):
        sizes_in(tmp_path / "bad", None)


def test_index_reads_unusual_images_and_reports_bad_ones(bundle, odd_photos, bad_photos, tmp_path):
    options = ["--bundle", bundle, "--gallery", tmp_path / "g", "--json", tmp_path / "i.json"]
    done = subprocess.run([*PROGRAM, "index", odd_photos, bad_photos, *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads((tmp_path / "i.json").read_text())
    assert (results["added"], results["updated"], results["unchanged"]) == (13, 0, 0)
    assert {Path(path).name for path in results["failed"]} == {path.name for path in bad_photos.iterdir()}
    assert "6 unreadable" in done.stdout
    assert len(Gallery(tmp_path / "g")) == 13

    # their names are no trouble to search either, whatever the terminal can show
    options = ["--bundle", bundle, "--gallery", tmp_path / "g", "--rerank", "2", "--html", tmp_path / "s.html"]
    query = odd_photos / "caf\u00e9 \u65e5\u672c.jpg"
    done = subprocess.run(
        [*PROGRAM, "search", query, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\u00e9" in (tmp_path / "s.html").read_text()


def test_index_lists_skipped_files(cli, bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    photo(tmp_path / "photos.jpg")
    for name in ("a.HEIC", "b.heic", "c.jxl", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    where = ("--bundle", bundle, "--gallery", tmp_path / "g", "--json", tmp_path / "i.json")
    result = cli("index", tmp_path, *where)
    assert (result.code, result.err) == (0, "")
    assert "  2 passed over: HEIC photos need pillow_heif: run pip install '.[photos]' or uv sync" in result.out
    assert "  2 passed over: not an image by its name\n" in result.out
    skipped = json.loads((tmp_path / "i.json").read_text())["skipped"]
    assert {Path(path).name for path in skipped} == {"a.HEIC", "b.heic", "c.jxl", "notes.txt", ".hidden"}
    assert skipped[str(tmp_path / "notes.txt")] == "not an image by its name"


def test_index_of_unreadable_images_only_fails(cli, bundle, bad_photos, tmp_path):
    result = cli("index", bad_photos, "--bundle", bundle, "--gallery", tmp_path / "g", "--json", tmp_path / "i.json")
    assert_one_line(result, "none of 6 images could be read")
    assert len(json.loads((tmp_path / "i.json").read_text())["failed"]) == 6


def test_compressed_maps_change_pair_scores_a_little(cli, bundle, data, gallery, query, tmp_path):
    command = ("index", data, "--bundle", bundle, "--gallery", tmp_path / "g")
    result = cli(*command, "--maps coded:64 --json", tmp_path / "i.json")
    assert result.code == 0, result.err
    assert 0 < json.loads((tmp_path / "i.json").read_text())["score_drift"] < 0.1
    assert "compressed maps change pair scores by at most" in result.out
    assert cli(*command).code == 0  # the gallery keeps its kind
    assert_one_line(cli(*command, "--maps float16"), "made with --maps coded:64; got float16")
    scores = []
    for folder in (gallery, tmp_path / "g"):
        searched = ("search", query, "--bundle", bundle, "--gallery", folder, "--json", tmp_path / "s.json")
        assert cli(*searched).code == 0
        (found,) = json.loads((tmp_path / "s.json").read_text())
        scores.append({Path(hit["path"]).name: hit["rerank_score"] for hit in found["results"]})
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
    assert scores[0] != scores[1]


def test_search_writes_json_and_html(cli, bundle, gallery, data, query, tmp_path):
    files = ("--json", tmp_path / "s.json", "--html", tmp_path / "s.html")
    second = sorted((data / "tiny" / "jpg").iterdir())[3]
    result = cli("search", query, second, "--bundle", bundle, "--gallery", gallery, "--rerank 4 --top-k 7", *files)
    assert (result.code, result.err) == (0, "")
    found = json.loads((tmp_path / "s.json").read_text())
    assert [entry["query"] for entry in found] == [str(query), str(second)]
    for entry in found:
        hits = entry["results"]
        assert [set(hit) for hit in hits] == [HIT] * 7
        assert [hit["rank"] for hit in hits] == list(range(1, 8))
        assert all(hit["score"] == pytest.approx(hit["similarity"] + 0.5 * hit["rerank_score"]) for hit in hits[:4])
        assert all(hit["rerank_score"] is None and hit["score"] == hit["similarity"] for hit in hits[4:])
        assert max(hits, key=lambda hit: hit["similarity"])["path"] == entry["query"]
        assert all(Path(hit["path"]).is_file() for hit in hits)
    page = (tmp_path / "s.html").read_text()
    assert query.name in page
    assert "2 queries in a gallery of 10 images" in page
    assert "untrained" in page


def test_a_bad_query_does_not_stop_the_others(cli, bundle, gallery, query, bad_photos, tmp_path):
    bad, second = bad_photos / "text.jpg", bad_photos / "absent.jpg"
    files = ("--rerank 2 --json", tmp_path / "s.json", "--html", tmp_path / "s.html")
    result = cli("search", bad, query, second, "--bundle", bundle, "--gallery", gallery, *files)
    assert_one_line(result, f"{bad}: not an image", f"{second}: cannot be read")
    assert "rerank of 2 pairs " in result.out
    failed, found, absent = json.loads((tmp_path / "s.json").read_text())
    assert (failed["query"], failed["results"]) == (str(bad), [])
    assert "not an image" in failed["error"]
    assert (found["query"], len(found["results"])) == (str(query), 10)
    assert "No such file" in absent["error"]
    assert query.name in (tmp_path / "s.html").read_text()


def test_a_query_too_large_for_the_memory_is_named(cli, bundle, gallery, query, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Engines, "extract_from", full)
    result = cli("search", query, "--bundle", bundle, "--gallery", gallery)
    assert_one_line(result, f"{query}: out of memory; shrink it first")


def test_index_repairs_a_damaged_gallery(cli, bundle, gallery, query, data, tmp_path):
    path = tmp_path / "g"
    shutil.copytree(gallery, path)
    with sqlite3.connect(path / "shard-00000.sqlite") as shard:
        shard.execute("DELETE FROM images WHERE id = 3")
        shard.execute("DELETE FROM maps WHERE image = 5 AND scale = 1")
    shard.close()
    search = ("search", query, "--bundle", bundle, "--gallery", path)
    assert_one_line(cli(*search), "features damaged in the gallery", "run 'cvnet-engine index'")
    mended = cli("index", data / "tiny" / "jpg", "--bundle", bundle, "--gallery", path)
    assert (mended.code, mended.err) == (0, "")
    assert "lost from shard-00000.sqlite: 1 image, damaged maps: 1 image; those of its images" in mended.out
    assert "1 added, 1 updated, 8 unchanged" in mended.out
    assert cli(*search).code == 0


def test_eval_adds_distractors_to_a_kept_gallery(cli, bundle, data, odd_photos, tmp_path):
    (tmp_path / "more.txt").write_text(f"{odd_photos / 'grey.jpg'}\n{odd_photos / 'rotated.jpg'}\n")
    shared = ("eval --dataset tiny --rerank 0 --data-dir", data, "--bundle", bundle, "--gallery", tmp_path / "g")
    sizes = []
    for more in ((), ("--distractors", tmp_path / "more.txt")):
        assert cli(*shared, *more, "--json", tmp_path / "e.json").code == 0
        content = json.loads((tmp_path / "e.json").read_text())
        sizes.append((content["n"], len(Gallery(tmp_path / "g"))))
        assert content["rerank"] == {}
    assert sizes == [(7, 7), (9, 9)]


def test_descriptors_of_two_kinds_are_never_mixed(cli, bundle, gallery, data, query, tmp_path):
    """Only the descriptor differs. Either kind is reranked with pair scores."""
    superglobal = copy_bundle(bundle, tmp_path / "superglobal")
    write_manifest(replace(Bundle(bundle).manifest, descriptor="superglobal"), superglobal)
    of_superglobal = ("--bundle", superglobal, "--gallery", tmp_path / "g")
    assert cli("index", data / "tiny" / "jpg", *of_superglobal).code == 0
    assert Gallery(tmp_path / "g").info.descriptor == "superglobal"
    assert cli("search", query, *of_superglobal, "--rerank 3 --rerank-with both").code == 0
    words = "has descriptors of SuperGlobal; the bundle computes CVNet's"
    assert_one_line(cli("search", query, "--bundle", bundle, "--gallery", tmp_path / "g"), words)
    words = "has descriptors of CVNet; the bundle computes SuperGlobal's"
    assert_one_line(cli("index", query, "--bundle", superglobal, "--gallery", gallery), words)


@pytest.mark.parametrize(("method", "scored"), [("cvnet", 3), ("superglobal", 0), ("both", 3)])
def test_search_reranks_with_the_given_method(cli, bundle, gallery, query, tmp_path, method, scored):
    file = tmp_path / "found.json"
    where = ("--bundle", bundle, "--gallery", gallery, "--json", file)
    assert cli("search", query, *where, "--rerank 3 --rerank-with", method).code == 0
    (found,) = json.loads(file.read_text())
    assert len(found["results"]) == 10
    assert sum(result["rerank_score"] is not None for result in found["results"]) == scored
    assert sum(result["refined"] is not None for result in found["results"]) == {"cvnet": 0, "superglobal": 3}.get(
        method, 10
    )


def test_the_approximate_index_is_opened_only_if_needed(cli, bundle, gallery, query, tmp_path):
    copy = shutil.copytree(gallery, tmp_path / "g")
    (copy / ANN).touch()  # a damaged one, of which a note tells
    (tmp_path / "lists").write_text(f"{query}\n")
    command = ("search --rerank 0 --bundle", bundle, "--gallery", copy, query)
    for some in (("--filter", f"name={query.name}"), ("--candidates", tmp_path / "lists"), ("--exact",)):
        done = cli(*command, *some)
        assert (done.code, ANN in done.err) == (0, False), some
    assert ANN in cli(*command).err


def test_search_marks_candidates_scored_at_full_resolution(cli, bundle, gallery, query, tmp_path):
    file, page = tmp_path / "found.json", tmp_path / "found.html"
    where = ("--bundle", bundle, "--gallery", gallery, "--json", file, "--html", page)
    assert cli("search", query, *where, "--top-k 6 --rerank 5 --rerank-full 2").code == 0
    (found,) = json.loads(file.read_text())
    known = [[result[kind] is not None for result in found["results"]] for kind in ("rerank_score", "pooled_score")]
    assert known == [[True] * 2 + [False] * 4, [True] * 5 + [False]]
    assert page.read_text().count("<dt>pooled</dt>") == 5


def test_eval_reports_coarse_to_fine_reranking(cli, bundle, data, tmp_path):
    file = tmp_path / "figures.json"
    where = ("--bundle", bundle, "--data-dir", data, "--dataset tiny", "--json", file)
    outcome = cli("eval", *where, "--rerank 5 --rerank-full 2")
    assert outcome.code == 0
    assert "2 of a shortlist are scored in full" in outcome.out
    figures = json.loads(file.read_text())
    assert figures["rerank_full"] == 2
    assert 0 < figures["pairs"] < figures["pooled_pairs"]
    assert "scored in full" not in cli("eval", *where, "--rerank 5 --rerank-full 5").out  # which is as published


def test_eval_with_superglobal_scores_no_pairs(cli, bundle, data, tmp_path):
    file = tmp_path / "figures.json"
    where = ("--bundle", bundle, "--data-dir", data, "--dataset tiny", "--json", file)
    assert cli("eval", *where, "--rerank 5 --rerank-with superglobal").code == 0
    figures = json.loads(file.read_text())
    assert figures["rerank_with"] == "superglobal"
    assert figures["pairs"] == 0
    assert set(figures["rerank"]) == {"5"}
