"""PyTorch reference in a process whose C library keeps freed memory.

A pair in the published form allocates and frees gigabytes. glibc returns large blocks to the kernel, which clears every
page of the next block: more than half of the time of a pair. The setting cannot be undone, so the reference with kept
memory runs in its own process and the other methods are unaffected.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from cvnet_engine.benchmarks.methods.method import open_reference
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.engines import Engines

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>
WARM_UP = 2  # calls until the memory is allocated
_engines: Engines  # in the worker process


def keep_memory() -> None:
    """Keep up to 2 GiB of freed memory from now on; no effect if the C library is not glibc."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(MMAP_MAX, 0)  # no block is mapped separately
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def keeping_reference(
    bundle: Path, threads: int, image: Array, query: Features, key: Features
) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Yield two warmed-up calls of the reference: extract the image, and score the pair."""
    with ProcessPoolExecutor(1, get_context("spawn"), prepare, (bundle, threads)) as pool:
        calls: tuple[Callable[[], object], Callable[[], object]] = (
            lambda: pool.submit(extract, image).result(),
            lambda: pool.submit(score, query, key).result(),
        )
        for call in calls * WARM_UP:
            call()
        yield calls


def prepare(bundle: Path, threads: int) -> None:
    global _engines
    keep_memory()
    _engines = open_reference(Bundle(bundle), threads).engines


def extract(image: Array) -> None:
    _engines.extract(image)


def score(query: Features, key: Features) -> None:
    _engines.score(query, [key])
