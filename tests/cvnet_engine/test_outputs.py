"""Files for results: they never overwrite inputs, and standard output holds nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from cvnet_engine.cli import app
from tests.cvnet_engine.program import assert_one_line

PROGRAM = [sys.executable, "-m", "cvnet_engine"]


GALLERY = get_command(app).commands["gallery"].commands


NAMED = {
    "search": "search query.jpg --bundle b --gallery g --similar-to photos/0.jpg --candidates more.txt",
    "index": "index query.jpg photos --bundle b --gallery g",
    "eval": "eval --dataset tiny --data-dir . --bundle b --against b2 --gallery g --distractors more.txt",
    "bench": "bench --bundle b --bundle b2 --compare old.json",
    "doctor": "doctor",
    "gallery info": "gallery info --gallery g",
    "gallery list": "gallery list --gallery g",
    "gallery verify": "gallery verify --gallery g",
    "gallery export": "gallery export --gallery g --out new.npz",
    "gallery duplicates": "gallery duplicates --bundle b --gallery g",
}  # a good command line of every command that writes results, once `inputs` are there


OVERWRITING = {
    "search": ["query.jpg", "photo", "photos/0.jpg", "more.txt", "b/new.json", "g", "g/gallery.json", "linked/g.json"],
    "index": ["query.jpg", "photos/0.jpg", "b/manifest.json", "g/gallery.json"],
    "eval": ["tiny/gnd_tiny.pkl", "more.txt", "b/manifest.json", "b2/reranker.onnx", "g/evaluation.sqlite"],
    "bench": ["old.json", "b/manifest.json", "b2/../b2/reranker.onnx"],
    "doctor": ["query.jpg"],
    **{
        f"gallery {command}": ["g/gallery.json", "g/new.json", "linked/gallery.json"]
        for command in ("info", "list", "verify", "export")
    },
    "gallery duplicates": ["g/gallery.json", "b/manifest.json"],
}


REFUSED = "would take the place of|is within|in each other's place|results are text|cannot be written; choose a file in"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """The files that `NAMED` names, in the current folder; their contents."""
    monkeypatch.chdir(tmp_path)
    within = ("b/manifest.json", "b2/reranker.onnx", "g/gallery.json", "g2/gallery.json")
    within += ("photos/0.jpg", "tiny/gnd_tiny.pkl")
    for file in map(Path, (*within, "query.jpg", "more.txt", "old.json", "w.pyth")):
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"precious {file}")
    Path("photo").hardlink_to("query.jpg")
    Path("linked.json").symlink_to("query.jpg")
    Path("linked").symlink_to("g")
    return {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}


def result_options() -> list[tuple[str, str]]:
    """Every command with each of its options that names a file for results."""
    commands = get_command(app).commands | {f"gallery {n}": c for n, c in GALLERY.items()}
    return [
        (name, option)
        for name, command in commands.items()
        for parameter in command.params
        for option in parameter.opts
        if option in ("--json", "--html", "--markdown", "--plot") or (name, option) == ("gallery export", "--out")
    ]


def test_every_command_that_writes_results_is_covered():
    assert {command for command, _ in result_options()} == NAMED.keys() == OVERWRITING.keys()


@pytest.mark.parametrize(("command", "option"), result_options())
def test_results_never_overwrite_inputs(cli, inputs, command, option):
    for target in (*OVERWRITING[command], "linked.json"):
        if option in ("--plot", "--out") and target == "linked.json":
            continue  # a figure may be called what an image is
        result = cli(NAMED[command], option, target)
        assert_one_line(result, target)
        assert re.search(REFUSED, result.err), target
        assert {file: file.read_bytes() for file in inputs} == inputs, target
        assert not Path("b/new.json").exists()


def test_only_results_go_to_standard_output(cli, bundle, gallery, query):
    doctor = cli("doctor --json -")
    assert json.loads(doctor.out)["cpus"] >= 1
    assert "Machine" in doctor.err
    result = cli("search", query, "--bundle", bundle, "--gallery", gallery, "--rerank 0 --json -")
    assert [entry["query"] for entry in json.loads(result.out)] == [str(query)]
    assert "global search of 10 images" in result.err
    assert "Machine" in cli("doctor").out


def test_a_closed_output_pipe_ends_quietly():
    with subprocess.Popen([*PROGRAM, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
