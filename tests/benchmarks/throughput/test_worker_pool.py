"""Worker pools: threads are divided, every file is processed, batches give the features of single images."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from cvnet_engine.benchmarks.throughput.worker_pool import (
    BATCH,
    Clients,
    Indexer,
    Spread,
    WorkerPool,
    extract_batch,
    index_batches,
    index_files,
    spreads,
)
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.engines import Engines
from tests.bundles import copy_bundle
from tests.pictures import photo


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 6, 16, 64])
def test_no_configuration_has_more_threads_than_available(threads):
    found = spreads(threads)
    assert len(set(found)) == len(found)
    assert all(1 <= s.threads * s.workers <= threads for s in found)
    assert found[:2] == [Spread(1, 1, 1, threads), Spread(BATCH, 1, 1, threads)]


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        (2, [Spread(1, 2, 1, 1), Spread(1, 1, 2, 1)]),
        (16, [Spread(1, 4, 1, 4), Spread(1, 1, 4, 4), Spread(1, 2, 2, 4)]),
    ],
)
def test_threads_are_divided(threads, expected):
    assert spreads(threads)[2:] == expected


@pytest.fixture
def files(tmp_path):
    return [photo(tmp_path / f"{seed}.jpg", seed=seed) for seed in range(5)]


@pytest.fixture(scope="module")
def engines(tiny_bundle):
    with Engines.open(Bundle(tiny_bundle), threads=1) as opened:
        yield opened


def test_single_images_and_batches_give_equal_galleries(engines, files, tmp_path):
    single, batches = tmp_path / "single", tmp_path / "batches"
    assert len(index_files(files, engines, single)) == len(index_batches(files, engines, batches, 2)) == len(files)
    with Gallery(single) as one, Gallery(batches) as other:
        assert one.paths == other.paths == files
        np.testing.assert_allclose(one.descriptors[:], other.descriptors[:], atol=1e-6)
    for found, file in zip(extract_batch(engines, list(map(load, files))), files, strict=True):
        for ours, theirs in zip(found.maps, engines.extract_from(file).maps, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("spread", [Spread(1, 2, 2, 1), Spread(BATCH, 1, 1, 1)])
def test_a_pool_processes_every_file(tiny_bundle, engines, files, tmp_path, spread):
    gallery = tmp_path / "gallery"
    index_files(files, engines, gallery)
    for make in (partial(Indexer, tiny_bundle, spread), partial(Clients, tiny_bundle, spread, gallery, 2)):
        with WorkerPool(make, spread.processes) as pool:
            pool.run(files)
            assert len(pool.seconds) == len(files)
            pool.run(files[:1])
            assert len(pool.seconds) == len(files) + 1
        assert all(seconds > 0 for seconds in pool.seconds)


def test_an_error_in_a_worker_process_is_raised(tiny_bundle, tmp_path):
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    for graph in manifest["graphs"].values():
        graph["precision"] = "int4"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackendError, match="int4"):
        WorkerPool(partial(Indexer, bundle, Spread(1, 1, 1, 1)), 1)
