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

from cvnet import checkpoint, seeded
from engine.bundle import FORMAT, MANIFEST, GraphFile, Manifest, sha256, write_manifest
from engine.errors import BundleError
from engine.files import rename, sync
from export import parity
from export.graphs import GRAPHS
from export.onnx_export import export

LIBRARIES = ("torch", "torchvision", "onnx", "onnxscript", "numpy")


def build(weights: str, depth: int, out: Path, backend: str, step: Callable[[str], None] = lambda _: None) -> Manifest:
    """Write the bundle of a model to the folder `out`, replacing a bundle that is there; `step` is told each stage.

    Raises:
        WeightsError, ExportError, BackendError: see `checkpoint.load`, `export`, `open_engine`.
        BundleError: `out` is something else than a bundle, or cannot be written.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: exists and is not a bundle; expected a new folder or a bundle to replace")
    step(f"loading {weights}")
    model = checkpoint.load(weights, depth)
    with unfinished_folder(out) as folder:
        graphs = {}
        for graph in GRAPHS:
            step(f"exporting {graph.name}")
            graphs[graph.name] = folder / f"{graph.name}.onnx"
            export(graph, model, graphs[graph.name])
        step(f"checking against PyTorch on {backend}")
        manifest = Manifest(
            format=FORMAT,
            depth=depth,
            weights=weights if seeded.parse(weights) is not None else str(Path(weights).absolute()),
            weights_digest=checkpoint.digest(model),
            trained=seeded.parse(weights) is None,
            precision="fp32",
            backend=backend,
            graphs={name: GraphFile(file.name, sha256(file)) for name, file in graphs.items()},
            versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            parity=parity.check(graphs, model, backend),
            built=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_manifest(manifest, folder)
    return manifest


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
