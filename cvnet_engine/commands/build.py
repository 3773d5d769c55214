"""`build`: a bundle built from a checkpoint."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from pathlib import Path

from cvnet_engine import console
from cvnet_engine.engine.backends import auto_reason
from cvnet_engine.engine.bundle import Manifest
from cvnet_engine.engine.errors import BackendError, ImageError, install_hint
from cvnet_engine.engine.gallery.indexing import find_images
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import read_size
from cvnet_engine.engine.presets import named
from cvnet_engine.options import BuildOptions


def run(options: BuildOptions) -> None:
    preset = named(options.preset)
    sizes = parse_sizes(options.sizes, preset.max_side_px)
    try:
        from cvnet_engine.export.build import BuildSettings, build
    except ImportError as error:
        raise BackendError(f"build needs PyTorch and ONNX ({error}): {install_hint('export')}") from error

    started, notes = time.perf_counter(), list[str]()
    with console.err.status("starting") as status:
        settings = BuildSettings(
            options.weights,
            options.depth,
            options.backend,
            options.precision or preset.precision,
            sizes,
            options.calibration,
            [target for target in options.targets.split(",") if target],
            options.descriptor,
        )
        manifest = build(settings, options.out, status.update, notes.append)
    megabytes = sum(file.stat().st_size for file in options.out.rglob("*")) / 1e6
    console.say(f"{options.out}: {manifest.model}, {megabytes:.0f} MB, {time.perf_counter() - started:.0f} s")
    if options.backend == "auto":
        console.say(f"each graph on its fastest backend at {sizes[0][1]}x{sizes[0][0]} px; {auto_reason()}")
    show(manifest)
    for note in notes:
        console.warn(note)
    if manifest.not_run and manifest.gpu:
        console.warn(f"compiled for {manifest.gpu['targets']}, not checked here: {manifest.not_run}")
    if manifest.accuracy:
        console.say(accuracy_line(manifest.accuracy))
    console.warn_of_model(manifest)


def show(manifest: Manifest) -> None:
    """Print one row per graph: backend, precision, timings of all backends, largest difference from PyTorch."""
    rows = []
    for name, graph in manifest.graphs.items():
        timings = ", ".join(f"{backend} {ms:.0f} ms" for backend, ms in manifest.timings_ms[name].items())
        worst = ", ".join(f"{output} {difference:.0e}" for output, difference in manifest.parity[name].items())
        rows.append((name, graph.backend, graph.precision, timings or "-", worst or "not run"))
    console.table("", ("graph", "backend", "in", "timed", "largest difference from PyTorch"), rows)
    for name, refused in manifest.refused.items():
        for backend, reason in refused.items():
            console.warn(f"{name} does not run on {backend}: {reason}")


def accuracy_line(accuracy: dict[str, float]) -> str:
    """Format the fields of `export.accuracy.Accuracy` as one line."""
    cosine, drift, kept = (accuracy[name] for name in ("descriptor_cosine", "score_drift", "nearest_kept"))
    return (
        f"compared with PyTorch on {accuracy['images']} photos: descriptor cosine at least {cosine:.5f}, "
        f"pair score drift at most {drift:.1e}, {kept:.1%} of the nearest 10 kept"
    )


def parse_sizes(text: str, max_side_px: int | None) -> list[Size]:
    """Parse a list of WIDTHxHEIGHT, or read the image sizes of a folder.

    Returns:
        Sizes (height, width) px: a list in the given order, a folder's by frequency.
    """
    return sizes_in(Path(text), max_side_px) if Path(text).is_dir() else [parse_size(size) for size in text.split(",")]


def sizes_in(folder: Path, max_side_px: int | None) -> list[Size]:
    """Return the sizes (height, width) px of a folder's images after `index` resizes them, the most frequent first.

    Raises:
        ImageError: the folder has no readable image.
    """
    counts: Counter[Size] = Counter()
    for path in find_images([folder]):
        with contextlib.suppress(ImageError):  # `index` reports unreadable images
            counts[read_size(path, max_side_px)] += 1
    if not counts:
        raise ImageError(f"{folder}: no readable image; expected typical photos, to build for their sizes")
    return [size for size, _ in counts.most_common()]


def parse_size(text: str) -> Size:
    """Parse `WIDTHxHEIGHT`; return (height, width) px.

    Raises:
        BackendError: another format, or a side of less than 32 px.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    if not found or min(int(found[1]), int(found[2])) < 32:
        raise BackendError(
            f"--sizes {text!r}: expected a folder, or WIDTHxHEIGHT in pixels, 32 or more each, as in 1024x768"
        )
    return int(found[2]), int(found[1])
