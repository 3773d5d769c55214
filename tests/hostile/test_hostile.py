"""A short run of the hostile test, and tests that it classifies outcomes correctly."""

from __future__ import annotations

import ctypes
import os
import shutil
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
DOCUMENT = ROOT / "docs" / "reliability.md"


def test_no_hostile_input_causes_a_failure():
    command = [sys.executable, "-m", "tests.hostile", "--inputs", "40", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** | 40 |" in done.stdout


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


def test_the_table_is_put_into_the_document(tmp_path):
    verdicts = [Verdict("a", "", REFUSED, "", 0), Verdict("a", "", HANG, "", 0), Verdict("b", "", ACCEPTED, "", 0)]
    table = document.trials_table(verdicts, OUTCOMES)
    assert table.splitlines()[2:] == [
        "| a | 2 | 1 | 0 | 0 | 0 | 1 | 0 |",
        "| b | 1 | 0 | 1 | 0 | 0 | 0 | 0 |",
        "| **all** | 3 | 1 | 1 | 0 | 0 | 1 | 0 |",
    ]
    copy = Path(shutil.copy(DOCUMENT, tmp_path))
    document.put(copy, "trials", table)
    assert f"<!-- trials: measured -->\n\n{table.strip()}\n\n<!-- end of trials -->" in copy.read_text()


def test_the_document_reports_no_failures():
    total = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith("| **all**"))
    assert [int(count) for count in total.split("|")[5:-1]] == [0] * 4
