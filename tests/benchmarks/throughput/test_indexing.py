"""Timed indexing stores everything, and batches give the features of single images."""

from __future__ import annotations

import numpy as np
import pytest

from cvnet_engine.benchmarks.throughput.indexing import extract_batch, index_batches, index_files
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.images import load
from cvnet_engine.engine.retrieval.engines import Engines
from tests.hostile.tiny import write_bundle
from tests.pictures import photo

IMAGES = 5


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")
    with Engines.open(Bundle(folder), threads=1) as opened:
        yield opened


@pytest.fixture
def files(tmp_path):
    return [photo(tmp_path / f"{seed}.jpg", seed=seed) for seed in range(IMAGES)]


def test_a_batch_is_described_as_its_images_are(engines, files):
    images = list(map(load, files))
    for found, image in zip(extract_batch(engines, images), images, strict=True):
        expected = engines.extract(image)
        np.testing.assert_allclose(found.descriptor, expected.descriptor, atol=1e-6)
        for ours, theirs in zip(found.maps, expected.maps, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_every_image_is_stored_and_timed(engines, files, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    assert len(index_files(files, engines, one)) == len(index_batches(files, engines, many, 2)) == IMAGES
    with Gallery(one) as single, Gallery(many) as batches:
        assert single.paths == batches.paths == files
        np.testing.assert_allclose(single.descriptors[:], batches.descriptors[:], atol=1e-6)
