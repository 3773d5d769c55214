"""`search` in a pipe: what it reads from standard input and files, and what it prints there and nowhere else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cvnet_engine import Bundle, index
from cvnet_engine.cli import main
from tests.pictures import photo

Program = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos in two folders, by turns; the name of the last is no text and has a tab in it."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("abbey", "harbour"):
        (folder / name).mkdir()
    names = [f"{seed}.jpg" for seed in range(5)] + [os.fsdecode(b"\xff\t.jpg")]
    return [photo(folder / ("abbey", "harbour")[n % 2] / name, seed=n) for n, name in enumerate(names)]


@pytest.fixture(scope="module")
def gallery(bundle: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    index(*photos, bundle=Bundle.open(bundle), gallery=folder)
    return folder


@pytest.fixture
def search(bundle: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary) -> Program:
    """Runs `search` in the gallery of the photos."""

    def run(*words: object, piped: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["search", *map(str, words), "--bundle", str(bundle), "--gallery", str(gallery)]
        monkeypatch.setattr("sys.argv", ["cvnet-engine", *command])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
        with pytest.raises(SystemExit) as stopped:
            main()
        return subprocess.CompletedProcess(command, stopped.value.code or 0, *capfdbinary.readouterr())

    return run


def test_the_program_reads_and_writes_bytes_in_a_pipe(bundle, gallery, photos):
    where = ["--bundle", bundle, "--gallery", gallery, "--rerank", "0", "--format", "paths"]
    command = [sys.executable, "-m", "cvnet_engine", "search", "-", *where]
    done = subprocess.run(command, input=photos[5].read_bytes(), capture_output=True)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == sorted(map(os.fsencode, photos))


def test_paths_are_alone_on_standard_output_byte_for_byte(search, photos):
    done = search(photos[5], "--format", "paths", "--rerank", 0)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == sorted(map(os.fsencode, photos))
    assert done.stdout.splitlines()[0] == os.fsencode(photos[5])
    assert b"global search of 6 images" in done.stderr
    assert b"untrained" in done.stderr
    ended = search(photos[5], "--format", "paths0", "--rerank", 0)
    assert ended.stdout == done.stdout.replace(b"\n", b"\0")


def test_values_are_separated_by_tabs(search, photos):
    done = search(photos[0], photos[1], "--format", "tsv", "--rerank", 2, "--top-k", 6)
    header, *lines = (line.split(b"\t") for line in done.stdout.splitlines())
    assert header == [b"query", b"rank", b"score", b"similarity", b"rerank_score", b"before", b"path"]
    assert len(lines) == 12
    assert {len(line) for line in lines} == {len(header)}
    assert [line[0] for line in lines] == [os.fsencode(photos[0])] * 6 + [os.fsencode(photos[1])] * 6
    assert [line[1] for line in lines[:6]] == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert [bool(line[4]) for line in lines[:6]] == [True, True, False, False, False, False]


def test_json_is_what_the_file_would_hold(search, photos, tmp_path):
    done = search(photos[0], "--format", "json", "--rerank", 0, "--json", tmp_path / "s.json")
    assert done.stdout == (tmp_path / "s.json").read_bytes()
    (entry,) = json.loads(done.stdout)
    assert entry["results"][0]["path"] == str(photos[0])


def test_an_image_is_read_from_standard_input(search, photos, tmp_path):
    page = tmp_path / "s.html"
    piped = search("-", "--format", "paths", "--html", page, piped=photos[3].read_bytes())
    assert piped.stdout == search(photos[3], "--format", "paths").stdout
    assert page.read_text().count("data:image/jpeg") == 7  # the query's picture, too
    assert "1 query in a gallery of 6 images" in page.read_text()
    failed = search("-", photos[0], "--format", "paths", "--rerank", 0)
    assert failed.returncode == 1
    assert b"error: standard input: not an image" in failed.stderr
    assert len(failed.stdout.splitlines()) == 6  # of the other


def test_a_gallery_image_is_a_query(search, photos):
    done = search("--similar-to", photos[2], "--similar-to", photos[3], "--format", "json")
    for entry, path in zip(json.loads(done.stdout), photos[2:4], strict=True):
        assert entry["query"] == str(path)
        assert {hit["path"] for hit in entry["results"]} | {str(path)} >= set(map(str, photos[:5]))
        assert len(entry["results"]) == 5
        assert str(path) not in {hit["path"] for hit in entry["results"]}
    boxed = search("--similar-to", photos[2], "--bbox", "0,0,40,40")
    assert boxed.returncode == 1
    assert b"stored features cover the whole image" in boxed.stderr


def test_shortlists_and_filters(search, photos, tmp_path):
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({str(photos[0]): [str(photos[4]), str(photos[1])], str(photos[1]): [str(photos[2])]}))
    done = search(*photos[:3], "--candidates", lists, "--format", "json")
    first, second, third = json.loads(done.stdout)
    assert {hit["path"]: hit["before"] for hit in first["results"]} == {str(photos[4]): 1, str(photos[1]): 2}
    assert None not in [hit["rerank_score"] for hit in first["results"]]
    assert [hit["path"] for hit in second["results"]] == [str(photos[2])]
    assert "no candidates" in third["error"]
    filtered = search(photos[0], "--filter", f"folder={photos[1].parent}", "--filter", "name=3.J", "--format", "paths")
    assert filtered.stdout == os.fsencode(photos[3]) + b"\n"
    nothing = search(photos[0], "--filter", "name=nothing", "--format", "paths")
    assert (nothing.returncode, nothing.stdout) == (0, b"")
    assert os.fsencode(photos[0]) + b": no gallery image is left by --filter or --candidates\n" in nothing.stderr
    assert b"similarity" not in search(photos[0], "--filter", "name=nothing").stdout  # a table of nothing
    (tmp_path / "unknown.txt").write_text(f"{photos[0]}\n/nowhere.jpg")
    unknown = search(photos[0], "--candidates", tmp_path / "unknown.txt")
    assert (unknown.returncode, unknown.stdout) == (1, b"")
    assert unknown.stderr.startswith(b"error: /nowhere.jpg: not in ")
