"""A bundle: the folder that `build` writes and everything else opens, graphs and the facts about them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import BundleError
from engine.graphs import GRAPH_NAMES

FORMAT = 2
MANIFEST = "manifest.json"


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
    whatever its speed, `accuracy` the `export.accuracy.Accuracy` of a bundle built with calibration photos,
    `not_run` why plans compiled ahead of time were not run where they were built: all that is known of them is that
    they compile.
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
    not_run: str | None = None

    @property
    def backend(self) -> str:
        """The backends in use, in the order of `GRAPH_NAMES`, each once."""
        return "+".join(dict.fromkeys(self.graphs[name].backend for name in GRAPH_NAMES))

    @property
    def model(self) -> str:
        """The model in a few words."""
        weights = "demonstration model" if self.is_demonstration else self.weights
        return f"ResNet-{self.depth} {weights}, {self.precision}, {self.backend}"

    @property
    def is_demonstration(self) -> bool:
        """Whether these are the weights that come with the package; a checkpoint's path is absolute."""
        return self.weights == "demo"

    @property
    def features_id(self) -> str:
        """What a gallery's features depend on: equal ids make interchangeable features."""
        return f"{self.weights_digest}-{self.precision}"


class Bundle:
    """An opened bundle, its digests checked."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            BundleError: no bundle there, one of another format, or a file that is missing or changed.
        """
        self.path = path
        self.manifest = read_manifest(path)
        for name in GRAPH_NAMES:
            self._check(name)

    def graph(self, name: str) -> Path:
        """The file of one of `GRAPH_NAMES`."""
        return self.path / self.manifest.graphs[name].file

    def _check(self, name: str) -> None:
        file = self.graph(name)
        if not file.is_file():
            raise BundleError(f"{file}: missing from the bundle; build it again")
        try:
            digest = sha256(file)
        except OSError as error:
            raise BundleError(f"{file}: not readable ({error.strerror}); build the bundle again") from error
        if digest != self.manifest.graphs[name].sha256:
            raise BundleError(f"{file}: changed since it was built (SHA-256 differs); build the bundle again")


def read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{path}: not a bundle (no {MANIFEST}); make one with 'cvnet-engine build'") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: not readable ({error}); build the bundle again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BundleError(f"{file}: not a bundle of format {FORMAT}; build it again with this version")
    try:
        graphs = {name: GraphFile(**graph) for name, graph in content.pop("graphs").items()}
        manifest = Manifest(graphs=graphs, **content)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{file}: not what format {FORMAT} holds ({error}); build the bundle again") from error
    if set(graphs) != set(GRAPH_NAMES) or not all(isinstance(graph.file, str) for graph in graphs.values()):
        raise BundleError(f"{file}: graphs differ from format {FORMAT}; build the bundle again")
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
