"""Random and malformed feeds for the native pair scorer: each is scored rightly or refused with a BackendError.

`python -m tests.engine.backends.native_fuzz LIBRARY --count 10000` tries a compiled library beside the default one,
whose scores test_native.py holds against PyTorch; native_check.py runs it for every processor, compiler and sanitizer.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cvnet_engine.engine.backends.native import engine as native
from cvnet_engine.engine.backends.native.library import Grid, Maps, Tensor, declare, library
from cvnet_engine.engine.backends.native.weights import shapes
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.geometry import MAP_DIM, unit_map_sizes
from cvnet_engine.engine.retrieval import pooling

Feeds = dict[str, Array]
Rng = np.random.Generator

LOGIT_DRIFT = {"fp32": 1e-4, "bf16": 3e-2, "int8": 3e-2}  # between processors: sums in another order, other roundings
LONGEST = 7  # positions of a side
MOST_ROWS = 80  # of a matrix, and columns


def random_weights(seed: int, file: Path) -> Path:
    """Weights of the reranker that make logits of about 1."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes().items()}
    np.savez(file, allow_pickle=False, **tensors)
    return file


def feeds(rng: Rng) -> Feeds:
    """A query and up to three keys of random sizes, as float16 or float32."""
    found: Feeds = {}
    for side, batch in (("query", 1), ("key", int(rng.integers(0, 4)))):
        height, width = (int(n) for n in rng.integers(2, LONGEST + 1, 2))
        dtype = rng.choice([np.float16, np.float32])
        for s, size in enumerate(unit_map_sizes((height, width))):
            maps = rng.standard_normal((batch, MAP_DIM, *size), np.float32)
            found[f"{side}_{s}"] = (maps / np.linalg.norm(maps, axis=1, keepdims=True)).astype(dtype)
    return found


# Ways to feed the same values otherwise: the score must not change.


def as_it_is(array: Array, _: Rng) -> Array:
    return array


def transposed_in_memory(array: Array, _: Rng) -> Array:
    return np.asfortranarray(array)


def reversed_in_memory(array: Array, _: Rng) -> Array:
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def unaligned(array: Array, _: Rng) -> Array:
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


# Feeds that are none: each must be refused.


def poisoned(array: Array, rng: Rng) -> Array:
    """One value that makes its position no unit vector."""
    changed = array.copy()
    value = rng.choice([np.nan, np.inf, -np.inf, 1e4, -30])
    changed.reshape(-1)[rng.integers(changed.size)] = value
    return changed


def of_another_dtype(array: Array, rng: Rng) -> Array:
    other = np.float16 if array.dtype == np.float32 else np.float32  # as the other maps of its image are not
    return array.astype(rng.choice(["f8", "i4", "u1", ">f4", "g", "c8", "O", "?", np.dtype(other).str]))


def of_another_size(array: Array, rng: Rng) -> Array:
    axis, size = int(rng.integers(1, array.ndim)), int(rng.integers(0, 2 * LONGEST))
    wanted = size if size != array.shape[axis] else size + 1
    return np.zeros([wanted if a == axis else n for a, n in enumerate(array.shape)], array.dtype)


def of_another_rank(array: Array, rng: Rng) -> Array:
    return array[0, 0] if rng.random() < 0.5 else array[None]


SAME = (as_it_is, transposed_in_memory, reversed_in_memory, unaligned)
MALFORMED = (poisoned, of_another_dtype, of_another_size, of_another_rank)


class Fuzz:
    """One scorer, the one that it is held against, and what came of the feeds so far."""

    def __init__(self, folder: Path, precision: str, compiled: ctypes.CDLL, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        weights = random_weights(seed, folder / "weights.npz")
        self.scorer = with_library(compiled, lambda: native.NativeReranker(weights, precision, 2))
        self.judge = native.NativeReranker(weights, "fp32", 1)
        self.library, self.precision = compiled, precision
        self.outcomes: Counter[str] = Counter()

    def step(self) -> None:
        kinds = [self.take, self.change_in_place, self.refuse, self.refuse_names, self.refuse_in_c]
        kinds += [self.multiply, self.shrink]
        kind = self.rng.choice(kinds)
        kind(feeds(self.rng))
        self.outcomes[kind.__name__] += 1

    def take(self, fed: Feeds) -> None:
        """The same values, laid out anyhow."""
        laid = {name: self.rng.choice(SAME)(array, self.rng) for name, array in fed.items()}
        self.compare(laid, fed)

    def change_in_place(self, fed: Feeds) -> None:
        """A prepared query must not outlive its values."""
        self.scorer.run(fed)
        for s in range(3):
            fed[f"query_{s}"][...] = fed[f"query_{s}"][:, ::-1].copy()
        self.compare(fed, fed)

    def compare(self, laid: Feeds, fed: Feeds) -> None:
        got, want = self.scorer.run(laid), self.judge.run(fed)
        np.testing.assert_allclose(got["logits"], want["logits"], atol=LOGIT_DRIFT[self.precision])
        assert np.isfinite(got["score"]).all()
        assert ((got["score"] >= 0) & (got["score"] <= 1)).all()

    def refuse(self, fed: Feeds) -> None:
        """One map that is not what it should be."""
        name = self.rng.choice([name for name, array in fed.items() if array.size])
        broken = fed | {name: self.rng.choice(MALFORMED)(fed[name], self.rng)}
        self.expect_refusal(lambda: self.scorer.run(broken))
        with contextlib.suppress(BackendError):  # no trace of it in the next one
            self.compare(fed, fed)

    def refuse_names(self, fed: Feeds) -> None:
        del fed[self.rng.choice(list(fed))]
        self.expect_refusal(lambda: self.scorer.run(fed))

    def refuse_in_c(self, fed: Feeds) -> None:
        """What Python would not let through does not hurt the C code either: sizes without maps, and bare numbers."""
        del fed
        maps, handle = Maps(), ctypes.c_void_p()
        for s in range(3):
            maps.grid[s][:] = self.rng.choice([-(2**31), -1, 0, 1, 2**16, 2**31 - 1], 2).tolist()
        maps.grid[self.rng.integers(3)][0] = int(self.rng.choice([-1, 0, 2**31 - 1]))
        query, key = self.library.cvnet_prepare_query, self.library.cvnet_score
        logits = np.zeros(2, np.float32)
        assert query(self.scorer._handle, ctypes.byref(maps))
        assert key(self.scorer._handle, ctypes.byref(maps), 1, logits.ctypes.data)
        self.scorer._query = []  # it is prepared no longer
        tensors = (Tensor * 59)()  # no address, no size
        arguments = (int(self.rng.choice(n)) for n in ([-1, 0, 57, 58, 59, 2**31 - 1], [-1, 0, 2, 3], [-1, 0, 1]))
        assert self.library.cvnet_create(tensors, *arguments, ctypes.byref(handle))
        assert not handle

    def multiply(self, _: Feeds) -> None:
        rows, inner, columns = self.rng.integers(1, MOST_ROWS, 3).tolist()
        a, b = (self.rng.standard_normal(shape, np.float32) for shape in ((rows, inner), (inner, columns)))
        found = np.empty((rows, columns), np.float32)
        assert not self.library.cvnet_product(a.ctypes.data, b.ctypes.data, *a.shape, columns, found.ctypes.data)
        np.testing.assert_allclose(found, a @ b, atol=1e-4)

    def shrink(self, _: Feeds) -> None:
        channels, to, more = int(self.rng.integers(8, MOST_ROWS)), *self.rng.integers(1, LONGEST, (2, 2))
        unit_map = self.rng.standard_normal((channels, *(to + more - 1)), np.float32)
        sizes = Grid(*unit_map.shape[1:]), Grid(*to)
        found = np.empty((channels, *to), np.float32)
        assert not self.library.cvnet_shrink(unit_map.ctypes.data, False, channels, *sizes, found.ctypes.data)
        np.testing.assert_allclose(found, pooling.shrink(unit_map, tuple(to.tolist())), atol=1e-4)

    def expect_refusal(self, call: Callable[[], object]) -> None:
        with pytest.raises(BackendError) as refusal:
            call()
        assert "\n" not in str(refusal.value)

    def close(self) -> None:
        self.scorer.close()
        self.judge.close()


def with_library(compiled: ctypes.CDLL, make: Callable[[], native.NativeReranker]) -> native.NativeReranker:
    """An engine of this library, in every precision, those included that are slow on the processor."""
    default, accelerated = native.library, compiled.cvnet_accelerated
    native.library, compiled.cvnet_accelerated = lambda: compiled, lambda _: 1
    try:
        return make()
    finally:
        native.library, compiled.cvnet_accelerated = default, accelerated


@contextlib.contextmanager
def fuzzed(precision: str, compiled: ctypes.CDLL, seed: int) -> Iterator[Fuzz]:
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), precision, compiled, seed)
        try:
            yield fuzz
        finally:
            fuzz.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path, nargs="?", help="the default one where none is named")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    compiled = declare(ctypes.CDLL(str(options.library))) if options.library else library()
    for precision in native.PRECISIONS:
        with fuzzed(precision, compiled, options.seed) as fuzz:
            for _ in range(-(-options.count // len(native.PRECISIONS))):
                fuzz.step()
            print(precision, dict(fuzz.outcomes), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
