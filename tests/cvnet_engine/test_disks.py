"""Full and read-only disks: one line, and nothing that was stored is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cvnet_engine.engine.gallery.reader import Gallery
from tests.cvnet_engine.program import Result, assert_one_line
from tests.engine.disks import fill, make_readonly, small_disk

PROGRAM = [sys.executable, "-m", "cvnet_engine"]


@pytest.mark.parametrize("command", ["doctor", "doctor --json /dev/full"])
def test_results_on_a_full_disk_end_with_one_line(command):
    with Path("/dev/full").open("w") as full:
        stdout = full if command == "doctor" else subprocess.PIPE
        done = subprocess.run([*PROGRAM, *command.split()], stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert_one_line(Result(done.returncode, "", done.stderr), "No space left on device")


@pytest.mark.parametrize("replacing", [False, True])
def test_build_on_a_full_disk_keeps_the_old_bundle(cli, tmp_path, monkeypatch, replacing):
    exported = SimpleNamespace(save=lambda file: Path(file).write_bytes(bytes(4_000_000)))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: exported)
    monkeypatch.setattr("cvnet_engine.export.parity.samples", lambda *_: [])
    with small_disk(tmp_path / "disk", 2000) as disk:
        if replacing:
            (disk / "b").mkdir()
            (disk / "b" / "manifest.json").write_text("the old bundle")
        result = cli("build --weights seeded --depth 50 --backend onnxruntime --out", disk / "b")
        assert_one_line(result, "No space left on device", "free some space")
        left = {path.name: path.read_text() for path in disk.glob("**/*") if path.is_file()}
        assert left == ({"manifest.json": "the old bundle"} if replacing else {})
        assert len(list(disk.iterdir())) == replacing


def test_index_stops_on_a_full_disk_and_resumes_later(cli, bundle, data, tmp_path):
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


def test_search_needs_no_writable_disk_and_index_says_so(cli, bundle, gallery, query, tmp_path):
    with small_disk(tmp_path / "disk", 8000) as disk:
        shutil.copytree(gallery, disk / "g")
        shutil.copy(query, disk / "q.jpg")
        make_readonly(disk)
        for _ in range(2):
            assert cli("search", disk / "q.jpg", "--bundle", bundle, "--gallery", disk / "g").code == 0
        for gallery_path in (disk / "g", disk / "new"):
            result = cli("index", query, "--bundle", bundle, "--gallery", gallery_path)
            assert_one_line(result, "Read-only file system")
