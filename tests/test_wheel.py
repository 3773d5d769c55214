"""The wheel, installed into a fresh environment, holds all that the program needs and nothing that it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pictures import photo

ROOT = Path(__file__).resolve().parent.parent

Program = Callable[..., str]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(target: str, out: Path, source: Path) -> Path:
    """The wheel or source distribution (`sdist`) of a folder, written to `out`."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", out, cwd=source)
    (file,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"), ROOT)


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The installed program; what the wheel depends on is this environment's, this repository is not in reach."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", wheel, cwd=folder)
    installed = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # a folder named in a .pth file is searched last, and its own .pth files (an editable install's) are not read
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return lambda *words: run(folder / "env" / "bin" / "cvnet-engine", *words, cwd=folder)


def test_the_wheel_holds_the_packages_and_no_results(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"cvnet_engine"}
    laboratory = tuple(f"cvnet_engine/benchmarks/{folder}/" for folder in ("lab", "results"))
    assert not [name for name in names if name.startswith(laboratory)]
    needed = {
        "cvnet_engine/cvnet/demo.npz",
        "cvnet_engine/demo/gnd_demo.json",
        "cvnet_engine/demo/jpg/scene0000_00.jpg",
        "cvnet_engine/engine/backends/native/pair_scorer.c",
        "cvnet_engine/server/page/index.html",
    }
    assert needed | {"cvnet_engine/py.typed", "cvnet_engine/engine/py.typed"} <= set(names)


def test_the_source_distribution_makes_the_same_wheel(wheel, tmp_path):
    with tarfile.open(build("sdist", tmp_path / "sdist", ROOT)) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("cvnet_engine-*")
    again = build("wheel", tmp_path / "wheel", source)
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_doctor_and_a_search_from_the_wheel(program, bundle, tmp_path):
    for seed in range(3):
        photo(tmp_path / f"{seed}.jpg", seed=seed)
    program("doctor", "--json", tmp_path / "doctor.json")
    assert json.loads((tmp_path / "doctor.json").read_text())["libraries"]["numpy"]
    made = ("--bundle", bundle, "--gallery", tmp_path / "gallery")
    program("index", *sorted(tmp_path.glob("*.jpg")), *made)
    program("search", tmp_path / "1.jpg", *made, "--json", tmp_path / "found.json", "--html", tmp_path / "found.html")
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["results"][0]["path"] == str(tmp_path / "1.jpg")
    assert len(found["results"]) == 3


@pytest.mark.slow
def test_the_oldest_declared_dependencies_build_and_search(wheel, tmp_path):
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".uv" / "bin")
    if not uv:
        pytest.skip("uv is not installed")
    python = tmp_path / "env" / "bin" / "python"
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    install = (uv, "pip", "install", "--quiet", "--link-mode", "symlink", "--python", python)  # PyTorch takes 5 GB
    extras = [f"--extra={name}" for name in ("cpu", "openvino", "export", "photos", "serve", "parquet")]
    oldest = [*install, "--resolution", "lowest-direct", "-r", ROOT / "pyproject.toml", *extras]
    done = subprocess.run([*map(str, oldest)], cwd=tmp_path, capture_output=True, text=True)
    if "Failed to fetch" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    run(*install, "--no-deps", wheel, cwd=tmp_path)

    def engine(words: str) -> None:
        run(tmp_path / "env" / "bin" / "cvnet-engine", *words.split(), cwd=tmp_path)

    (tmp_path / "photos").mkdir()
    for seed in range(3):
        photo(tmp_path / "photos" / f"{seed}.jpg", seed=seed)
    engine("build --weights demo --depth 50 --sizes 160x120 --backend onnxruntime --out b")
    engine("index photos --bundle b --gallery g")
    engine("search photos/1.jpg --bundle b --gallery g --json found.json")
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["results"][0]["path"] == str(tmp_path / "photos" / "1.jpg")
