"""`build`: a checkpoint to a bundle."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from cvnet_engine import console
from engine.errors import BackendError
from engine.machine import choose_backend
from engine.session import BACKENDS


def run(weights: str, depth: int, out: Path, backend: str, json: Path | None) -> None:
    if backend == "auto":
        backend, reason = choose_backend()
        console.say(f"backend {backend}: {reason}")
    elif backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is unknown; expected auto, {' or '.join(BACKENDS)}")
    try:
        from export.build import build
    except ImportError as error:
        raise BackendError(
            f"building needs PyTorch and ONNX ({error}); install the 'export' extra of cvnet-engine"
        ) from error

    started = time.perf_counter()
    with console.err.status("starting") as status:
        manifest = build(weights, depth, out, backend, lambda step: status.update(step))
    size = sum(file.stat().st_size for file in out.iterdir())
    worst = ", ".join(f"{name} {difference:.0e}" for name, difference in manifest.parity.items())
    console.say(f"{out}: {manifest.model}, {size / 1e6:.0f} MB, {time.perf_counter() - started:.0f} s")
    console.say(f"largest difference from PyTorch: {worst}")
    if not manifest.trained:
        console.warn_untrained()
    if json:
        console.write_json(json, asdict(manifest))
