"""Fetch the TensorRT bindings that the contract tests ask, 1.3 MB each and without the libraries behind them.

    python tests/engine/backends/fetch_tensorrt_wheels.py

They go to $CVNET_TENSORRT_WHEELS, or to .wheels/ in the repository, which git ignores.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

PACKAGE = "tensorrt-cu13-bindings"
VERSIONS = ("10.16.1.11", "11.4.0.106")
FOLDER = Path(os.environ.get("CVNET_TENSORRT_WHEELS") or Path(__file__).parents[3] / ".wheels")


def main() -> None:
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
    python = "{}.{}".format(*sys.version_info[:2])
    wheel = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--platform", "manylinux_2_28_x86_64"]
    for version in VERSIONS:
        subprocess.run([*pip, "download", *wheel, "--dest", FOLDER, f"{PACKAGE}=={version}"], check=True)


if __name__ == "__main__":
    main()
