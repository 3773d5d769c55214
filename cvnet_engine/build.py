"""`build`: a checkpoint to a bundle."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from cvnet_engine import console
from engine.bundle import Manifest
from engine.errors import BackendError, ImageError
from engine.images import read_size
from engine.indexing import find_images
from engine.machine import auto_reason


def run(
    weights: str,
    depth: int,
    out: Path,
    backend: str,
    precision: str,
    sizes: str,
    max_side: int | None,
    calibration: Path | None,
    json: Path | None,
) -> None:
    parsed = sizes_in(Path(sizes), max_side) if Path(sizes).is_dir() else [parse_size(s) for s in sizes.split(",")]
    try:
        from export.build import build
    except ImportError as error:
        raise BackendError(f"building needs PyTorch and ONNX ({error}); install the 'export' extra") from error

    started = time.perf_counter()
    with console.err.status("starting") as status:
        manifest = build(weights, depth, out, backend, precision, parsed, calibration, lambda step: status.update(step))
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    console.say(f"{out}: {manifest.model}, {megabytes:.0f} MB, {time.perf_counter() - started:.0f} s")
    if backend == "auto":
        console.say(f"each graph on its fastest backend at {parsed[0][1]}x{parsed[0][0]} px; {auto_reason()}")
    show(manifest)
    if manifest.accuracy:
        console.say(accuracy_line(manifest.accuracy))
    console.warn_of_model(manifest)
    if json:
        console.write_json(json, asdict(manifest))


def show(manifest: Manifest) -> None:
    """A row a graph: where it runs, what the candidates took, and how far it is from PyTorch."""
    rows = []
    for name, graph in manifest.graphs.items():
        timings = ", ".join(f"{backend} {ms:.0f} ms" for backend, ms in manifest.timings_ms[name].items())
        worst = ", ".join(f"{output} {difference:.0e}" for output, difference in manifest.parity[name].items())
        rows.append((name, graph.backend, timings or "-", worst))
    console.table("", ("graph", "backend", "timed", "largest difference from PyTorch"), rows)
    for name, refused in manifest.refused.items():
        for backend, reason in refused.items():
            console.warn(f"{name} does not run on {backend}: {reason}")


def accuracy_line(accuracy: dict[str, float]) -> str:
    """What `export.accuracy.Accuracy` says, in a line."""
    cosine, drift, kept = (accuracy[name] for name in ("descriptor_cosine", "score_drift", "nearest_kept"))
    return (
        f"beside PyTorch on {accuracy['images']} photos: descriptor cosine at least {cosine:.5f}, "
        f"pair score drift at most {drift:.1e}, {kept:.1%} of the nearest 10 kept"
    )


def sizes_in(folder: Path, max_side_px: int | None) -> list[tuple[int, int]]:
    """Sizes (height, width) px of a folder's images as `index` shrinks them, the most frequent first.

    Raises:
        ImageError: no image there that can be read.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for path in find_images([folder]):
        with contextlib.suppress(ImageError):  # `index` will name it
            counts[read_size(path, max_side_px)] += 1
    if not counts:
        raise ImageError(f"{folder}: no image that can be read; expected photos whose sizes to build for")
    return [size for size, _ in counts.most_common()]


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` as (height, width) px.

    Raises:
        BackendError: anything else.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    if not found or min(int(found[1]), int(found[2])) < 32:
        raise BackendError(
            f"--sizes {text!r}: expected a folder, or WIDTHxHEIGHT in pixels, 32 or more each, as in 1024x768"
        )
    return int(found[2]), int(found[1])
