"""The runtime is independent: nothing in `engine` imports PyTorch or a package above it."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.abc import MetaPathFinder

optional = set(sys.argv[1].split(","))

class Refusal(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        above = name.startswith("cvnet_engine.") and not (name + ".").startswith("cvnet_engine.engine.")
        if above or name.partition(".")[0] in {"torch", "torchvision"}:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refusal())
from cvnet_engine import engine
for module in pkgutil.walk_packages(engine.__path__, "cvnet_engine.engine."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in optional:
            raise
        print("skipped", module.name)
    else:
        print("imported", module.name)
"""


def test_every_module_imports_without_torch(tmp_path):
    optional = "tensorrt,openvino,cuda,onnxruntime,faiss"
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, optional], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "imported cvnet_engine.engine.gallery.reader\n" in done.stdout
    assert "imported cvnet_engine.engine.retrieval.engines\n" in done.stdout


def test_an_import_from_above_is_refused(tmp_path):
    script = IMPORT_ALL.replace("from cvnet_engine import engine", "import cvnet_engine.cvnet.model")
    done = subprocess.run([sys.executable, "-c", script, ""], capture_output=True, text=True, cwd=tmp_path)
    assert "cvnet_engine.cvnet was imported" in done.stderr
