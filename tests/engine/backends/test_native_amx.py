"""bf16 pairs on the matrix unit: emulated on any processor; with AMX, the unit against its emulation."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine import machine
from cvnet_engine.engine.backends.native.engine import NativeReranker
from cvnet_engine.engine.backends.native.library import FLAGS, SOURCE, compiler, declare
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.geometry import MAP_DIM, Size, unit_map_sizes
from tests.engine.backends.native_fuzz import fuzzed, random_weights, with_library

EMULATED = ("-march=x86-64", "-O1", "-DAMX_EMULATED", "-Wno-psabi")
LOGIT_DRIFT = 1e-3  # of bfloat16 from float32; 3e-4 seen
SIZES = [((2, 2), (2, 2)), ((3, 5), (7, 4)), ((9, 6), (8, 13)), ((4, 33), (17, 3))]  # odd, even, more than a tile

needs_amx = pytest.mark.skipif("amx_bf16" not in machine.cpu_features(), reason="this processor has no AMX")


def compiled(folder: Path, *more: str) -> ctypes.CDLL:
    file = folder / "pair_scorer.so"
    subprocess.run([*compiler(), *FLAGS, *more, str(SOURCE), "-o", str(file), "-lm"], check=True)
    return declare(ctypes.CDLL(str(file)))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("emulated"), *EMULATED)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., NativeReranker]:
    """precision, library -> a scorer with random weights."""
    weights = random_weights(0, tmp_path_factory.mktemp("weights") / "weights.npz")

    def opened(precision: str, library: ctypes.CDLL | None = None) -> NativeReranker:
        if library is None:
            return NativeReranker(weights, precision, 2)
        return with_library(library, lambda: NativeReranker(weights, precision, 2))

    return opened


def pair(query: Size, key: Size) -> dict[str, Array]:
    """Feeds of two related images whose full-scale maps have these sizes."""
    rng = np.random.default_rng(5)
    common = rng.standard_normal((1, MAP_DIM, *np.maximum(query, key)), np.float32)
    feeds = {}
    for side, size in (("query", query), ("key", key)):
        for scale, (h, w) in enumerate(unit_map_sizes(size)):
            maps = common[:, :, :h, :w] + 0.3 * rng.standard_normal((1, MAP_DIM, h, w), np.float32)
            feeds[f"{side}_{scale}"] = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    return feeds


@pytest.mark.parametrize(("query", "key"), SIZES)
def test_emulated_bf16_scores_are_close_to_fp32(scorer, emulated, query, key):
    feeds = pair(query, key)
    with scorer("bf16", emulated) as tiles, scorer("fp32") as exact:
        got, want = tiles.run(feeds)["logits"], exact.run(feeds)["logits"]
    np.testing.assert_allclose(got, want, atol=LOGIT_DRIFT)
    assert not np.array_equal(got, want)


def test_other_precisions_do_not_use_the_matrix_unit(scorer, emulated):
    feeds = pair((5, 4), (4, 6))
    with scorer("fp32", emulated) as other, scorer("fp32") as exact:
        np.testing.assert_allclose(other.run(feeds)["logits"], exact.run(feeds)["logits"], atol=1e-5)


def test_feeds_are_scored_or_refused_under_emulation(emulated):
    with fuzzed("bf16", emulated, seed=3) as fuzz:
        for _ in range(40):
            fuzz.step()


@needs_amx
@pytest.mark.parametrize(("query", "key"), SIZES)
def test_the_matrix_unit_equals_its_emulation_bit_by_bit(scorer, tmp_path, query, key):
    feeds = pair(query, key)
    with scorer("bf16", compiled(tmp_path, "-DAMX_EMULATED")) as emulation, scorer("bf16") as unit:
        np.testing.assert_array_equal(unit.run(feeds)["logits"], emulation.run(feeds)["logits"])


@needs_amx
def test_tile_products_equal_the_emulated_ones(tmp_path):
    program = tmp_path / "amx_check"
    command = [*compiler(), "-O2", "-march=native", f"-I{SOURCE.parent}", str(Path(__file__).with_name("amx_check.c"))]
    subprocess.run([*command, "-o", str(program), "-lm"], check=True)
    done = subprocess.run([str(program), "2000"], check=False, capture_output=True, text=True)
    assert done.stdout == "0 of 512000 elements differ\n"
