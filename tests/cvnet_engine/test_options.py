"""Options of every command: help, wrong usage, and defaults of presets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.main import get_command

from cvnet_engine.cli import app, show_note
from cvnet_engine.engine.errors import CvnetError, CvnetWarning
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.presets import PresetName
from cvnet_engine.engine.retrieval.searcher import RerankWith
from cvnet_engine.options import PresetOption, RerankWithOption
from tests.cvnet_engine.program import assert_one_line
from tests.pictures import photo

COMMANDS = sorted(get_command(app).commands)


GALLERY = get_command(app).commands["gallery"].commands


@pytest.mark.parametrize("command", ["", *COMMANDS, *(f"gallery {command}" for command in GALLERY)])
def test_every_command_has_help(cli, command):
    result = cli(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert "Usage: " in result.out
    listed = {"": COMMANDS, "gallery": GALLERY}.get(command, [])
    assert all(name in result.out for name in listed)


def test_parameters_are_at_most_110():
    def parameters(command: Any) -> int:
        below = sum(map(parameters, getattr(command, "commands", {}).values()))
        return below + sum(parameter.name != "_version" for parameter in command.params)

    assert parameters(get_command(app)) <= 110


def test_help_imports_nothing_heavy():
    code = "import sys; from cvnet_engine.cli import app; app(standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], check=True, capture_output=True, text=True)
    assert "typer" in done.stdout.split()
    assert not {"numpy", "PIL", "cv2", "faiss", "onnxruntime", "openvino", "torch"} & set(done.stdout.split())


def test_notes_are_one_line(capsys):
    show_note(CvnetWarning("done\notherwise"), CvnetWarning, "some/file.py", 7)
    assert capsys.readouterr().err == "note: done otherwise\n"


@pytest.mark.parametrize(
    "command",
    [
        "nonsense",
        "--nonsense",
        "search",
        "search a.jpg",
        "search a.jpg --bundle b",
        "search a.jpg --bundle b --gallery g --top-k 0",
        "search a.jpg --bundle b --gallery g --top-k many",
        "search a.jpg --bundle b --gallery g --rerank -1",
        "search a.jpg --bundle b --gallery g --threads 0",
        "search a.jpg --bundle b --gallery g --threads 100000",
        "search a.jpg --bundle b --gallery g --bbox",
        "search a.jpg --bundle b --gallery g --format xml",
        "search --bundle b --gallery g",
        "index --bundle b --gallery g",
        "index a.jpg --bundle b --gallery g --max-side -1",
        "index a.jpg --bundle b --gallery g --max-side 10.5",
        "index a.jpg --bundle b --gallery g --runner slurm",
        "index a.jpg --bundle b --gallery g --workers 2",
        "index a.jpg --bundle b --gallery g --runner ray --workers 0",
        "eval --data-dir d --bundle b",
        "eval --dataset d --data-dir d --bundle b --runner slurm:1",
        "build --weights seeded --depth fifty --out o",
        "build --depth 50 --out o",
        "doctor extra",
        "search x.jpg --bundle b --gallery g --rerank-with magic",
    ],
)
def test_bad_usage_ends_with_code_2(cli, command):
    result = cli(command)
    assert result.code == 2
    assert "Error" in result.err
    assert "Traceback" not in result.err


class StoppedError(CvnetError):
    """Ends a command once it has decided on its settings."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("fp32", [(768, 1024)])),
        ("--preset fast --sizes photos", ("int8", [(384, 512)])),
        ("--precision bf16 --sizes photos", ("bf16", [(768, 1024)])),
    ],
)
def test_build_uses_the_presets_defaults(cli, tmp_path, monkeypatch, options, expected):
    def build(settings: object, *_: object) -> None:
        assert (settings.precision, settings.sizes) == expected
        raise StoppedError("settings are as expected")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cvnet_engine.export.build.build", build)
    Path("photos").mkdir()
    photo(Path("photos/1.jpg"), 768, 1024)
    assert_one_line(cli("build --weights seeded --depth 50 --out b", options), "settings are as expected")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", (1024, "float16", (0.7071, 1.0, 1.4142))),
        ("--preset fast", (512, "coded:16", (1.0,))),
        ("--preset fast --max-side 0 --maps float16 --scales 0.7071,1", (None, "float16", (0.7071, 1.0))),
    ],
)
def test_index_uses_the_presets_defaults(cli, bundle, query, tmp_path, monkeypatch, options, expected):
    def made_with(_: object, *settings: object) -> None:
        assert settings[:2] == expected[:2]
        assert settings[2] == pytest.approx(expected[2], abs=1e-4)
        raise StoppedError("settings are as expected")

    monkeypatch.setattr(GalleryInfo, "made_with", made_with)
    words = ("index", query, "--bundle", bundle, "--gallery", tmp_path / "g", options)
    assert_one_line(cli(*words), "settings are as expected")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ((100,), "cvnet", None)),
        ("--preset fast", ((100,), "cvnet", 20)),
        ("--preset fast --rerank-full 50 --rerank 0", ((), "cvnet", 50)),
        ("--preset fast --rerank-with superglobal", ((100,), "superglobal", None)),
    ],
)
def test_eval_uses_the_presets_defaults(cli, bundle, data, monkeypatch, options, expected):
    def task(_: object, shortlists: object, method: object, rerank_full: object) -> None:
        assert (shortlists, method, rerank_full) == expected
        raise StoppedError("settings are as expected")

    monkeypatch.setattr("cvnet_engine.commands.evaluate.Task", task)
    words = ("eval --dataset tiny --data-dir", data, "--bundle", bundle, options)
    assert_one_line(cli(*words), "settings are as expected")


def test_choices_of_options_equal_those_of_the_engine():
    """The options repeat them, because importing the engine would make `--help` slow."""
    for option, names in ((PresetOption, PresetName), (RerankWithOption, RerankWith)):
        assert get_args(get_args(get_args(option)[0])[0]) == get_args(names)


def test_doctor_reports_the_machine(cli, tmp_path):
    result = cli("doctor --json", tmp_path / "d.json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads((tmp_path / "d.json").read_text())
    assert facts["cpus"] >= 1
    assert facts["libraries"]["numpy"] == np.__version__
    assert facts["cpu"] in result.out
