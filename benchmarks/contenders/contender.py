"""What takes part in a comparison: the engines of a bundle, or the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cvnet_engine.engine.bundle import Bundle, Manifest
from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.errors import BackendError, WeightsError, install_hint
from cvnet_engine.engine.geometry import GRAPH_NAMES, IMAGE_SCALES, Scales, format_scales
from cvnet_engine.engine.retrieval.engines import Engines

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
    retriever: Engines

    @property
    def is_reference(self) -> bool:
        """Whether it is the published model, whose maps are raw and stay in float32."""
        return self.name.startswith(REFERENCE)

    def at(self, scales: Scales) -> Contender:
        """The same, describing images at other scales."""
        if scales == self.retriever.scales:
            return self
        retriever = replace(self.retriever, scales=scales)
        return replace(self, retriever=retriever, identity=scaled(self.identity, scales))

    def close(self) -> None:
        self.retriever.close()


def open_bundle(path: Path, threads: int | None) -> Contender:
    """The engines of a bundle, under the name of its folder."""
    bundle = Bundle(path)
    manifest, name = bundle.manifest, path.resolve().name
    retriever = Engines.open(bundle, threads)
    return Contender(name, manifest.backend, manifest.precision, identity_of(manifest), retriever)


def identity_of(manifest: Manifest, scales: Scales = IMAGE_SCALES) -> str:
    """What results of a bundle's engines depend on."""
    graphs = (manifest.graphs[name] for name in GRAPH_NAMES)
    return scaled(" ".join([manifest.precision, *(f"{graph.backend}:{graph.sha256}" for graph in graphs)]), scales)


def scaled(identity: str, scales: Scales) -> str:
    """The identity of a model that describes images at these scales."""
    return identity if scales == IMAGE_SCALES else f"{identity} scales {format_scales(scales)}"


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

        from cvnet_engine.benchmarks.contenders.reference import reference
        from cvnet_engine.cvnet import checkpoint
    except ImportError as error:
        raise BackendError(f"the reference needs PyTorch ({error}): {install_hint('export')}") from error
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
