"""Bundle builder: export each graph, check it against PyTorch, choose a backend, and write the folder atomically."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cvnet_engine.cvnet import built_in, checkpoint
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine.backends import BACKENDS, PRECISIONS, WHOLE, auto_backends, open_engine
from cvnet_engine.engine.bundle import (
    BUILT,
    FORMAT,
    MANIFEST,
    GraphFile,
    Manifest,
    sha256,
    take_over,
    write_manifest,
)
from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.errors import BackendError, BundleError, ImageError
from cvnet_engine.engine.files import rename, sync
from cvnet_engine.engine.gallery.indexing import find_images
from cvnet_engine.engine.geometry import DESCRIPTOR_NAMES, GRAPH_NAMES, Size
from cvnet_engine.engine.images import check_size, load, normalise
from cvnet_engine.engine.retrieval.descriptors import DESCRIPTORS
from cvnet_engine.export import accuracy, parity
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.selection import Choice, choose

LIBRARIES = ("torch", "torchvision", "onnx", "onnxscript", "onnx-ir", "numpy")
CALIBRATION_IMAGES, CALIBRATION_SIDE_PX = 48, 640


@dataclass(frozen=True)
class BuildSettings:
    """Settings of a build.

    Attributes:
        weights, depth: see `checkpoint.load`.
        backend: one backend for all graphs, or `auto` for each graph's fastest backend at the first of `sizes`.
        precision: one of `PRECISIONS`.
        sizes: (height, width) px of the expected images, the most frequent size first.
        calibration: folder of photos like the expected ones, to calibrate int8 and to measure accuracy loss.
        targets: GPU architectures to compile for ahead of time (TensorRT for RTX only).
        descriptor: one of `DESCRIPTOR_NAMES`.
    """

    weights: str
    depth: int
    backend: str = "auto"
    precision: str = "fp32"
    sizes: Sequence[Size] = ((768, 1024),)
    calibration: Path | None = None
    targets: Sequence[str] = ()
    descriptor: str = "cvnet"


def build(
    settings: BuildSettings,
    out: Path,
    step: Callable[[str], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build the bundle of a model in the folder `out`, replacing an existing bundle.

    Args:
        step: called with a description of each stage when it begins.
        note: called with each remark on the weights, see `checkpoint.load`.

    Raises:
        WeightsError, ExportError, BackendError, ImageError: see `checkpoint.load`, `export`, `choose`, `find_images`.
        BundleError: `out` exists and is not a bundle, or cannot be written.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: exists and is not a bundle; expected a new folder or a bundle to replace")
    started = Build(settings, step)
    step(f"loading {settings.weights}")
    model = checkpoint.load(settings.weights, settings.depth, note, settings.descriptor)
    with unfinished_folder(out) as folder:
        manifest = started.fill(folder, model)
        write_manifest(manifest, folder)
    return manifest


class Build:
    """A build with checked settings.

    Attributes:
        candidates: the backends to consider, by graph.
        sizes: the image sizes that are large enough for the descriptor.
        photos: calibration images (1, 3, H, W) float32.
        targets: GPU architectures to compile for ahead of time.
        not_run: reason why this machine cannot run the files, so that they are not checked; None if it can.
    """

    def __init__(self, settings: BuildSettings, step: Callable[[str], None]) -> None:
        """Raises BackendError or ImageError if the settings are invalid, or the photos cannot be read."""
        self.settings, self._step = settings, step
        self.candidates = {
            graph: candidate_backends(graph, settings.backend, settings.precision) for graph in GRAPH_NAMES
        }
        self.sizes = usable_sizes(settings.sizes, settings.descriptor)
        self.photos = calibration_photos(settings.calibration, settings.precision, settings.descriptor)
        self.targets = resolved_targets(self.candidates["features"], settings.targets)
        self.not_run = why_not_run(self.candidates["features"], self.targets)

    def fill(self, folder: Path, model: CVNet) -> Manifest:
        """Write the files of the chosen backends to a folder, and return the manifest."""
        precision = self.settings.precision
        artifacts = Artifacts(folder, model, precision, self.photos, self.sizes, self.targets, self._step)
        cases = {} if self.not_run else self.cases(model)
        choices = {graph: self.choice(graph, artifacts, cases) for graph in GRAPH_NAMES}
        cost = self.accuracy(choices, cases)
        fallback = fallback_of(choices["reranker"], precision)
        kept = [choice.file.name for choice in choices.values()] + ([fallback.file] if fallback else [])
        keep(folder, kept)
        return self.manifest(model, choices, fallback, cost)

    def cases(self, model: CVNet) -> dict[str, list[parity.Case]]:
        """Return the inputs to check each graph on, with PyTorch's outputs."""
        self._step("running PyTorch to compare with")
        planned = any(BACKENDS[name].suffix == ".plan" for name in self.candidates["features"])
        samples = parity.samples(self.sizes if planned else None, self.photos, self.settings.descriptor)
        return parity.cases(model, samples)

    def choice(self, graph: str, artifacts: Artifacts, cases: dict[str, list[parity.Case]]) -> Choice:
        """Write the files of a graph's backends and choose one; the last one, unchecked, without cases."""
        files = {name: artifacts.file(graph, name) for name in self.candidates[graph]}
        if not cases:
            return Choice(*files.popitem(), parity={}, timings_ms={}, refused={})
        self._step(f"checking {graph} on {', '.join(files)}")
        return choose(graph, files, cases[graph], self.settings.precision, self.sizes[0])

    def accuracy(self, choices: dict[str, Choice], cases: dict[str, list[parity.Case]]) -> dict[str, float] | None:
        """Return the fields of `accuracy.measure` for the chosen backends; None without photos or cases."""
        if not self.photos or not cases:
            return None
        precision = self.settings.precision
        self._step("measuring the accuracy loss")
        with opened(choices, "features", precision) as features, opened(choices, "reranker", precision) as reranker:
            return asdict(accuracy.measure(features, reranker, cases, precision))

    def manifest(
        self, model: CVNet, choices: dict[str, Choice], fallback: GraphFile | None, cost: dict[str, float] | None
    ) -> Manifest:
        weights, precision = self.settings.weights, self.settings.precision
        return Manifest(
            format=FORMAT,
            depth=self.settings.depth,
            weights=weights if built_in.is_built_in(weights) else str(Path(weights).absolute()),
            weights_digest=checkpoint.digest(model),
            trained=built_in.seed_of(weights) is None,
            precision=precision,
            graphs={name: graph_file(name, c.backend, c.file, precision) for name, c in choices.items()},
            fallback=fallback,
            versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            parity={name: choice.parity for name, choice in choices.items()},
            timings_ms={name: choice.timings_ms for name, choice in choices.items()},
            refused={name: choice.refused for name, choice in choices.items()},
            gpu=bound(choices, self.targets),
            not_run=self.not_run,
            accuracy=cost,
            descriptor=self.settings.descriptor,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def candidate_backends(graph: str, backend: str, precision: str) -> list[str]:
    """Return the backends to consider for a graph: the given one, or with `auto` all that this machine has.

    Raises:
        BackendError: an unknown backend or precision, or no backend that runs the graph in that precision.
    """
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is unknown; expected one of {', '.join(PRECISIONS)}")
    if backend != "auto" and backend not in WHOLE:
        raise BackendError(f"backend {backend!r} is unknown; expected auto or one of {', '.join(WHOLE)}")
    backends = auto_backends(graph) if backend == "auto" else [backend]
    able = [name for name in backends if BACKENDS[name].supports(graph, precision)]
    if not able:
        takers = [name for name in WHOLE if BACKENDS[name].supports(graph, precision)]
        raise BackendError(
            f"{' and '.join(backends)} cannot run {graph} in {precision}; expected {' or '.join(takers)}"
        )
    return able


def resolved_targets(backends: Iterable[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the GPU architectures to compile for ahead of time; empty for backends that compile for this machine.

    Raises:
        BackendError: unknown targets, or targets for a backend that does not take any.
    """
    for resolve in filter(None, (BACKENDS[name].resolve_targets for name in backends)):
        return resolve(targets)
    if targets:
        takers = [name for name, backend in BACKENDS.items() if backend.resolve_targets is not None]
        raise BackendError(f"--targets {','.join(targets)}: only for --backend {' or '.join(takers)}; leave it out")
    return ()


def why_not_run(backends: Iterable[str], targets: Sequence[str]) -> str | None:
    """Return the reason why plans compiled for these targets cannot run on this machine; None if they can."""
    try:
        for backend in (BACKENDS[name] for name in backends):
            if backend.resolve_targets is not None:
                backend.require_bound(backend.bind(targets))
    except (BackendError, BundleError) as error:
        return str(error)
    return None


def usable_sizes(sizes: Sequence[Size], descriptor: str) -> list[Size]:
    """Return the image sizes (height, width) px that are large enough for the descriptor.

    Raises:
        ImageError: all of them are too small.
    """
    shortest = DESCRIPTORS[descriptor].min_side_px
    usable = [size for size in sizes if min(size) >= shortest]
    if sizes and not usable:
        raise ImageError(
            f"all --sizes have a side of less than {shortest} px, which {DESCRIPTOR_NAMES[descriptor]}'s descriptor "
            "needs; give the sizes of typical images"
        )
    return usable


def calibration_photos(folder: Path | None, precision: str, descriptor: str = "cvnet") -> list[Array]:
    """Load an evenly spaced sample of a folder's photos, at most `CALIBRATION_IMAGES`, as inputs (1, 3, H, W) float32.

    Raises:
        BackendError: int8 without a folder.
        ImageError: the folder has no images, or one is unreadable or too small.
    """
    if folder is None:
        if precision == "int8":
            raise BackendError("int8 needs photos for calibration; expected --calibration DIR with typical photos")
        return []
    paths = find_images([folder])
    sample = paths[:: -(-len(paths) // CALIBRATION_IMAGES)]
    return [calibration_photo(path, DESCRIPTORS[descriptor].min_side_px) for path in sample]


def calibration_photo(path: Path, min_side_px: int) -> Array:
    image = load(path, max_side_px=CALIBRATION_SIDE_PX)
    try:
        check_size(image, min_side_px)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return normalise(image)


def opened(choices: dict[str, Choice], graph: str, precision: str) -> Engine:
    chosen = choices[graph]
    return open_engine(chosen.file, chosen.backend, BACKENDS[chosen.backend].precisions[graph][precision])


def graph_file(graph: str, backend: str, file: Path, precision: str) -> GraphFile:
    """Return the manifest's entry for a graph built for `precision`."""
    return GraphFile(file.name, sha256(file), backend, BACKENDS[backend].precisions[graph][precision])


def fallback_of(chosen: Choice, precision: str) -> GraphFile | None:
    """Return the runner-up for the reranker if the native pair scorer was chosen, whose weights need a C compiler."""
    if chosen.backend != "native" or not chosen.runner_up:
        return None
    return graph_file("reranker", *chosen.runner_up, precision)


def bound(choices: dict[str, Choice], targets: Sequence[str]) -> dict[str, str] | None:
    """Return the GPU and library versions that the chosen files are bound to; None if they run anywhere."""
    return next(filter(None, (BACKENDS[chosen.backend].bind(targets) for chosen in choices.values())), None)


def keep(folder: Path, names: list[str]) -> None:
    """Delete intermediate files; a plan's layer report (.json) and TensorRT's timing cache stay."""
    for file in folder.iterdir():
        if file.name not in names and file.suffix not in (".json", ".cache"):
            file.unlink()


@contextlib.contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes the bundle `out` if the block succeeds, and is deleted otherwise.

    A new bundle is built beside `out` and renamed. A replacement is built inside the existing bundle, see `take_over`.
    """
    replacing = (out / MANIFEST).is_file()
    place, prefix = (out, BUILT) if replacing else (out.absolute().parent, f".{out.name}.")
    try:
        with locked(out) if replacing else contextlib.nullcontext():
            place.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=place, prefix=prefix))
            try:
                yield folder
                folder.chmod(0o755)
                for path in (*folder.iterdir(), folder):
                    sync(path)
                if not replacing:
                    rename(folder, out)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            if replacing:
                take_over(out, folder)
    except OSError as error:
        raise BundleError(
            f"{out}: not written ({error.strerror or error}); free some space or choose another --out"
        ) from error


@contextlib.contextmanager
def locked(bundle: Path) -> Iterator[None]:
    """Hold the lock for replacing this bundle.

    Raises:
        BundleError: another build holds it.
    """
    descriptor = os.open(bundle, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BundleError(f"{bundle}: another build is replacing it; wait for that, or choose another --out") from error
    finally:
        os.close(descriptor)
