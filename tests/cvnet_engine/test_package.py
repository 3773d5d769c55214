"""`import cvnet_engine`: names for programs, loaded when they are used, and never PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cvnet_engine

USED = """
import sys
import cvnet_engine
assert not {"numpy", "PIL", "rich", "typer"} & set(sys.modules), "the package alone loads nothing"
from cvnet_engine import *
assert not {"torch", "onnx", "typer", "fastapi"} & set(sys.modules), "the names load no more than searching needs"
print(*sorted(name for name in cvnet_engine.__all__ if name in globals()))
"""


def test_names_are_loaded_when_they_are_used_and_load_no_torch():
    done = subprocess.run([sys.executable, "-c", USED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == cvnet_engine.__all__


def test_every_name_has_its_place():
    assert cvnet_engine.PLACES.keys() == set(cvnet_engine.__all__)
    assert set(cvnet_engine.__all__) <= set(dir(cvnet_engine))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cvnet_engine.nonsense
