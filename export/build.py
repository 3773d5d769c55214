"""Building a bundle: export each graph, check it against PyTorch, and only then give the folder its name."""

from __future__ import annotations

import contextlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cvnet import checkpoint, seeded
from cvnet.model import CVNet
from engine import machine
from engine.bundle import FORMAT, MANIFEST, GraphFile, Manifest, sha256, write_manifest
from engine.errors import BackendError, BundleError
from engine.files import rename, sync
from export import parity
from export.graphs import GRAPHS
from export.onnx_export import export
from export.selection import Candidate, choose

WHOLE_BACKENDS = ("onnxruntime", "openvino", "onnxruntime-cuda")  # that run every graph
PRECISIONS_OF = {
    "onnxruntime": ("fp32",),
    "onnxruntime-cuda": ("fp32",),
    "openvino": ("fp32", "bf16"),
    "native": ("fp32", "bf16"),
}
LIBRARIES = ("torch", "torchvision", "onnx", "onnxscript", "numpy")


def build(
    weights: str,
    depth: int,
    out: Path,
    backend: str = "auto",
    precision: str = "fp32",
    image_size: tuple[int, int] = (768, 1024),
    step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write the bundle of a model to the folder `out`, replacing a bundle that is there.

    Args:
        weights, depth: see `checkpoint.load`.
        backend: one for all graphs, or `auto` for the fastest of each graph at `image_size` (height, width) px.
        precision: fp32 or bf16.
        step: told each stage as it begins.

    Raises:
        WeightsError, ExportError, BackendError: see `checkpoint.load`, `export`, `choose`.
        BundleError: `out` is something else than a bundle, or cannot be written.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: exists and is not a bundle; expected a new folder or a bundle to replace")
    step(f"loading {weights}")
    model = checkpoint.load(weights, depth)
    with unfinished_folder(out) as folder:
        files = {}
        for graph in GRAPHS:
            step(f"exporting {graph.name}")
            files[graph.name] = folder / f"{graph.name}.onnx"
            export(graph, model, files[graph.name])
        files["native"] = folder / "reranker.npz"
        export_weights(model, files["native"])

        step("running PyTorch to compare with")
        cases, choices = parity.cases(model), {}
        for graph in GRAPHS:
            backends = candidate_backends(graph.name, backend, precision)
            step(f"checking {graph.name} on {', '.join(backends)}")
            candidates = [Candidate(b, files["native" if b == "native" else graph.name]) for b in backends]
            choices[graph.name] = choose(graph.name, candidates, cases[graph.name], precision, image_size)
        keep(folder, {choice.candidate.file for choice in choices.values()})

        manifest = Manifest(
            format=FORMAT,
            depth=depth,
            weights=weights if seeded.parse(weights) is not None else str(Path(weights).absolute()),
            weights_digest=checkpoint.digest(model),
            trained=seeded.parse(weights) is None,
            precision=precision,
            graphs={name: graph_file(choice.candidate) for name, choice in choices.items()},
            versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            parity={name: choice.parity for name, choice in choices.items()},
            timings_ms={name: choice.timings_ms for name, choice in choices.items()},
            built=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_manifest(manifest, folder)
    return manifest


def candidate_backends(graph: str, backend: str, precision: str) -> list[str]:
    """Backends to consider for a graph: the one that was named, or all that this machine has.

    Raises:
        BackendError: no such backend, or none that computes in this precision.
    """
    if precision not in parity.TOLERANCE:
        raise BackendError(f"precision {precision!r} is unknown; expected {' or '.join(parity.TOLERANCE)}")
    if backend == "auto":
        backends = machine.backends(graph)
    elif backend in WHOLE_BACKENDS:
        backends = [backend]
    else:
        raise BackendError(f"backend {backend!r} is unknown; expected auto, {' or '.join(WHOLE_BACKENDS)}")
    able = [b for b in backends if precision in PRECISIONS_OF[b]]
    if not able:
        raise BackendError(
            f"{', '.join(backends)} cannot run {graph} in {precision}; install the 'openvino' extra, or use fp32"
        )
    return able


def graph_file(candidate: Candidate) -> GraphFile:
    return GraphFile(candidate.file.name, sha256(candidate.file), candidate.backend)


def keep(folder: Path, files: set[Path]) -> None:
    """Remove the files that no chosen backend runs."""
    for file in set(folder.iterdir()) - files:
        file.unlink()


def export_weights(model: CVNet, file: Path) -> None:
    """The verification network's tensors by published name, for the native engine."""
    np.savez(file, **{name: t.cpu().numpy() for name, t in model.reranker.learner.state_dict().items()})


@contextlib.contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and vanishes otherwise."""
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}."))
    except OSError as error:
        raise BundleError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        yield folder
        for file in folder.iterdir():
            sync(file)
        folder.chmod(0o755)
        replace_folder(folder, out)
    except OSError as error:
        raise BundleError(
            f"{out}: not written ({error.strerror or error}); free some space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(new: Path, out: Path) -> None:
    """Put `new` where `out` is; a folder cannot be renamed over one with files, so the old one steps aside first."""
    if not out.exists():
        rename(new, out)
        return
    old = new.with_name(f"{new.name}.old")
    out.replace(old)
    rename(new, out)
    shutil.rmtree(old)
