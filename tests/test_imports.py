"""Imports between packages go in the directions of docs/architecture.md; no folder or module is in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# package -> those that it may import
ALLOWED = {
    "engine": set(),
    "scenes": {"engine"},
    "cvnet": {"engine"},  # errors and geometry, which import nothing
    "export": {"cvnet", "engine"},
    "benchmarks": {"cvnet", "engine", "export"},
    "benchmarks.lab": {"benchmarks", "cvnet", "engine", "export", "scenes"},
    "training": {"benchmarks", "benchmarks.lab", "cvnet", "engine", "export", "scenes"},
    "cvnet_engine": {"benchmarks", "cvnet", "engine", "export"},
}
INSTALLED = ("engine", "export", "cvnet", "benchmarks")  # folders that install and import as cvnet_engine.engine, ...


def imports_of(source: str) -> Iterator[str]:
    """Yield the dotted names that a module imports, also within functions; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not permitted"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def short(name: str) -> str:
    """The imported name relative to the repository: `cvnet_engine.engine.files` is the file engine/files.py."""
    top, _, rest = name.partition(".")
    assert top not in INSTALLED or rest.startswith("lab"), f"import {name} as cvnet_engine.{name}"
    return rest if top == "cvnet_engine" and rest.split(".")[0] in INSTALLED else name


def folder_of(package: str) -> Path:
    return ROOT / package.replace(".", "/")


def package_of(module: str) -> str:
    """The innermost package of `ALLOWED`."""
    return "benchmarks.lab" if module.startswith("benchmarks.lab.") else module.partition(".")[0]


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(file): file.read_text() for package in ALLOWED for file in sorted(folder_of(package).rglob("*.py"))}


def modules(imports: Iterator[str], known: Mapping[str, object]) -> set[str]:
    """This project's modules among imported names, whose last part may be a name within a module."""
    names = {name if name in known else name.rpartition(".")[0] for name in map(short, imports)}
    return names & known.keys()


GRAPH = {name: modules(imports_of(source), SOURCES) - {name} for name, source in SOURCES.items()}
LATE = re.findall(r'late\("([\w.]+)"', SOURCES["engine.backends"])
GRAPH["engine.backends"] |= {f"engine.backends.{module}" for module in LATE}  # imported by name when used


def require_no_circle(graph: Mapping[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_imports_are_found_within_functions():
    found = set(imports_of("import a.b\nfrom c import d\ndef f():\n    from e.f import g"))
    assert found == {"a.b", "c.d", "e.f.g"}
    assert len(SOURCES) > 100
    assert GRAPH["export.artifacts"] >= {"export.onnx_export", "export.tensorrt_plan"}  # the second within a function
    assert GRAPH["engine.backends"] >= {"engine.machine", "engine.backends.tensorrt"}  # the second by name


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_permitted_packages(package):
    above = {
        f"{module} imports {imported}"
        for module, found in GRAPH.items()
        for imported in found
        if package_of(module) == package and package_of(imported) not in {package, *ALLOWED[package]}
    }
    assert above == set()


def test_the_engine_never_imports_torch():
    found = {module: set(imports_of(SOURCES[module])) for module in GRAPH if module.startswith("engine")}
    assert {module for module, names in found.items() if any(name.startswith("torch") for name in names)} == set()


def test_cvnet_imports_only_errors_and_geometry_of_the_engine():
    shared = {name for module in GRAPH if module.startswith("cvnet.") for name in GRAPH[module]}
    assert {name for name in shared if name.startswith("engine")} == {"engine.errors", "engine.geometry"}
    assert GRAPH["engine.geometry"] == {"engine.errors"}
    assert GRAPH["engine.errors"] == set()


def test_no_module_is_in_a_circle():
    require_no_circle(GRAPH)


@pytest.mark.parametrize("package", ALLOWED)
def test_no_folder_is_in_a_circle(package):
    """Imports among the folders of a package; a file beside them counts as a folder."""

    def folder(module: str) -> str:
        first, *rest = module.removeprefix(f"{package}.").split(".")
        return first if rest or f"{package}.{first}" not in SOURCES or (folder_of(package) / first).is_dir() else module

    folders: dict[str, set[str]] = {}
    for module in GRAPH:
        if module.startswith(f"{package}."):
            inside = {folder(name) for name in GRAPH[module] if name.startswith(f"{package}.")}
            folders.setdefault(folder(module), set()).update(inside - {folder(module)})
    require_no_circle(folders)


def test_a_circle_is_noticed():
    with pytest.raises(pytest.fail.Exception, match=r"a -> b -> a|b -> a -> b"):
        require_no_circle({"a": {"b"}, "b": {"a"}})
