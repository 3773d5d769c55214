"""A bundle: the folder that `build` writes and everything else opens, graphs and the facts about them."""

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
BUILT = "built-"  # folders within a bundle that begin so hold what replaced its first content
PLAIN_PATH = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)  # never leaves the folder it starts from


@dataclass(frozen=True)
class GraphFile:
    """A graph's file within the bundle, the SHA-256 of its bytes, the backend that runs it, and in which precision."""

    file: str
    sha256: str
    backend: str
    precision: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and how it came about.

    `weights` is the checkpoint's path, `demo` or `seeded:N`, `weights_digest` the SHA-256 of its tensors;
    `versions` names the libraries that made the graphs, `parity` the largest difference from PyTorch by graph and
    output, `timings_ms` what each backend took where several were timed against each other, `gpu` what
    compiled plans are bound to (`engine.backends.Backend.bind`), `refused` why a backend was not chosen
    whatever its speed, `accuracy` the `export.accuracy.Accuracy` of a bundle built with calibration photos, `fallback`
    the reranker's graph for machines that cannot compile the native pair scorer, where the bundle has that one,
    `not_run` why plans compiled ahead of time were not run where they were built: all that is known of them is that
    they compile, `descriptor` which of `DESCRIPTOR_NAMES` the image graphs make.
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
        """Every file that the bundle names, by what it is for."""
        return self.graphs | ({"fallback": self.fallback} if self.fallback else {})

    @property
    def backend(self) -> str:
        """The backends in use, in the order of `GRAPH_NAMES`, each once."""
        return "+".join(dict.fromkeys(self.graphs[name].backend for name in GRAPH_NAMES))

    @property
    def model(self) -> str:
        """The model in a few words."""
        weights = "demonstration model" if self.is_demonstration else self.weights
        described = "" if self.descriptor == "cvnet" else f" with {DESCRIPTOR_NAMES[self.descriptor]}'s descriptor"
        return f"ResNet-{self.depth} {weights}{described}, {self.precision}, {self.backend}"

    @property
    def is_demonstration(self) -> bool:
        """Whether these are the weights that come with the package; a checkpoint's path is absolute."""
        return self.weights == "demo"

    @property
    def features_id(self) -> str:
        """What a gallery's features depend on: equal ids make interchangeable features."""
        described = "" if self.descriptor == "cvnet" else f"-{self.descriptor}"
        return f"{self.weights_digest}-{self.precision}{described}"


class Bundle:
    """An opened bundle, its digests checked."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            BundleError: no bundle there, one of another format, or a file that is missing or changed.
        """
        self.path = path
        self.manifest = read_manifest(path)
        for graph in self.manifest.files.values():
            self._check(graph)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The bundle in a folder."""
        return cls(Path(path))

    def graph(self, name: str) -> Path:
        """The file of one of `GRAPH_NAMES`."""
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
            f"{file}: not a bundle of format {FORMAT} ({one_line(error)}); build the bundle again"
        ) from error
    return manifest


def require_own_files(manifest: Manifest) -> None:
    """Raise ValueError unless the manifest is of this format and names for every graph a backend and a file within."""
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
    """Make the bundle in `built`, a folder within the bundle at `path`, that bundle's content.

    The manifest that names the files changes in one step, and only then are those removed that it named before; so
    `path` is a whole bundle whenever this is killed, the old one or the new one.
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
