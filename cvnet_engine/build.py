"""`build`: a checkpoint to a bundle."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path

from cvnet_engine import console
from engine.bundle import Manifest
from engine.errors import BackendError
from engine.machine import auto_reason


def run(
    weights: str,
    depth: int,
    out: Path,
    backend: str,
    precision: str,
    sizes: str,
    calibration: Path | None,
    json: Path | None,
) -> None:
    parsed = [parse_size(size) for size in sizes.split(",")]
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
        console.say(f"each graph on its fastest backend at {sizes.split(',')[0]} px; {auto_reason()}")
    show(manifest)
    if not manifest.trained:
        console.warn_untrained()
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


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` as (height, width) px.

    Raises:
        BackendError: anything else.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    if not found or min(int(found[1]), int(found[2])) < 32:
        raise BackendError(f"--sizes {text!r}: expected WIDTHxHEIGHT in pixels, 32 or more each, such as 1024x768")
    return int(found[2]), int(found[1])
