"""The runtime stands alone: nothing in `engine` imports PyTorch or a package above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import engine

FORBIDDEN = {"torch", "torchvision", "cvnet", "export", "benchmarks", "cvnet_engine"}
FOLDER = Path(engine.__file__).parent

IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.abc import MetaPathFinder

forbidden, optional = set(sys.argv[1].split(",")), set(sys.argv[2].split(","))

class Refusal(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refusal())
import engine
for module in pkgutil.walk_packages(engine.__path__, "engine."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in optional:
            raise
        print("skipped", module.name)
    else:
        print("imported", module.name)
assert not forbidden & {name.partition(".")[0] for name in sys.modules}
"""


def test_every_module_imports_without_torch_and_what_is_above():
    optional = {"tensorrt", "openvino", "cuda", "onnxruntime", "faiss"}
    arguments = [",".join(sorted(names)) for names in (FORBIDDEN, optional)]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *arguments], capture_output=True, text=True, cwd=FOLDER.parent
    )
    assert done.returncode == 0, done.stderr
    assert "imported engine.gallery.reader\n" in done.stdout
    assert "imported engine.retrieval.retriever\n" in done.stdout


def imported(source: str) -> set[str]:
    """Top-level packages of every import statement, wherever it stands."""
    packages = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add("engine" if node.level else (node.module or "").partition(".")[0])
    return packages


def test_no_file_imports_what_is_above_not_even_within_a_function():
    assert imported("def f():\n    import torch.nn\n    from export import build") == {"torch", "export"}
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 10
    assert {file.name: found for file in files if (found := imported(file.read_text()) & FORBIDDEN)} == {}
