"""Throughput baseline in PyTorch: a data loader reads, decodes and scales the files, the reference model does the rest.

It runs in a `WorkerPool` of one process, which keeps freed memory, the fastest setting for this computation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.methods.kept_memory import keep_memory
from cvnet_engine.benchmarks.methods.method import open_reference
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.geometry import Scales
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.descriptors import Descriptor
from cvnet_engine.engine.retrieval.searcher import Plan, Searcher

Sample = tuple[float, list[Array]]  # start time, and network inputs (1, 3, H, W) float32 by scale


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

    def __init__(
        self, bundle: Path, threads: int, files: Sequence[Path], keys: Sequence[Path] = (), shortlist: int = 0
    ) -> None:
        """
        Args:
            files: the files that `work` extracts. If there are `keys`, it also reranks a shortlist for each.
            keys: database images; the shortlist repeats them.

        Raises:
            WeightsError: the bundle's weights are missing or have changed.
        """
        keep_memory()
        self._engines = open_reference(Bundle(bundle), threads).engines
        scaled = Scaled(files, self._engines.kind, self._engines.scales)
        self._loader = DataLoader(
            scaled, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
        )
        self._finish: Callable[[Features], object] = lambda _: None
        if keys:
            described = [self._engines.extract_from(file) for file in keys]
            searcher = Searcher(self._engines, Database(list(islice(cycle(described), shortlist))))
            self._finish = lambda query: searcher.find(query, Plan(top_k=shortlist, rerank=shortlist))

    def work(self, _: Sequence[Path]) -> list[float]:
        """Return the seconds of each image from the start of loading."""
        seconds = []
        for begun, inputs in self._loader:
            (query,) = self._engines.describe(zip(self._engines.scales, map(np.asarray, inputs), strict=True))
            self._finish(query)
            seconds.append(time.perf_counter() - begun)
        return seconds
