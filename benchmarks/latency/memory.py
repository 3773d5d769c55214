"""Peak memory of one call, measured in a fresh process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from cvnet_engine.benchmarks.latency.stages import photo
from cvnet_engine.benchmarks.methods.method import Method, open_bundle, open_reference
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import LOCAL_DIM, MAP_DIM, Size, map_size, unit_map_sizes

STAGES = ("pair score", "extract, all scales")


def peaks(bundle: Path, of_reference: bool, image: Size, threads: int) -> dict[str, int]:
    """Return by how many bytes each stage's first call raises peak memory over the loaded model, in a new process."""
    found = {}
    for stage in STAGES:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[stage] = pool.submit(stage_peak, stage, bundle, of_reference, image, threads).result()
    return found


def stage_peak(stage: str, bundle: Path, of_reference: bool, image: Size, threads: int) -> int:
    """Load the model, then measure one call."""
    method = open_reference(Bundle(bundle), threads) if of_reference else open_bundle(bundle, threads)
    if stage == STAGES[0]:
        query, key = (random_features(method, image, seed) for seed in range(2))
        return peak_growth(lambda: method.engines.score(query, [key]))
    picture = photo(*image, 0)
    return peak_growth(lambda: method.engines.extract(picture))


def random_features(method: Method, image: Size, seed: int) -> Features:
    """Return random feature maps in the form that the method's reranker expects."""
    rng = np.random.default_rng(seed)
    if method.is_reference:
        shapes = [(LOCAL_DIM, *map_size(image))]
    else:
        shapes = [(MAP_DIM, *size) for size in unit_map_sizes(map_size(image))]
    maps = (rng.standard_normal(shape, np.float32) for shape in shapes)
    empty: Array = np.empty(0)
    return Features(empty, tuple(m / np.linalg.norm(m, axis=0) for m in maps))  # L2-normalised, as the reranker expects


def peak_growth(call: Callable[[], object]) -> int:
    """Return by how many bytes a call raises the peak of resident memory over its current use."""
    ctypes.CDLL(None).malloc_trim(0)  # release memory freed by loading, which would hide growth
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current use
    before = status_bytes("VmHWM")
    call()
    return status_bytes("VmHWM") - before


def status_bytes(field: str, process: int | str = "self") -> int:
    """Return a field of /proc/PROCESS/status in bytes, such as VmHWM, the peak of resident memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
