"""Generated descriptors have the measured variances; reports hold what the searches did."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lab import ann
from benchmarks.lab.ann import Spectrum, generate, row
from cvnet_engine.engine.errors import GalleryError


@pytest.fixture
def spectrum():
    return Spectrum(0.9, 0.03 / (1 + np.arange(20.0)), 0.01 / (1 + np.arange(20.0)))


def directions(spectrum: Spectrum) -> float:
    """The effective number of directions of the variance."""
    total = spectrum.between + spectrum.within
    return total.sum() ** 2 / (total**2).sum()


def test_spectrum_is_measured_as_it_was_drawn(spectrum, monkeypatch):
    monkeypatch.setattr(ann, "DESCRIPTOR_DIM", 64)
    monkeypatch.setattr(ann, "BLOCK", 400)
    blocks = [spectrum.block(number) for number in range(2)]
    groups = [f"{number}-{place // ann.VIEWS}" for number in range(2) for place in range(ann.BLOCK)]
    measured = Spectrum.of(np.concatenate(blocks), groups)
    assert directions(measured) == pytest.approx(directions(spectrum), rel=0.3)
    share = measured.within.sum() / (measured.within + measured.between).sum()
    assert share == pytest.approx(0.25, abs=0.03)


def test_spectrum_leaves_a_direction_to_the_mean(monkeypatch):
    monkeypatch.setattr(ann, "DESCRIPTOR_DIM", 8)
    rows = np.random.default_rng(0).standard_normal((20, 8), np.float32) + 1
    measured = Spectrum.of(rows, [str(row // 2) for row in range(20)])
    assert len(measured.within) == len(measured.between) == 7
    assert measured.photographs(np.zeros((3, 7), np.float32), np.random.default_rng(1)).shape == (3, 8)


def test_spectrum_needs_two_photographs_of_a_place(spectrum):
    for names in ("", "a", "abc"):
        with pytest.raises(GalleryError, match="no place has two images"):
            Spectrum.of(spectrum.block(0)[: len(names)], names)


def test_stretched_spectrum_keeps_its_variance(spectrum):
    wide = spectrum.stretched(4)
    assert len(wide.within) == 80
    assert wide.within.sum() == pytest.approx(spectrum.within.sum(), rel=0.4)
    assert directions(wide) > 2.5 * directions(spectrum)


def test_collection_is_stored_as_it_was_drawn(spectrum, tmp_path, monkeypatch):
    monkeypatch.setattr(ann, "BLOCK", 64)
    descriptors = generate(tmp_path, spectrum, 3)
    assert np.array_equal(descriptors[64:128], spectrum.block(1))
    assert np.array_equal(descriptors.blocks[2].in_half(), spectrum.block(2).astype(np.float16))
    descriptors.release()
    np.testing.assert_allclose(np.linalg.norm(descriptors[:], axis=1), 1, atol=1e-5)
    query = spectrum.query(0, 3)
    assert query.shape == (2048,)
    assert (descriptors[:] @ query).max() < 0.9999  # another photograph


def test_collections_are_removed_also_after_an_error(spectrum, tmp_path, monkeypatch):
    measured: list[Path] = []

    def measure(folder: Path, kind, spectrum, *_) -> ann.Measured:
        measured.append(folder)
        generate(folder, spectrum, 1)
        if len(measured) == 2:
            raise GalleryError("damaged")
        return ann.Measured(kind, 64, "not reached")

    monkeypatch.setattr(ann, "BLOCK", 64)
    monkeypatch.setattr(ann, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(ann, "spectrum_of", lambda *_: spectrum)
    monkeypatch.setattr(ann, "measure", measure)
    left = tmp_path / "work" / "ann-random-64"
    left.mkdir(parents=True)
    with pytest.raises(GalleryError, match="damaged"):
        ann.main(tmp_path, tmp_path / "work", tmp_path / "ann", "64,64", "random")
    assert len(measured) == 2
    assert list((tmp_path / "work").iterdir()) == [left]
    assert len(json.loads((tmp_path / "ann.json").read_text())["collections"]) == 1


def test_table_has_rows_of_searches_and_of_refusals():
    refused = ann.Measured("random", 10, "not reached")
    searched = ann.Measured("like", 1000, exact_s=0.2, ann_s=0.1, recall=0.99, candidates=300)
    columns = len(ann.table([refused, searched]).columns)
    assert [len(row(m)) for m in (refused, searched)] == [columns] * 2
    assert row(refused)[-1] == "refused: not reached"
    assert row(searched)[2:6] == ("200", "100", "2.0", "0.9900")
