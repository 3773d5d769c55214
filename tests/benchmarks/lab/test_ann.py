"""Generated descriptors have the variances that were measured; what is told of a search is what it did."""

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


def test_a_spectrum_is_measured_as_it_was_drawn(spectrum, monkeypatch):
    monkeypatch.setattr(ann, "BLOCK", 400)
    blocks = [spectrum.block(number) for number in range(2)]
    groups = [f"{number}-{place // ann.VIEWS}" for number in range(2) for place in range(ann.BLOCK)]
    measured = Spectrum.of(np.concatenate(blocks), groups)
    assert measured.participation == pytest.approx(spectrum.participation, rel=0.3)
    share = measured.within.sum() / (measured.within + measured.between).sum()
    assert share == pytest.approx(0.25, abs=0.03)


def test_a_spectrum_of_more_photographs_than_directions_leaves_one_to_the_mean(monkeypatch):
    monkeypatch.setattr(ann, "DESCRIPTOR_DIM", 8)
    rows = np.random.default_rng(0).standard_normal((20, 8), np.float32) + 1
    measured = Spectrum.of(rows, [str(row // 2) for row in range(20)])
    assert len(measured.within) == len(measured.between) == 7
    assert measured.photographs(np.zeros((3, 7), np.float32), np.random.default_rng(1)).shape == (3, 8)


def test_a_spectrum_takes_two_photographs_of_a_place(spectrum):
    for names in ("", "a", "abc"):
        with pytest.raises(GalleryError, match="no place has two images"):
            Spectrum.of(spectrum.block(0)[: len(names)], names)


def test_a_stretched_spectrum_has_as_much_variance_over_more_directions(spectrum):
    wide = spectrum.stretched(4)
    assert len(wide.within) == 80
    assert wide.within.sum() == pytest.approx(spectrum.within.sum(), rel=0.4)
    assert wide.participation > 2.5 * spectrum.participation


def test_a_collection_lies_in_files_as_it_was_drawn(spectrum, tmp_path, monkeypatch):
    monkeypatch.setattr(ann, "BLOCK", 64)
    descriptors = generate(tmp_path, spectrum, 3)
    assert np.array_equal(descriptors[64:128], spectrum.block(1))
    assert np.array_equal(descriptors.blocks[2].in_half(), spectrum.block(2).astype(np.float16))
    descriptors.release()
    np.testing.assert_allclose(np.linalg.norm(descriptors[:], axis=1), 1, atol=1e-5)
    query = spectrum.query(0, 3)
    assert query.shape == (2048,)
    assert (descriptors[:] @ query).max() < 0.9999  # one photograph more, none of those


def test_collections_are_removed_and_what_a_killed_run_left_is_in_no_ones_way(spectrum, tmp_path, monkeypatch):
    measured: list[Path] = []

    def measure(folder: Path, kind, spectrum, *_) -> ann.Measured:
        measured.append(folder)
        generate(folder, spectrum, 1)
        if len(measured) == 2:
            raise GalleryError("damaged")
        return ann.Measured(kind, 64, 20, 0, 0, 0, "not reached")

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


def test_a_refusal_is_a_row_of_the_table():
    refused = ann.Measured("random", 10, 2048, 0, 0, 0, "not reached")
    assert len(row(refused)) == len(ann.table([refused], "").columns)
    assert row(refused)[-1] == "refused: not reached"
