"""Retrieval method to evaluate or time: the engines of a bundle, or the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cvnet_engine.engine.bundle import Bundle, Manifest
from cvnet_engine.engine.contract import Closing
from cvnet_engine.engine.errors import BackendError, WeightsError, install_hint
from cvnet_engine.engine.geometry import GRAPH_NAMES, IMAGE_SCALES, Scales, format_scales
from cvnet_engine.engine.retrieval.engines import Engines

REFERENCE, PUBLISHED, COMPILED = "PyTorch", "PyTorch published", "PyTorch compiled"
KEEPING = "PyTorch, memory kept"  # see `benchmarks.methods.kept_memory`


@dataclass(frozen=True)
class Method(Closing):
    """A loaded model.

    Attributes:
        identity: identifies everything that results depend on; methods with equal identity give equal results.
    """

    name: str
    backend: str
    precision: str
    identity: str
    engines: Engines

    @property
    def is_reference(self) -> bool:
        """True for the published model, whose maps are raw and stay in float32."""
        return self.name.startswith(REFERENCE)

    def at(self, scales: Scales) -> Method:
        """Return this method with other image scales."""
        if scales == self.engines.scales:
            return self
        engines = replace(self.engines, scales=scales)
        return replace(self, engines=engines, identity=scaled(self.identity, scales))

    def close(self) -> None:
        self.engines.close()


def open_bundle(path: Path, threads: int | None) -> Method:
    """Open the engines of a bundle, named after its folder."""
    bundle = Bundle(path)
    manifest, name = bundle.manifest, path.resolve().name
    engines = Engines.open(bundle, threads)
    return Method(name, manifest.backend, manifest.precision, identity_of(manifest), engines)


def identity_of(manifest: Manifest, scales: Scales = IMAGE_SCALES) -> str:
    """Return the identity of a bundle's engines."""
    graphs = (manifest.graphs[name] for name in GRAPH_NAMES)
    return scaled(" ".join([manifest.precision, *(f"{graph.backend}:{graph.sha256}" for graph in graphs)]), scales)


def scaled(identity: str, scales: Scales) -> str:
    """Return the identity of a model that extracts images at these scales."""
    return identity if scales == IMAGE_SCALES else f"{identity} scales {format_scales(scales)}"


def open_reference(bundle: Bundle, threads: int | None, compiled: bool = False) -> Method:
    """Load the PyTorch model whose weights the bundle was built from, in float32.

    Args:
        compiled: use `torch.compile` for images of any size; the first call takes minutes.

    Raises:
        BackendError: PyTorch is not installed.
        WeightsError: the weights are missing or have changed.
    """
    try:
        import torch

        from cvnet_engine.benchmarks.methods.reference import reference
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
    return Method(name, f"torch-{device}", "fp32", identity, reference(model, device))
