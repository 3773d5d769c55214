"""Choosing each graph's backend: whatever agrees with PyTorch and is fastest at the user's image size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from engine.errors import BackendError, ExportError
from engine.session import Array, Engine, open_engine
from export import parity
from export.reranker import REDUCED_LENGTHS

REPEATS = 3  # timed runs, after one of warm-up


@dataclass(frozen=True)
class Candidate:
    """A backend that could run a graph, and the file that it runs."""

    backend: str
    file: Path


@dataclass(frozen=True)
class Choice:
    """The backend that runs a graph, its differences from PyTorch, and every candidate's median milliseconds."""

    candidate: Candidate
    parity: dict[str, float]
    timings_ms: dict[str, float]


def choose(
    name: str, candidates: list[Candidate], cases: list[parity.Case], precision: str, image_size: tuple[int, int]
) -> Choice:
    """The fastest of the candidates that agree; a single one is not timed.

    Raises:
        BackendError, ExportError: the only candidate's own error, or none of several agrees.
    """
    agreed: dict[str, tuple[Candidate, dict[str, float]]] = {}
    timings_ms: dict[str, float] = {}
    refusals: list[Exception] = []
    for candidate in candidates:
        try:
            engine = open_engine(candidate.file, candidate.backend, precision)
            agreed[candidate.backend] = candidate, parity.check(engine, cases, precision)
            if len(candidates) > 1:
                timings_ms[candidate.backend] = time_ms(engine, feeds(name, image_size))
            engine.close()
        except (BackendError, ExportError) as error:
            refusals.append(error)
    if not agreed:
        raise refusals[0]
    fastest = min(agreed, key=lambda backend: timings_ms.get(backend, 0.0))
    return Choice(*agreed[fastest], timings_ms)


def time_ms(engine: Engine, feeds: dict[str, Array]) -> float:
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        engine.run(feeds)
        times.append(time.perf_counter() - started)
    return 1e3 * median(times[1:])


def feeds(name: str, image_size: tuple[int, int]) -> dict[str, Array]:
    """Inputs of a graph for images (height, width) px; the values do not matter to the time."""
    rng = np.random.default_rng(0)
    if name != "reranker":
        return {"image": rng.standard_normal((1, 3, *image_size), np.float32)}
    height, width = (-(-side // 16) for side in image_size)  # positions
    maps = []
    for length in (*REDUCED_LENGTHS, lambda n: n):
        array = rng.standard_normal((1, 256, length(height), length(width)), np.float32)
        maps.append(array / np.linalg.norm(array, axis=1, keepdims=True))
    return {f"{side}_{s}": m for side in ("query", "key") for s, m in enumerate(maps)}
