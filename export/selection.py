"""Backend selection: per graph, the fastest backend at the user's image size among those that agree with PyTorch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from cvnet_engine.engine.backends import BACKENDS, open_engine
from cvnet_engine.engine.contract import Array, Engine
from cvnet_engine.engine.errors import BackendError, CvnetError, ExportError
from cvnet_engine.engine.geometry import MAP_DIM, Size, map_size, unit_map_sizes
from cvnet_engine.export import parity

REPEATS = 3  # timed runs, after one of warm-up


@dataclass(frozen=True)
class Choice:
    """The backend chosen for a graph.

    Attributes:
        file: the file that the backend runs.
        parity: largest difference from PyTorch, by output.
        timings_ms: median time of every backend that agreed; empty if there was only one backend to consider.
        refused: error message of each backend that failed or did not agree with PyTorch.
        runner_up: the second fastest backend and its file; None if no other agreed.
    """

    backend: str
    file: Path
    parity: dict[str, float]
    timings_ms: dict[str, float]
    refused: dict[str, str]
    runner_up: tuple[str, Path] | None = None


def choose(graph: str, files: dict[str, Path], cases: list[parity.Case], precision: str, image_size: Size) -> Choice:
    """Return the fastest backend among those that agree with PyTorch.

    Args:
        files: the file that each backend runs.
        image_size: (height, width) px to time at.

    Raises:
        BackendError, ExportError: the first backend's error, if no backend agrees.
    """
    differences: dict[str, dict[str, float]] = {}
    timings_ms: dict[str, float] = {}
    errors: dict[str, CvnetError] = {}
    for backend, file in files.items():
        try:
            with open_engine(file, backend, BACKENDS[backend].precisions[graph][precision]) as engine:
                half_keys = BACKENDS[backend].suffix == ".plan"  # `Artifacts.to_compile`
                differences[backend] = parity.check(engine, cases, precision, half_keys)
                timings_ms[backend] = time_ms(engine, feeds(graph, image_size)) if len(files) > 1 else 0.0
        except (BackendError, ExportError) as error:
            errors[backend] = error
    agreed = [backend for backend in timings_ms if backend in differences]
    if not agreed:
        raise next(iter(errors.values()))
    fastest, *others = sorted(agreed, key=lambda backend: timings_ms[backend])
    refused = {backend: str(error) for backend, error in errors.items()}
    timed = timings_ms if len(files) > 1 else {}
    runner_up = (others[0], files[others[0]]) if others else None
    return Choice(fastest, files[fastest], differences[fastest], timed, refused, runner_up)


def time_ms(engine: Engine, feeds: dict[str, Array]) -> float:
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        engine.run(feeds)
        times.append(time.perf_counter() - started)
    return 1e3 * median(times[1:])


def feeds(graph: str, image_size: Size) -> dict[str, Array]:
    """Return random inputs of a graph for images of (height, width) px; their values do not affect the time."""
    rng = np.random.default_rng(0)
    if graph != "reranker":
        return {"image": rng.standard_normal((1, 3, *image_size), np.float32)}
    maps = [rng.standard_normal((1, MAP_DIM, *size), np.float32) for size in unit_map_sizes(map_size(image_size))]
    maps = [array / np.linalg.norm(array, axis=1, keepdims=True) for array in maps]
    return {f"{side}_{s}": m for side in ("query", "key") for s, m in enumerate(maps)}
