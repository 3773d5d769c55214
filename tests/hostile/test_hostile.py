"""A short run of the hostile test, and tests that it classifies outcomes correctly."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.errors import CvnetError
from tests.hostile import document
from tests.hostile.trial import (
    ACCEPTED,
    CRASH,
    HANG,
    OUTCOMES,
    REFUSED,
    SILENT,
    TRACEBACK,
    Anything,
    Case,
    Refusal,
    Verdict,
    judge,
)

ROOT = Path(__file__).resolve().parents[2]


def test_no_hostile_input_causes_a_failure():
    command = [sys.executable, "-m", "tests.hostile", "--inputs", "50", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** | 50 |" in done.stdout


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("read", "expected", "outcome"),
    [
        (lambda _: 1, 1, ACCEPTED),
        (lambda _: 1, Anything, ACCEPTED),
        (lambda _: 2, 1, SILENT),
        (lambda _: None, Refusal, SILENT),
        (lambda _: fail(CvnetError("3 of 4; expected 4")), Refusal, REFUSED),
        (lambda _: fail(CvnetError("no")), Refusal, TRACEBACK),
        (lambda _: fail(CvnetError("two lines;\nof them")), Refusal, TRACEBACK),
        (lambda _: fail(KeyError("x")), Refusal, TRACEBACK),
        (lambda _: np.ones(1 << 34), Refusal, CRASH),
        (lambda _: ctypes.string_at(1), Refusal, CRASH),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), Refusal, CRASH),
        (lambda _: os._exit(0), Refusal, CRASH),
        (lambda _: signal.pause(), Refusal, HANG),
    ],
)
def test_outcomes_are_classified(read, expected, outcome):
    limit_s = 0.1 if outcome == HANG else 60
    assert judge(Case("kind", "what", read, expected), limit_s).outcome == outcome


def test_the_table_has_a_row_per_kind():
    verdicts = [Verdict("a", "", REFUSED, "", 0), Verdict("a", "", HANG, "", 0), Verdict("b", "", ACCEPTED, "", 0)]
    rows = document.trials_table(verdicts, OUTCOMES).splitlines()[2:]
    assert rows == [
        "| a | 2 | 1 | 0 | 0 | 0 | 1 | 0 |",
        "| b | 1 | 0 | 1 | 0 | 0 | 0 | 0 |",
        "| **all** | 3 | 1 | 1 | 0 | 0 | 1 | 0 |",
    ]


def test_the_document_is_up_to_date_and_can_be_written(tmp_path: Path):
    text = (ROOT / "docs" / "reliability.md").read_text()
    (tmp_path / "d.md").write_text(text)
    document.put(tmp_path / "d.md", "trials", "figures")
    assert "<!-- trials: measured -->\n\nfigures\n\n<!-- end of trials -->" in (tmp_path / "d.md").read_text()
    total = next(line for line in text.splitlines() if line.startswith("| **all**"))
    assert json.loads(f"[{total.removeprefix('| **all** | ').removesuffix(' |').replace('|', ',')}]")[3:] == [0] * 4
