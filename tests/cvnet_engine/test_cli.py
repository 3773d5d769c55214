"""The program as its users meet it: good input gives results, bad input one line and exit code 1, bad usage 2."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command

from cvnet_engine.cli import app, show_note
from cvnet_engine.commands.build import sizes_in
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.bundle import Bundle, write_manifest
from cvnet_engine.engine.errors import CvnetError, CvnetWarning, ImageError
from cvnet_engine.engine.gallery.ann_file import ANN
from cvnet_engine.engine.gallery.info import GalleryInfo
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.engine.presets import PresetName
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.searcher import RerankWith
from cvnet_engine.options import PresetOption, RerankWithOption
from scenes import SceneSet, write
from tests.bundles import copy_bundle
from tests.cvnet_engine.program import Result, assert_one_line
from tests.engine.disks import fill, make_readonly, small_disk
from tests.galleries import INFO, STAMP, features
from tests.pictures import encode, oriented, photo, picture, png

PROGRAM = [sys.executable, "-m", "cvnet_engine"]
# The program, interrupted as soon as it has stored its third image.
INTERRUPTED = """
import os, signal
from cvnet_engine.engine.gallery.writer import GalleryWriter
put, stored = GalleryWriter.put, []
def put_and_interrupt(*arguments):
    put(*arguments)
    stored.append(1)
    if len(stored) == 3:
        os.kill(os.getpid(), signal.SIGINT)
GalleryWriter.put = put_and_interrupt
from cvnet_engine.cli import main
main()
"""
COMMANDS = sorted(get_command(app).commands)
GALLERY = get_command(app).commands["gallery"].commands
HIT = {"rank", "path", "score", "similarity", "refined", "rerank_score", "pooled_score", "before"}
TINY = SceneSet("tiny", seed=3, scenes=3, views=3, distractors=1, size=(96, 128))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA_DIR with the generated set `tiny`: 3 queries, 7 database images."""
    folder = tmp_path_factory.mktemp("data")
    write(TINY, folder)
    return folder


@pytest.fixture(scope="module")
def gallery(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of all 10 images of `tiny`."""
    folder = tmp_path_factory.mktemp("gallery") / "g"
    command = ["index", str(data / "tiny" / "jpg"), "--bundle", str(bundle), "--gallery", str(folder)]
    subprocess.run([*PROGRAM, *command], check=True, capture_output=True)
    return folder


@pytest.fixture
def query(data: Path) -> Path:
    return sorted((data / "tiny" / "jpg").iterdir())[0]


# ---------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize("command", ["", *COMMANDS, *(f"gallery {command}" for command in GALLERY)])
def test_help(cli, command):
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


def test_help_loads_nothing_heavy():
    """What makes it come in under half a second."""
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
    ],
)
def test_bad_usage(cli, command):
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
def test_build_takes_from_the_preset_what_is_not_given(cli, tmp_path, monkeypatch, options, expected):
    def build(*arguments: object) -> None:
        assert arguments[4:6] == expected
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
def test_index_takes_from_the_preset_what_is_not_given(cli, bundle, query, tmp_path, monkeypatch, options, expected):
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
def test_eval_takes_from_the_preset_what_is_not_given(cli, bundle, data, monkeypatch, options, expected):
    def task(_: object, shortlists: object, method: object, rerank_full: object) -> None:
        assert (shortlists, method, rerank_full) == expected
        raise StoppedError("settings are as expected")

    monkeypatch.setattr("cvnet_engine.commands.evaluate.Task", task)
    words = ("eval --dataset tiny --data-dir", data, "--bundle", bundle, options)
    assert_one_line(cli(*words), "settings are as expected")


def test_options_name_what_there_is_to_choose_from():
    """They are spelt out, since importing what has them would make `--help` slow."""
    for option, names in ((PresetOption, PresetName), (RerankWithOption, RerankWith)):
        assert get_args(get_args(get_args(option)[0])[0]) == get_args(names)


def test_doctor(cli, tmp_path):
    result = cli("doctor --json", tmp_path / "d.json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads((tmp_path / "d.json").read_text())
    assert facts["cpus"] >= 1
    assert facts["libraries"]["numpy"] == np.__version__
    assert facts["cpu"] in result.out


# -------------------------------------------------------------------------------------------- output files


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("name", ["absent/out", "folder", "file/out"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(cli, tmp_path, option, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    result = cli("search q.jpg --bundle absent --gallery absent", option, tmp_path / name)
    assert_one_line(result, f"{tmp_path / name}: cannot be written")


@pytest.mark.parametrize("command", ["doctor", "doctor --json /dev/full"])
def test_a_full_disk_under_the_output(command):
    with Path("/dev/full").open("w") as full:
        stdout = full if command == "doctor" else subprocess.PIPE
        done = subprocess.run([*PROGRAM, *command.split()], stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert_one_line(Result(done.returncode, "", done.stderr), "No space left on device")


def test_a_reader_that_goes_away_is_no_traceback():
    with subprocess.Popen([*PROGRAM, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


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


def test_every_command_that_writes_results_is_tried():
    assert {command for command, _ in result_options()} == NAMED.keys() == OVERWRITING.keys()


@pytest.mark.parametrize(("command", "option"), result_options())
def test_results_never_take_the_place_of_what_is_read_or_kept(cli, inputs, command, option):
    for target in (*OVERWRITING[command], "linked.json"):
        if option in ("--plot", "--out") and target == "linked.json":
            continue  # a figure may be called what an image is
        result = cli(NAMED[command], option, target)
        assert_one_line(result, target)
        assert re.search(REFUSED, result.err), target
        assert {file: file.read_bytes() for file in inputs} == inputs, target
        assert not Path("b/new.json").exists()


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize(
    "words",
    [
        "search query.jpg --bundle b --gallery g --json out --html out",
        "search query.jpg --bundle b --gallery g --json - --html -",
        "search query.jpg --bundle b --gallery g --json - --format paths",
        "bench --bundle b --json out.md --markdown ./out.md",
    ],
)
def test_two_results_need_two_places(cli, words):
    assert_one_line(cli(words), "in each other's place; give each its own")


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("words", ["--weights b/w.pyth", "--weights demo --calibration b"])
def test_a_bundle_replaces_nothing_that_it_is_built_from(cli, words):
    Path("b/w.pyth").touch()
    assert_one_line(cli("build --depth 50 --out b", words), "--out b: would take the place of b")


def test_results_on_standard_output_are_alone_there(cli, bundle, gallery, query):
    doctor = cli("doctor --json -")
    assert json.loads(doctor.out)["cpus"] >= 1
    assert "Machine" in doctor.err
    result = cli("search", query, "--bundle", bundle, "--gallery", gallery, "--rerank 0 --json -")
    assert [entry["query"] for entry in json.loads(result.out)] == [str(query)]
    assert "global search of 10 images" in result.err
    assert "Machine" in cli("doctor").out


# ------------------------------------------------------------------------------------------------ interruption

# The program, interrupted when it first imports a module (argument 1), or when Python ends.
INTERRUPTED_AT = """
import atexit, os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == moment:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

moment = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupt())
if moment == "end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
runpy.run_module("cvnet_engine", run_name="__main__")
"""


@pytest.mark.parametrize(
    "moment", ["typer", "cvnet_engine.engine.backends", "rich", "numpy", "cv2", "onnxruntime", "end"]
)
def test_an_interruption_is_one_line_at_any_moment(bundle, gallery, query, moment):
    search = ["search", query, "--bundle", bundle, "--gallery", gallery, "--rerank", "0"]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT, moment, *search], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_interruption_that_the_shell_has_ignored_stays_ignored():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT, "rich", "doctor"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_interruption_does_not_wait_for_the_first():
    twice = """
import os, signal
from cvnet_engine import interrupts
with interrupts.unwinding():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        print("went on")
"""
    done = subprocess.run([sys.executable, "-c", twice], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


# --------------------------------------------------------------------------------------------------- build


def build_arguments(tmp_path: Path, **options: object) -> list[object]:
    chosen = {"weights": "seeded:0", "depth": 50, "out": tmp_path / "b", "backend": "onnxruntime"} | options
    return ["build", *(word for name, value in chosen.items() for word in (f"--{name}", value))]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints: whole ones (of zeros, so small), and damaged ones."""
    folder = tmp_path_factory.mktemp("weights")
    for depth in (50, 101):
        shapes = checkpoint.published_shapes(depth)
        torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, folder / f"{depth}.pyth")
    data = (folder / "50.pyth").read_bytes()
    (folder / "truncated.pyth").write_bytes(data[: len(data) // 2])
    (folder / "empty.pyth").touch()
    (folder / "text.pyth").write_text("Dear diary")
    torch.save({"other": torch.zeros(3)}, folder / "other.pyth")
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.pyth", "no such checkpoint"),
        (".", "no such checkpoint"),
        ("truncated.pyth", "not a readable checkpoint"),
        ("empty.pyth", "not a readable checkpoint"),
        ("text.pyth", "not a readable checkpoint"),
        ("101.pyth", "use --depth 101"),
        ("other.pyth", "missing (conv2ds.0.weight, "),
    ],
)
def test_bad_checkpoints(cli, weights, tmp_path, name, message):
    assert_one_line(cli(*build_arguments(tmp_path, weights=weights / name)), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "seeded:x"}, "expected 'seeded' or 'seeded:N'"),
        ({"depth": 34}, "expected 50 or 101"),
        ({"backend": "abacus"}, "'abacus' is unknown"),
        ({"precision": "fp1"}, "'fp1' is unknown"),
        ({"precision": "bf16"}, "cannot run descriptor in bf16; expected openvino"),
        ({"precision": "int8", "backend": "openvino"}, "expected --calibration DIR"),
        ({"calibration": "absent"}, "absent: No such file"),
        ({"sizes": "1024"}, "expected a folder, or WIDTHxHEIGHT"),
        ({"sizes": "1024x768,8x8"}, "'8x8': expected"),
        ({"descriptor": "superglobal", "sizes": "80x600"}, "less than 92 px, which SuperGlobal's descriptor needs"),
    ],
)
def test_bad_build_options_are_told_before_the_work(cli, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(torch.onnx, "export", None)
    assert_one_line(cli(*build_arguments(tmp_path, **options)), message)
    assert list(tmp_path.iterdir()) == []


def test_sizes_of_a_folder_are_those_that_index_makes(bad_photos, tmp_path):
    for n, size in enumerate([(60, 80), (120, 160), (300, 300)]):
        photo(tmp_path / f"{n}.jpg", *size)
    assert sizes_in(tmp_path, 80) == [(60, 80), (80, 80)]
    assert sizes_in(tmp_path, None) == [(60, 80), (120, 160), (300, 300)]
    (tmp_path / "bad").mkdir()
    shutil.copy(bad_photos / "text.jpg", tmp_path / "bad")
    with pytest.raises(ImageError, match="no image that can be read"):
        sizes_in(tmp_path / "bad", None)


@pytest.mark.parametrize("name", ["file", "folder"])
def test_build_replaces_nothing_but_bundles(cli, tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    assert_one_line(cli(*build_arguments(tmp_path, out=tmp_path / name)), "exists and is not a bundle")
    assert (tmp_path / "folder" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("replacing", [False, True])
def test_build_onto_a_full_disk_leaves_what_was_there(cli, tmp_path, monkeypatch, replacing):
    exported = SimpleNamespace(save=lambda file: Path(file).write_bytes(bytes(4_000_000)))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: exported)  # half a minute of work on its own
    with small_disk(tmp_path / "disk", 2000) as disk:
        if replacing:
            (disk / "b").mkdir()
            (disk / "b" / "manifest.json").write_text("the old bundle")
        assert_one_line(cli(*build_arguments(tmp_path, out=disk / "b")), "No space left on device", "free some space")
        left = {path.name: path.read_text() for path in disk.glob("**/*") if path.is_file()}
        assert left == ({"manifest.json": "the old bundle"} if replacing else {})
        assert len(list(disk.iterdir())) == replacing


# --------------------------------------------------------------------------------------------------- index


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


@pytest.fixture(scope="module")
def bad_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    whole = photo(folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("Dear diary")
    (folder / "huge.png").write_bytes(png(20000, 20000))
    photo(folder / "1x1.jpg", 1, 1)
    photo(folder / "thin.jpg", 1, 3000)
    return folder


def test_index_takes_odd_images_and_reports_bad_ones(bundle, odd_photos, bad_photos, tmp_path):
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


def test_index_lists_what_it_passes_over(cli, bundle, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("command", ["index", "search"])
def test_a_pipe_that_is_named_is_refused_at_once(cli, bundle, gallery, tmp_path, command):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert_one_line(cli(command, tmp_path / "pipe.jpg", "--bundle", bundle, "--gallery", gallery), "pipe.jpg: a pipe")


def test_index_of_bad_images_alone(cli, bundle, bad_photos, tmp_path):
    result = cli("index", bad_photos, "--bundle", bundle, "--gallery", tmp_path / "g", "--json", tmp_path / "i.json")
    assert_one_line(result, "none of 6 images could be read")
    assert len(json.loads((tmp_path / "i.json").read_text())["failed"]) == 6


@pytest.mark.parametrize("source", ["absent", "empty", "n" * 300])
def test_index_of_nothing(cli, bundle, tmp_path, source):
    (tmp_path / "empty").mkdir()
    assert_one_line(cli("index", tmp_path / source, "--bundle", bundle, "--gallery", tmp_path / "g"), source)
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_index_where_no_gallery_can_be(cli, bundle, query, tmp_path, name):
    (tmp_path / "file").touch()
    assert_one_line(cli("index", query, "--bundle", bundle, "--gallery", tmp_path / name), "gallery not accessible")


def test_index_with_another_max_side(cli, bundle, gallery, query):
    assert_one_line(cli("index", query, "--bundle", bundle, "--gallery", gallery, "--max-side 512"), "--max-side 1024")


def test_index_with_compressed_maps_and_search(cli, bundle, data, gallery, query, tmp_path):
    command = ("index", data, "--bundle", bundle, "--gallery", tmp_path / "g")
    result = cli(*command, "--maps coded:64 --json", tmp_path / "i.json")
    assert result.code == 0, result.err
    assert 0 < json.loads((tmp_path / "i.json").read_text())["score_drift"] < 0.1
    assert "maps kept so change a pair score by" in result.out
    assert cli(*command).code == 0  # the gallery keeps its kind
    assert_one_line(cli(*command, "--maps float16"), "keeps maps as coded:64; got --maps float16")
    assert_one_line(cli(*command, "--maps int8"), "maps 'int8': expected float16, coded or coded:BYTES")
    scores = []
    for folder in (gallery, tmp_path / "g"):
        searched = ("search", query, "--bundle", bundle, "--gallery", folder, "--json", tmp_path / "s.json")
        assert cli(*searched).code == 0
        (found,) = json.loads((tmp_path / "s.json").read_text())
        scores.append({Path(hit["path"]).name: hit["rerank_score"] for hit in found["results"]})
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
    assert scores[0] != scores[1]


def test_index_onto_a_full_disk_stops_and_the_same_command_finishes_with_more_space(cli, bundle, data, tmp_path):
    with small_disk(tmp_path / "disk", 8000) as disk:
        (disk / "reserve").write_bytes(bytes(1024 * 6500))
        command = ("index", data, "--bundle", bundle, "--gallery", disk / "g", "--json", tmp_path / "i.json")
        result = cli(*command)
        assert_one_line(result, "free some space and run the same command again")
        stored = len(Gallery(disk / "g"))
        assert 0 < stored < 10
        assert json.loads((tmp_path / "i.json").read_text())["added"] == stored

        fill(disk).unlink()
        (disk / "reserve").unlink()
        assert cli(*command).code == 0
        results = json.loads((tmp_path / "i.json").read_text())
        assert (results["unchanged"], results["added"]) == (stored, 10 - stored)


def test_interrupted_index_says_so_and_resumes(bundle, tmp_path):
    (tmp_path / "photos").mkdir()
    for n in range(8):
        photo(tmp_path / "photos" / f"{n:02d}.jpg", 64, 80, seed=n)
    options = ["index", tmp_path / "photos", "--bundle", bundle, "--gallery", tmp_path / "g"]
    interrupted = subprocess.run([sys.executable, "-c", INTERRUPTED, *options], capture_output=True, text=True)
    said = "interrupted; what was added is stored: run the same command again to go on\n"
    assert (interrupted.returncode, interrupted.stderr) == (130, said)
    assert "added, 0 updated" in interrupted.stdout
    assert len(Gallery(tmp_path / "g")) == 3

    results = tmp_path / "i.json"
    subprocess.run([*PROGRAM, *options, "--json", results], check=True, capture_output=True)
    assert json.loads(results.read_text())["unchanged"] == 3
    assert len(Gallery(tmp_path / "g")) == 8


# -------------------------------------------------------------------------------------------------- search


def test_search(cli, bundle, gallery, data, query, tmp_path):
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


@pytest.mark.parametrize(("top_k", "rerank", "pairs"), [(3, 0, 0), (99, 99, 10), (1, 5, 5)])
def test_search_lengths(cli, bundle, gallery, query, tmp_path, top_k, rerank, pairs):
    lengths = f"--top-k {top_k} --rerank {rerank}"
    result = cli("search", query, "--bundle", bundle, "--gallery", gallery, lengths, "--json", tmp_path / "s.json")
    assert result.code == 0
    assert f"rerank of {pairs} " in result.out
    assert len(json.loads((tmp_path / "s.json").read_text())[0]["results"]) == min(top_k, 10)


def test_search_within_a_box_is_search_with_the_cropped_image(cli, bundle, gallery, query, tmp_path):
    cropped = tmp_path / "cropped.png"
    cv2.imwrite(str(cropped), cv2.imread(str(query))[10:80, 20:90])
    hits = []
    for words in ((query, "--bbox 20,10,90.7,80"), (cropped,)):
        assert cli("search", *words, "--bundle", bundle, "--gallery", gallery, "--json", tmp_path / "s.json").code == 0
        hits.append(json.loads((tmp_path / "s.json").read_text())[0]["results"])
    assert hits[0] == hits[1]


@pytest.mark.parametrize("bbox", ["0,0,1000,10", "50,10,20,60", "0,0,nan,50", "0,0,inf,50", "1,2,3", "a,b,c,d"])
def test_bad_boxes(cli, bundle, gallery, query, bbox):
    assert_one_line(cli("search", query, "--bundle", bundle, "--gallery", gallery, f"--bbox={bbox}"), "bbox")


def test_a_box_with_too_little_in_it(cli, bundle, gallery, query):
    result = cli("search", query, "--bundle", bundle, "--gallery", gallery, "--bbox 5,5,15,60")
    assert_one_line(result, "10x55 pixels are too few", str(query))


@pytest.mark.parametrize("name", ["truncated.jpg", "text.jpg", "huge.png", "1x1.jpg", "absent.jpg", "."])
def test_bad_queries_are_named(cli, bundle, gallery, bad_photos, name):
    assert_one_line(cli("search", bad_photos / name, "--bundle", bundle, "--gallery", gallery), str(bad_photos / name))


def test_a_bad_query_leaves_the_others_their_results(cli, bundle, gallery, query, bad_photos, tmp_path):
    bad, second = bad_photos / "text.jpg", bad_photos / "absent.jpg"
    files = ("--rerank 2 --json", tmp_path / "s.json", "--html", tmp_path / "s.html")
    result = cli("search", bad, query, second, "--bundle", bundle, "--gallery", gallery, *files)
    assert_one_line(result, f"{bad}: not an image", f"{second}: cannot be read")
    assert "rerank of 2 " in result.out
    failed, found, absent = json.loads((tmp_path / "s.json").read_text())
    assert (failed["query"], failed["results"]) == (str(bad), [])
    assert "not an image" in failed["error"]
    assert (found["query"], len(found["results"])) == (str(query), 10)
    assert "No such file" in absent["error"]
    assert query.name in (tmp_path / "s.html").read_text()


def test_a_query_that_is_too_much_for_the_memory_is_named(cli, bundle, gallery, query, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Engines, "extract_from", full)
    result = cli("search", query, "--bundle", bundle, "--gallery", gallery)
    assert_one_line(result, f"{query}: out of memory; shrink it first")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "not a gallery"),
        ("folder", "not a gallery"),
        ("file", "not a gallery"),
        ("empty", "holds no images yet"),
        ("other", "made with another model"),
        ("damaged", "damaged"),
    ],
)
def test_bad_galleries(cli, bundle, gallery, query, tmp_path, kind, message):
    path = tmp_path / kind
    match kind:
        case "folder":
            path.mkdir()
        case "file":
            path.touch()
        case "empty":
            GalleryWriter(path, Gallery(gallery).info).close()
        case "other":
            with GalleryWriter(path, INFO) as writer:
                writer.put(query, STAMP, features(0))
        case "damaged":
            shutil.copytree(gallery, path)
            shard = path / "shard-00000.sqlite"
            descriptor = Gallery(gallery).descriptors[4].tobytes()
            content = shard.read_bytes()
            at = content.index(descriptor) + 100
            shard.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert_one_line(cli("search", query, "--bundle", bundle, "--gallery", path), message)
    if kind == "other":
        assert_one_line(cli("index", query, "--bundle", bundle, "--gallery", path), message)


def test_a_damaged_gallery_names_the_command_that_mends_it_and_is_mended(cli, bundle, gallery, query, data, tmp_path):
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
    assert "1 images of shard-00000.sqlite were lost, maps of 1 images were damaged; of the images given" in mended.out
    assert "1 added, 1 updated, 8 unchanged" in mended.out
    assert cli(*search).code == 0


@pytest.mark.parametrize("kind", ["absent", "folder", "flipped", "future"])
def test_bad_bundles(cli, bundle, gallery, query, data, tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    if kind in ("flipped", "future"):
        copy_bundle(bundle, path)
        name = Bundle(bundle).graph("reranker").name if kind == "flipped" else "manifest.json"
        content = (bundle / name).read_bytes()
        (path / name).write_bytes(content.replace(b'"format": 2', b'"format": 9') if kind == "future" else content[:-1])
    for command in (
        ("index", query, "--gallery", tmp_path / "g"),
        ("search", query, "--gallery", gallery),
        ("eval --dataset tiny --data-dir", data),
    ):
        assert_one_line(cli(*command, "--bundle", path), str(path))
    assert not (tmp_path / "g").exists()


def test_a_readonly_place_is_enough_to_search(cli, bundle, gallery, query, tmp_path):
    with small_disk(tmp_path / "disk", 8000) as disk:
        shutil.copytree(gallery, disk / "g")
        shutil.copy(query, disk / "q.jpg")
        make_readonly(disk)
        for _ in range(2):
            assert cli("search", disk / "q.jpg", "--bundle", bundle, "--gallery", disk / "g").code == 0
        for gallery_path in (disk / "g", disk / "new"):
            result = cli("index", query, "--bundle", bundle, "--gallery", gallery_path)
            assert_one_line(result, "Read-only file system")


# ---------------------------------------------------------------------------------------------------- eval


def test_eval_with_distractors_and_a_gallery_that_is_kept(cli, bundle, data, odd_photos, tmp_path):
    (tmp_path / "more.txt").write_text(f"{odd_photos / 'grey.jpg'}\n{odd_photos / 'rotated.jpg'}\n")
    shared = ("eval --dataset tiny --rerank 0 --data-dir", data, "--bundle", bundle, "--gallery", tmp_path / "g")
    sizes = []
    for more in ((), ("--distractors", tmp_path / "more.txt")):
        assert cli(*shared, *more, "--json", tmp_path / "e.json").code == 0
        content = json.loads((tmp_path / "e.json").read_text())
        sizes.append((content["n"], len(Gallery(tmp_path / "g"))))
        assert content["rerank"] == {}
    assert sizes == [(7, 7), (9, 9)]


def copied(data: Path, folder: Path) -> Path:
    shutil.copytree(data / "tiny", folder / "tiny")
    return folder


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_ground_truth_that_would_run_code(cli, bundle, data, tmp_path):
    truth = copied(data, tmp_path) / "tiny" / "gnd_tiny.pkl"
    truth.write_bytes(pickle.dumps(Evil(f"touch {tmp_path / 'ran'}")))
    assert_one_line(cli("eval --dataset tiny --data-dir", tmp_path, "--bundle", bundle), "do not use this file")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("which", ["imlist", "qimlist"])
def test_an_unreadable_image_in_a_data_set_is_named(cli, bundle, data, tmp_path, which):
    truth = json.loads((copied(data, tmp_path) / "tiny" / "gnd_tiny.json").read_text())
    image = tmp_path / "tiny" / "jpg" / f"{truth[which][0]}.jpg"
    image.write_bytes(image.read_bytes()[:800])
    result = cli("eval --dataset tiny --rerank 0 --data-dir", tmp_path, "--bundle", bundle)
    assert_one_line(result, str(image), "damaged")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--dataset absent", "no ground truth"),
        ("--dataset tiny --rerank many", "--rerank 'many'"),
        ("--dataset tiny --rerank -5", "--rerank '-5'"),
        ("--dataset tiny --rerank 1,,2", "--rerank '1,,2'"),
        ("--dataset tiny --distractors absent.txt", "absent.txt: not readable"),
    ],
)
def test_bad_eval_input(cli, bundle, data, words, message):
    assert_one_line(cli("eval", words, "--data-dir", data, "--bundle", bundle), message)


def test_eval_into_a_gallery_of_another_kind(cli, bundle, data, gallery, tmp_path):
    other = replace(Gallery(gallery).info, features_id="other")
    GalleryWriter(tmp_path / "other", other).close()
    shared = ("eval --dataset tiny --data-dir", data, "--bundle", bundle, "--gallery")
    assert_one_line(cli(*shared, tmp_path / "other"), "made with another model")
    assert_one_line(cli(*shared, gallery), "made with --max-side 1024; got 0")


def test_descriptors_of_two_kinds_are_never_mixed(cli, bundle, gallery, data, query, tmp_path):
    """Only the descriptor differs. Either kind is reranked with pair scores."""
    superglobal = copy_bundle(bundle, tmp_path / "superglobal")
    write_manifest(replace(Bundle(bundle).manifest, descriptor="superglobal"), superglobal)
    of_superglobal = ("--bundle", superglobal, "--gallery", tmp_path / "g")
    assert cli("index", data / "tiny" / "jpg", *of_superglobal).code == 0
    assert Gallery(tmp_path / "g").info.descriptor == "superglobal"
    assert cli("search", query, *of_superglobal, "--rerank 3 --rerank-with both").code == 0
    words = "holds SuperGlobal's descriptors; the bundle makes CVNet's: use the bundle it was made with"
    assert_one_line(cli("search", query, "--bundle", bundle, "--gallery", tmp_path / "g"), words)
    words = "holds CVNet's descriptors; the bundle makes SuperGlobal's"
    assert_one_line(cli("index", query, "--bundle", superglobal, "--gallery", gallery), words)


@pytest.mark.parametrize(("method", "scored"), [("cvnet", 3), ("superglobal", 0), ("both", 3)])
def test_search_reranks_with_what_was_asked_for(cli, bundle, gallery, query, tmp_path, method, scored):
    file = tmp_path / "found.json"
    where = ("--bundle", bundle, "--gallery", gallery, "--json", file)
    assert cli("search", query, *where, "--rerank 3 --rerank-with", method).code == 0
    (found,) = json.loads(file.read_text())
    assert len(found["results"]) == 10
    assert sum(result["rerank_score"] is not None for result in found["results"]) == scored
    assert sum(result["refined"] is not None for result in found["results"]) == {"cvnet": 0, "superglobal": 3}.get(
        method, 10
    )


def test_an_approximate_index_is_opened_where_all_images_are_searched(cli, bundle, gallery, query, tmp_path):
    copy = shutil.copytree(gallery, tmp_path / "g")
    (copy / ANN).touch()  # a damaged one, of which a note tells
    (tmp_path / "lists").write_text(f"{query}\n")
    command = ("search --rerank 0 --bundle", bundle, "--gallery", copy, query)
    for some in (("--filter", f"name={query.name}"), ("--candidates", tmp_path / "lists"), ("--exact",)):
        done = cli(*command, *some)
        assert (done.code, ANN in done.err) == (0, False), some
    assert ANN in cli(*command).err


def test_search_scores_few_in_full_and_says_which(cli, bundle, gallery, query, tmp_path):
    file, page = tmp_path / "found.json", tmp_path / "found.html"
    where = ("--bundle", bundle, "--gallery", gallery, "--json", file, "--html", page)
    assert cli("search", query, *where, "--top-k 6 --rerank 5 --rerank-full 2").code == 0
    (found,) = json.loads(file.read_text())
    known = [[result[kind] is not None for result in found["results"]] for kind in ("rerank_score", "pooled_score")]
    assert known == [[True] * 2 + [False] * 4, [True] * 5 + [False]]
    assert page.read_text().count("<dt>pooled</dt>") == 5


def test_eval_with_rerank_full_says_that_it_is_not_as_published(cli, bundle, data, tmp_path):
    file = tmp_path / "figures.json"
    where = ("--bundle", bundle, "--data-dir", data, "--dataset tiny", "--json", file)
    outcome = cli("eval", *where, "--rerank 5 --rerank-full 2")
    assert outcome.code == 0
    assert "2 of a shortlist are scored in full" in outcome.out
    figures = json.loads(file.read_text())
    assert figures["rerank_full"] == 2
    assert 0 < figures["pairs"] < figures["pooled_pairs"]
    assert "scored in full" not in cli("eval", *where, "--rerank 5 --rerank-full 5").out  # which is as published


def test_eval_reranks_with_superglobal_and_scores_no_pair(cli, bundle, gallery, data, tmp_path):
    file = tmp_path / "figures.json"
    where = ("--bundle", bundle, "--data-dir", data, "--dataset tiny", "--json", file)
    assert cli("eval", *where, "--rerank 5 --rerank-with superglobal").code == 0
    figures = json.loads(file.read_text())
    assert figures["rerank_with"] == "superglobal"
    assert_one_line(cli("eval", *where, "--rerank-full 2 --rerank-with superglobal"), "superglobal scores no pair")
    assert figures["pairs"] == 0
    assert set(figures["rerank"]) == {"5"}
    assert cli("search", "x.jpg", "--bundle", bundle, "--gallery", gallery, "--rerank-with magic").code == 2
