"""Bundles: folders written by `build`, with a model's graphs and a manifest; all other commands open them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from cvnet_engine.engine import typed_json
from cvnet_engine.engine.backends import BACKENDS
from cvnet_engine.engine.errors import BundleError, one_line
from cvnet_engine.engine.files import read_text, write_atomically
from cvnet_engine.engine.geometry import DESCRIPTOR_NAMES, GRAPH_NAMES

FORMAT = 2
MANIFEST = "manifest.json"
BUILT = "built-"  # prefix of folders within a bundle that hold the files of a rebuild
PLAIN_PATH = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)  # a relative path without `..`


@dataclass(frozen=True)
class GraphFile:
    """A graph's file within the bundle, its SHA-256, and the backend and precision that run it."""

    file: str
    sha256: str
    backend: str
    precision: str


@dataclass(frozen=True)
class Manifest:
    """Contents and origin of a bundle.

    Attributes:
        weights: absolute path of the checkpoint, `demo` or `seeded:N`.
        weights_digest: SHA-256 of the tensors.
        versions: versions of the libraries that made the graphs.
        parity: largest difference from PyTorch, by graph and output.
        timings_ms: time per backend, by graph, if several backends were compared.
        refused: reason why a backend was rejected whatever its speed, by graph and backend.
        gpu: fingerprint of the machine that compiled plans are bound to (`engine.backends.Backend.bind`).
        accuracy: values of `export.accuracy.Accuracy`, if the bundle was built with calibration photos.
        fallback: reranker graph for machines that cannot compile the native pair scorer.
        not_run: reason why plans compiled ahead of time were not run, so that only their compilation is tested.
        descriptor: descriptor method of the image graphs, of `DESCRIPTOR_NAMES`.
    """

    format: int
    depth: int
    weights: str
    weights_digest: str
    trained: bool
    precision: str
    graphs: dict[str, GraphFile]
    versions: dict[str, str]
    parity: dict[str, dict[str, float]]
    timings_ms: dict[str, dict[str, float]]
    refused: dict[str, dict[str, str]]
    gpu: dict[str, str] | None
    built: str  # UTC, ISO 8601
    accuracy: dict[str, float] | None = None
    fallback: GraphFile | None = None
    not_run: str | None = None
    descriptor: str = "cvnet"

    @property
    def files(self) -> dict[str, GraphFile]:
        """All files of the bundle, by graph name or `fallback`."""
        return self.graphs | ({"fallback": self.fallback} if self.fallback else {})

    @property
    def backend(self) -> str:
        """The backends in use, in the order of `GRAPH_NAMES`, each once."""
        return "+".join(dict.fromkeys(self.graphs[name].backend for name in GRAPH_NAMES))

    @property
    def model(self) -> str:
        """Short description of the model, for messages."""
        weights = "demonstration model" if self.is_demonstration else self.weights
        described = "" if self.descriptor == "cvnet" else f" with {DESCRIPTOR_NAMES[self.descriptor]}'s descriptor"
        return f"ResNet-{self.depth} {weights}{described}, {self.precision}, {self.backend}"

    @property
    def is_demonstration(self) -> bool:
        """True for the weights shipped with the package. A checkpoint cannot be named `demo`: its path is absolute."""
        return self.weights == "demo"

    @property
    def features_id(self) -> str:
        """Identifier of the features: bundles with the same value make interchangeable features."""
        described = "" if self.descriptor == "cvnet" else f"-{self.descriptor}"
        return f"{self.weights_digest}-{self.precision}{described}"


class Bundle:
    """An opened bundle with verified digests."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            BundleError: not a bundle, a bundle of another format, or a file that is missing or changed.
        """
        self.path = path
        self.manifest = read_manifest(path)
        for graph in self.manifest.files.values():
            self._check(graph)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the bundle in a folder."""
        return cls(Path(path))

    def graph(self, name: str) -> Path:
        """Return the file of one of `GRAPH_NAMES`."""
        return self.path / self.manifest.graphs[name].file

    def _check(self, graph: GraphFile) -> None:
        file = self.path / graph.file
        if not file.is_file():
            raise BundleError(f"{file}: missing from the bundle; build it again")
        try:
            digest = sha256(file)
        except OSError as error:
            raise BundleError(f"{file}: not readable ({error.strerror}); build the bundle again") from error
        if digest != graph.sha256:
            raise BundleError(f"{file}: changed since it was built (SHA-256 differs); build the bundle again")


def read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        manifest = typed_json.parse(read_text(file), Manifest)
        require_own_files(manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{path}: not a bundle (no {MANIFEST}); make one with 'cvnet-engine build'") from error
    except OSError as error:
        raise BundleError(f"{file}: not readable ({error.strerror}); build the bundle again") from error
    except ValueError as error:
        raise BundleError(
            f"{file}: not a bundle of format {FORMAT} ({one_line(error)}); build the bundle again with "
            f"'cvnet-engine build --weights FILE --depth DEPTH --out {path}'"
        ) from error
    return manifest


def require_own_files(manifest: Manifest) -> None:
    """Raise ValueError unless format, graph names, descriptor and backends are known and all files are in the bundle.

    Does not check that the files exist.
    """
    if manifest.format != FORMAT:
        raise ValueError(f"format is {manifest.format}")
    if manifest.graphs.keys() != set(GRAPH_NAMES):
        raise ValueError(f"graphs are {', '.join(manifest.graphs)}; expected {', '.join(GRAPH_NAMES)}")
    if manifest.descriptor not in DESCRIPTOR_NAMES:
        raise ValueError(f"descriptor is {manifest.descriptor!r}; expected {' or '.join(DESCRIPTOR_NAMES)}")
    for name, graph in manifest.files.items():
        if not PLAIN_PATH.fullmatch(graph.file):
            raise ValueError(f"the file of {name} is {graph.file!r}; expected a file within the bundle")
        if graph.backend not in BACKENDS:
            raise ValueError(f"the backend of {name} is {graph.backend!r}; expected one of {', '.join(BACKENDS)}")


def write_manifest(manifest: Manifest, folder: Path) -> None:
    write_atomically(folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")


def take_over(path: Path, built: Path) -> None:
    """Replace the content of the bundle at `path` with the bundle in `built`, a folder within it.

    The manifest is replaced atomically before the old files are removed. If the process is killed, `path` is therefore
    either the complete old bundle or the complete new one.
    """
    manifest = read_manifest(built)
    files = {name: replace(graph, file=f"{built.name}/{graph.file}") for name, graph in manifest.files.items()}
    fallback = files.pop("fallback", None)
    write_manifest(replace(manifest, graphs=files, fallback=fallback), path)
    for old in path.iterdir():
        if old.is_dir() and old.name.startswith(BUILT) and old != built:
            shutil.rmtree(old, ignore_errors=True)
        elif old.is_file() and old.name.startswith((*(f"{name}." for name in GRAPH_NAMES), "timing.", f".{MANIFEST}.")):
            old.unlink()


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
