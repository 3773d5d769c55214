"""PyTorch at its best: in a process of its own, whose C library keeps what is freed.

By itself PyTorch spends much of an image, and more than half of a pair, on memory that the kernel clears, see
`benchmarks.contenders.allocator`. The setting cannot be taken back, so what the other methods run in stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from cvnet_engine.benchmarks.contenders.allocator import keep_memory
from cvnet_engine.benchmarks.contenders.contender import open_reference
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.retrieval.engines import Engines

WARM_UP = 2  # calls, after which the memory is there
_retriever: Engines  # of the process apart


@contextlib.contextmanager
def keeping_reference(
    bundle: Path, threads: int, image: Array, query: Features, key: Features
) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Two calls for as long as the block lasts, warm: describe the image, and score the pair, by the reference."""
    with ProcessPoolExecutor(1, get_context("spawn"), prepare, (bundle, threads)) as pool:
        calls: tuple[Callable[[], object], Callable[[], object]] = (
            lambda: pool.submit(extract, image).result(),
            lambda: pool.submit(score, query, key).result(),
        )
        for call in calls * WARM_UP:
            call()
        yield calls


def prepare(bundle: Path, threads: int) -> None:
    global _retriever
    keep_memory()
    _retriever = open_reference(Bundle(bundle), threads).retriever


def extract(image: Array) -> None:
    _retriever.extract(image)


def score(query: Features, key: Features) -> None:
    _retriever.score(query, [key])
