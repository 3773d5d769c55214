"""What takes part in a comparison: the engines of a bundle, or the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.bundle import Bundle, Manifest
from engine.contract import Closing
from engine.errors import BackendError, WeightsError
from engine.graphs import GRAPH_NAMES
from engine.retrieval.retriever import Retriever

REFERENCE, PUBLISHED, COMPILED = "PyTorch", "PyTorch published", "PyTorch compiled"
KEEPING = "PyTorch, memory kept"  # see `benchmarks.contenders.apart`


@dataclass(frozen=True)
class Contender(Closing):
    """A model that is ready to run.

    Attributes:
        identity: what its results depend on; contenders of equal identity give equal results.
    """

    name: str
    backend: str
    precision: str
    identity: str
    retriever: Retriever

    @property
    def is_reference(self) -> bool:
        """Whether it is the published model, whose maps are raw and stay in float32."""
        return self.name.startswith(REFERENCE)

    def close(self) -> None:
        self.retriever.close()


def open_bundle(path: Path, threads: int | None) -> Contender:
    """The engines of a bundle, under the name of its folder."""
    bundle = Bundle(path)
    manifest, name = bundle.manifest, path.resolve().name
    retriever = Retriever.open(bundle, threads)
    return Contender(name, manifest.backend, manifest.precision, identity_of(manifest), retriever)


def identity_of(manifest: Manifest) -> str:
    """What results of a bundle's engines depend on."""
    graphs = (manifest.graphs[name] for name in GRAPH_NAMES)
    return " ".join([manifest.precision, *(f"{graph.backend}:{graph.sha256}" for graph in graphs)])


def open_reference(bundle: Bundle, threads: int | None, compiled: bool = False) -> Contender:
    """The PyTorch model whose weights the bundle was built from, in float32.

    Args:
        compiled: by `torch.compile`, for images of any size, which takes minutes when it is first used.

    Raises:
        BackendError: PyTorch is not installed.
        WeightsError: the weights are gone, or are not what they were.
    """
    try:
        import torch

        from benchmarks.contenders.reference import reference
        from cvnet import checkpoint
    except ImportError as error:
        raise BackendError(f"the reference needs PyTorch ({error}); install the 'export' extra") from error
    if threads:
        torch.set_num_threads(threads)
    manifest = bundle.manifest
    model = checkpoint.load(manifest.weights, manifest.depth, descriptor=manifest.descriptor)
    if checkpoint.digest(model) != manifest.weights_digest:
        raise WeightsError(f"{manifest.weights}: changed since the bundle was built; build it again")
    if compiled:
        model.backbone.compile(dynamic=True)
        model.reranker.compile(dynamic=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    described = "" if manifest.descriptor == "cvnet" else f" {manifest.descriptor}"
    identity = f"PyTorch {torch.__version__} {device} {manifest.weights_digest}{described}"
    name = COMPILED if compiled else REFERENCE
    return Contender(name, f"torch-{device}", "fp32", identity, reference(model, device))
