"""Privacy: no network access, no DNS lookups, no files outside the given folders and the cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvnet_engine.engine.backends import known
from tests.bundles import copy_bundle
from tests.pictures import photo

PROGRAM = [sys.executable, "-c", "from cvnet_engine.cli import main; main()"]
STRACE = shutil.which("strace")
OPENED = re.compile(r"openat\(.*?, \"(?P<path>[^\"]*)\", (?P<flags>[^,)]*).* = \d+")
MADE = re.compile(r"(?:mkdir|rename|symlink|link|creat|mknod)\w*\(.*?\"(?P<path>[^\"]*)\".* = 0")


def traceable() -> bool:
    """Tell if this process may trace another one."""
    return (
        bool(STRACE) and subprocess.run([STRACE, "-qq", "-e", "trace=none", "true"], capture_output=True).stderr == b""
    )


@dataclass(frozen=True)
class Traced:
    """Network calls of a command, and the files that it wrote."""

    addresses: list[str]
    written: set[Path]


def trace(command: list[str], home: Path, log: Path) -> Traced:
    """Run a command in another home folder under strace."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("XDG_CACHE_HOME", None)
    syscalls = "trace=%network,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
    subprocess.run(
        [str(STRACE), "-f", "--seccomp-bpf", "-qq", "-e", syscalls, "-o", str(log), *command],
        env=environment,
        check=True,
    )
    calls = log.read_text().splitlines()
    opened = (OPENED.search(call) for call in calls)
    made = (MADE.search(call) for call in calls)
    return Traced(
        [call for call in calls if "AF_INET" in call or "AF_UNIX" in call or "/etc/resolv.conf" in call],
        {Path(m["path"]) for m in opened if m and re.search("O_WRONLY|O_RDWR|O_CREAT", m["flags"])}
        | {Path(m["path"]) for m in made if m},
    )


def allowed(path: Path, folder: Path) -> bool:
    """Tell if a command may write to `path`; its outputs are in `folder`, and so is its home."""
    device = path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm")
    places = {Path("/proc"), folder / "gallery", folder / "home" / ".cache" / "cvnet-engine"}
    sqlite_temporary = path.name.startswith("etilqs_")  # deleted as soon as it is open
    return device or sqlite_temporary or path.parent == folder or bool(places & {path, *path.parents})


@pytest.fixture(params=["onnxruntime", "openvino"])
def bundle_of(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle two of whose graphs run on the backend."""
    if not known(request.param).is_here():
        pytest.skip(f"{request.param} is not installed")
    folder = copy_bundle(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("descriptor", "reranker"):  # OpenVINO names no axes of the tiny features graph
        manifest["graphs"][name]["backend"] = request.param
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.skipif(not traceable(), reason="strace is missing or not permitted")
def test_index_and_search_are_private(bundle_of: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for n in range(2):
        photo(tmp_path / "photos" / f"{n}.jpg", seed=n)
    (tmp_path / "home").mkdir()
    where = ["--bundle", str(bundle_of), "--gallery", str(tmp_path / "gallery"), "--json", str(tmp_path / "out.json")]
    for command in (["index", str(tmp_path / "photos")], ["search", str(tmp_path / "photos" / "0.jpg")]):
        done = trace([*PROGRAM, *command, *where], tmp_path / "home", tmp_path / "log")
        assert done.addresses == []
        assert {path for path in done.written if not allowed(path, tmp_path)} == set()
    assert {path.name for path in (tmp_path / "home").rglob("*")} <= {".cache", "cvnet-engine"}


# A program that uses the engine as a library and imports the runtimes.
LIBRARY = """
import cvnet_engine.engine
import onnxruntime, openvino
"""


@pytest.mark.skipif(not known("openvino").is_here(), reason="openvino is not installed")
def test_the_engine_as_a_library_is_private(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", LIBRARY], env=environment | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
