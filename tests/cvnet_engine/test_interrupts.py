"""Ctrl-C: one line and exit code 130 at any moment; stored images stay."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from cvnet_engine.engine.gallery.reader import Gallery
from tests.pictures import photo

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


@pytest.mark.parametrize("moment", ["typer", "cvnet_engine.engine.backends", "numpy", "onnxruntime", "end"])
def test_ctrl_c_is_one_line_at_any_moment(bundle, gallery, query, moment):
    search = ["search", query, "--bundle", bundle, "--gallery", gallery, "--rerank", "0"]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT, moment, *search], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_ctrl_c_ignored_by_the_shell_stays_ignored():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT, "rich", "doctor"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_ctrl_c_ends_the_process_at_once():
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


def test_an_interrupted_index_resumes(bundle, tmp_path):
    (tmp_path / "photos").mkdir()
    for n in range(8):
        photo(tmp_path / "photos" / f"{n:02d}.jpg", 64, 80, seed=n)
    options = ["index", tmp_path / "photos", "--bundle", bundle, "--gallery", tmp_path / "g"]
    interrupted = subprocess.run([sys.executable, "-c", INTERRUPTED, *options], capture_output=True, text=True)
    said = "interrupted; what was added is stored: run the same command again to resume\n"
    assert (interrupted.returncode, interrupted.stderr) == (130, said)
    assert "added, 0 updated" in interrupted.stdout
    assert len(Gallery(tmp_path / "g")) == 3

    results = tmp_path / "i.json"
    subprocess.run([*PROGRAM, *options, "--json", results], check=True, capture_output=True)
    assert json.loads(results.read_text())["unchanged"] == 3
    assert len(Gallery(tmp_path / "g")) == 8
