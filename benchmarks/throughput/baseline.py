"""Throughput baseline in PyTorch: a data loader reads, decodes and scales the files, the reference model does the rest.

It runs in its own process that keeps freed memory, the fastest setting for this computation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.methods.kept_memory import keep_memory
from cvnet_engine.benchmarks.methods.method import open_reference
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import Scales
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.descriptors import Descriptor
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher

Sample = tuple[float, list[Array]]  # start time, and network inputs (1, 3, H, W) float32 by scale


@dataclass(frozen=True)
class Job:
    """The reference's work on image files: extract them or, if there are `keys`, also rerank a shortlist for each.

    Attributes:
        keys: database images; the shortlist repeats them.
    """

    bundle: Path
    threads: int
    keys: tuple[Path, ...] = ()
    shortlist: int = 0


class Baseline(Closing):
    """The reference in another process, with the interface of `WorkerPool`."""

    def __init__(self, job: Job, files: Sequence[Path]) -> None:
        """
        Args:
            files: the files that `run` will process.

        Raises:
            WeightsError: the bundle's weights are missing or have changed.
        """
        self.seconds: list[float] = []
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        try:
            self._pool.submit(prepare, job, list(files)).result()
        except BaseException:
            self.close()
            raise

    def run(self, _: Sequence[Path]) -> None:
        self.seconds += self._pool.submit(work).result()

    def close(self) -> None:
        self._pool.submit(stop).result()
        self._pool.shutdown()


@dataclass(frozen=True)
class Scaled(Dataset[Sample]):
    """A PyTorch data set of image files as network inputs at every scale."""

    files: Sequence[Path]
    kind: Descriptor
    scales: Scales

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        begun, image = time.perf_counter(), load(self.files[index])
        return begun, [self.kind.network_input(image, scale) for scale in self.scales]


class Reference:
    """The model and its data loader, a process that reads a few images ahead."""

    def __init__(self, job: Job, files: Sequence[Path]) -> None:
        self._engines = open_reference(Bundle(job.bundle), job.threads).engines
        scaled = Scaled(files, self._engines.kind, self._engines.scales)
        self._loader = DataLoader(
            scaled, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
        )
        self._finish: Callable[[Features], object] = lambda _: None
        if job.keys:
            keys = [self._engines.extract_from(file) for file in job.keys]
            searcher = Searcher(self._engines, Database(list(islice(cycle(keys), job.shortlist))))
            self._finish = lambda query: searcher.find(query, Plan(top_k=job.shortlist, rerank=job.shortlist))

    def work(self) -> list[float]:
        """Return the seconds of each image from the start of loading."""
        seconds = []
        for begun, inputs in self._loader:
            (query,) = self._engines.describe(zip(self._engines.scales, map(np.asarray, inputs), strict=True))
            self._finish(query)
            seconds.append(time.perf_counter() - begun)
        return seconds


_reference: Reference | None = None  # in the worker process


def prepare(job: Job, files: Sequence[Path]) -> None:
    global _reference
    keep_memory()
    _reference = Reference(job, files)


def work() -> list[float]:
    assert _reference
    return _reference.work()


def stop() -> None:
    """End the data loader's process before this process ends."""
    global _reference
    _reference = None
