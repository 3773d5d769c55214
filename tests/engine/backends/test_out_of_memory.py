"""Memory that runs out is an error of its own on every backend, so that nobody is told to build a good bundle again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cvnet_engine.engine.backends import known
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import OUT_OF_MEMORY

# A graph is opened or run (argument 1: "open", "run") with little more memory than the process has by then.
STARVED = """
import resource, sys
from pathlib import Path
import numpy as np
from cvnet_engine.engine.backends import known
from cvnet_engine.engine.errors import BackendError

when, backend, graph = sys.argv[1:]

def starve():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 20 * 2**20,) * 2)

image = np.zeros((1, 3, 2048, 2048), np.float32)
__import__(backend)
if when == "open":
    starve()
try:
    engine = known(backend).open(Path(graph), "fp32", 2)
    if when == "run":
        starve()
    engine.run({"image": image})
except MemoryError as error:
    assert isinstance(error, BackendError)  # so that building goes on with the other backends
    print(error)
"""


@pytest.mark.parametrize("when", ["open", "run"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_memory_that_runs_out(bundle: Path, backend: str, when: str) -> None:
    if not known(backend).is_here():
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-c", STARVED, when, backend, str(Bundle(bundle).graph("features"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (f"{OUT_OF_MEMORY}\n", 0), done.stderr
