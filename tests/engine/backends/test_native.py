"""The native pair scorer in every precision, against outputs of the published code."""

import contextlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from cvnet_engine.engine.backends.native.engine import NativeReranker, accelerated
from cvnet_engine.engine.backends.native.library import FAILURES, SOURCE
from cvnet_engine.engine.contract import EnginePool
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.export.artifacts import Artifacts
from cvnet_engine.export.reranker import UnitMaps
from tests.golden_inputs import PAIR_SIZES, feature_map, golden_pair, related_feature_map

LOGITS_DRIFT = {"fp32": 1e-4, "bf16": 2e-2, "int8": 1e-1}
SCORE_DRIFT = {"fp32": 1e-5, "bf16": 2e-3, "int8": 1e-2}


@pytest.fixture(scope="module")
def weights(seeded_model, tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("native"), seeded_model(50), "fp32", [], [], (), print).file(
        "reranker", "native"
    )


@pytest.fixture(scope="module")
def scorer_in(weights):
    """precision -> the scorer; skips the test if this processor lacks the instructions."""
    with contextlib.ExitStack() as opened:

        @cache
        def scorer(precision):
            require_instructions(precision)
            return opened.enter_context(NativeReranker(weights, precision, threads=2))

        yield scorer


def require_instructions(precision):
    if not accelerated(precision):
        pytest.skip(f"this processor has no {precision} instructions")


@pytest.fixture(scope="module")
def feeds(seeded_model):
    """Stage-3 maps of a query and of a batch of keys -> the reranker's inputs."""
    unit_maps = UnitMaps(seeded_model(50).reranker)

    def make(query, keys, dtype=np.float32):
        with torch.inference_mode():
            maps = {"query": unit_maps(torch.from_numpy(query)), "key": unit_maps(torch.from_numpy(keys))}
        return {f"{side}_{s}": m.numpy().astype(dtype) for side, ms in maps.items() for s, m in enumerate(ms)}

    return make


@pytest.mark.parametrize("precision", SCORE_DRIFT)
@pytest.mark.parametrize("size", PAIR_SIZES)
def test_published_scores(scorer_in, feeds, golden, size, precision):
    outputs = scorer_in(precision).run(feeds(*golden_pair(*size)))
    tag = "{}x{}_{}x{}".format(*size)
    np.testing.assert_allclose(outputs["logits"][0], golden(50)[f"logits_{tag}"], atol=LOGITS_DRIFT[precision])
    np.testing.assert_allclose(outputs["score"][0], golden(50)[f"score_{tag}"], atol=SCORE_DRIFT[precision])


@pytest.mark.parametrize("size", [(2, 2, 2, 2), (2, 3, 5, 2), (3, 64, 20, 15), (17, 33, 33, 17), (31, 2, 2, 31)])
def test_odd_sizes_against_pytorch(scorer_in, feeds, seeded_model, size):
    hq, wq, hk, wk = size
    query = feature_map(f"odd{hq}x{wq}", hq, wq)
    key = related_feature_map(query, f"odd{hk}x{wk}", hk, wk)
    with torch.inference_mode():
        want = seeded_model(50).reranker(torch.from_numpy(query), torch.from_numpy(key))
    np.testing.assert_allclose(scorer_in("fp32").run(feeds(query, key))["logits"], want, atol=1e-4)


def test_float16_maps_are_accepted(scorer_in, feeds):
    pair = golden_pair(16, 21, 15, 20)
    whole, half = (scorer_in("fp32").run(feeds(*pair, dtype))["score"] for dtype in (np.float32, np.float16))
    np.testing.assert_allclose(half, whole, atol=5e-5)
    assert half != whole


def test_another_query_replaces_the_cached_one(scorer_in, feeds):
    """An array that changed in place is another query, see native_fuzz.py."""
    scorer, (query, key) = scorer_in("fp32"), golden_pair(7, 9, 9, 9)
    one, other = feeds(query, key), feeds(feature_map("other", 8, 6), key)
    first = scorer.run(one)["score"]
    assert np.abs(scorer.run(other)["score"] - first).max() > 1e-3
    np.testing.assert_array_equal(scorer.run(one)["score"], first)


def test_threads_that_share_a_scorer_get_their_own_scores(weights, feeds):
    query = feature_map("shared", 8, 6)
    keys = np.concatenate([related_feature_map(query, f"shared {n}", 7, 9) for n in range(2)])
    queries = [feeds(feature_map(f"thread {n}", 8, 6), keys) for n in range(4)]
    with EnginePool([NativeReranker(weights, "fp32", threads=2)]) as pool, ThreadPoolExecutor(4) as threads:
        alone = [pool.run(query)["score"] for query in queries]
        shared = list(threads.map(lambda n: pool.run(queries[n % 4])["score"], range(100)))
    for n, score in enumerate(shared):
        np.testing.assert_array_equal(score, alone[n % 4])


@pytest.mark.parametrize("precision", SCORE_DRIFT)
@pytest.mark.parametrize("size", [(9, 7), (34, 32)], ids=["a thread each", "all threads together"])
def test_a_batch_scores_like_each_key_alone(scorer_in, feeds, precision, size):
    """The larger size is beyond SMALL_PAIR in pair_scorer.c."""
    query = feature_map("batch query", *size)
    keys = np.concatenate([related_feature_map(query, f"batch {n}", *size) for n in range(3)])
    together, scorer = feeds(query, keys), scorer_in(precision)
    names = [name for name in together if name.startswith("key")]
    alone = [scorer.run(together | {name: together[name][n : n + 1] for name in names})["logits"][0] for n in range(3)]
    np.testing.assert_array_equal(scorer.run(together)["logits"], alone)


def test_one_faulty_key_of_a_batch_is_an_error(scorer_in, feeds):
    query, key = golden_pair(7, 9, 9, 9)
    together = feeds(query, np.concatenate([key] * 4))
    whole = scorer_in("fp32").run(together)["score"]
    broken = together["key_1"].copy()
    broken[2, 0, 0, 0] = np.nan
    with pytest.raises(BackendError, match="no unit vectors"):
        scorer_in("fp32").run(together | {"key_1": broken})
    np.testing.assert_array_equal(scorer_in("fp32").run(together)["score"], whole)


@pytest.mark.parametrize("precision", SCORE_DRIFT)
@pytest.mark.parametrize("fill", [0.0, 1e30])
def test_zero_and_huge_maps_are_finite(scorer_in, feeds, precision, fill):
    flat = np.full((1, 1024, 8, 8), fill, np.float32)
    outputs = scorer_in(precision).run(feeds(flat, flat))
    assert np.isfinite(outputs["logits"]).all()


def test_thread_counts_agree(weights, feeds):
    pair = feeds(*golden_pair(16, 21, 15, 20))
    scores = []
    for threads in (1, 2, 3):
        scorer = NativeReranker(weights, "fp32", threads)
        scores.append(scorer.run(pair)["score"][0])
        scorer.close()
    np.testing.assert_allclose(scores, scores[0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("key_2", lambda m: m[:, :128], "key_2"),
        ("key_1", lambda m: m.astype(np.float64), "expected float16, or float32"),
        ("key_1", lambda m: m.astype(np.float16), "expected float16, or float32"),
        ("key_0", lambda m: m[..., :1, :1], "key maps are of 1x1, 6x6, 8x8 positions"),
    ],
    ids=["channels", "float64", "two dtypes", "sizes of no image"],
)
def test_malformed_maps_are_refused(scorer_in, feeds, name, change, words):
    pair = feeds(*golden_pair(8, 8, 8, 8))
    with pytest.raises(BackendError, match=words):
        scorer_in("fp32").run(pair | {name: change(pair[name])})


@pytest.mark.parametrize("precision", SCORE_DRIFT)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_positions_that_are_not_unit_vectors_are_refused(scorer_in, feeds, precision, dtype):
    pair = feeds(*golden_pair(8, 8, 8, 8), dtype)
    for name, value in product(("query_0", "key_2"), (np.nan, np.inf, 3)):
        broken = pair[name].copy()
        broken[0, 17, 1, 2] = value
        with pytest.raises(BackendError, match="no unit vectors"):
            scorer_in(precision).run(pair | {name: broken})
    assert np.isfinite(scorer_in(precision).run(pair)["score"]).all()  # the error leaves no trace


def test_a_closed_scorer_is_an_error(weights, feeds):
    scorer = NativeReranker(weights, "fp32", threads=1)
    scorer.close()
    scorer.close()
    with pytest.raises(BackendError, match="closed"):
        scorer.run(feeds(*golden_pair(8, 8, 8, 8)))


def test_every_status_has_an_error_message():
    """memory.h and library.py list the same failures."""
    header = SOURCE.with_name("memory.h").read_text()
    names = re.search(r"typedef enum \{(.*)\} Status;", header)[1].split(",")
    assert len(names) == len(FAILURES)


WITHIN_LIMITS = """
import resource, sys
from pathlib import Path
import numpy as np
from cvnet_engine.engine.backends.native.engine import NativeReranker
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.engine.geometry import unit_map_sizes

weights, limit_mb, threads, side = Path(sys.argv[1]), *map(int, sys.argv[2:])
maps = {f"{name}_{s}": np.full((1, 256, *size), 1 / 16, np.float16)
        for name in ("query", "key") for s, size in enumerate(unit_map_sizes((side, side)))}
used = next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]
resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024 + limit_mb * 2**20,) * 2)
try:
    NativeReranker(weights, "fp32", threads).run(maps)
except BackendError as error:
    print(error)
"""


@pytest.mark.parametrize(("threads", "side", "words"), [(1, 120, "out of memory"), (1024, 8, "threads could not be")])
def test_too_little_memory_is_an_error_with_a_remedy(weights, threads, side, words):
    """400 MB more than Python and NumPy have: neither a pair of large maps nor a thousand stacks fit."""
    command = [sys.executable, "-c", WITHIN_LIMITS, str(weights), "400", str(threads), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


BESIDE_A_GUARD_PAGE = """
import ctypes, mmap, sys
from pathlib import Path
import numpy as np
from cvnet_engine.engine.backends.native.engine import NativeReranker
from cvnet_engine.engine.geometry import unit_map_sizes

def guarded(shape):  # an array that ends where its memory does
    size = int(np.prod(shape)) * 2
    pages = -(-size // mmap.PAGESIZE) + 1
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
    array = np.frombuffer(memory, np.uint8)[(pages - 1) * mmap.PAGESIZE - size:][:size].view(np.float16).reshape(shape)
    array[...] = 1 / 16
    end = array.ctypes.data + size
    no_access = 0
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), no_access) == 0
    return array

maps = {f"{name}_{s}": guarded((1, 256, *size))
        for name in ("query", "key") for s, size in enumerate(unit_map_sizes((9, 7)))}
assert np.isfinite(NativeReranker(Path(sys.argv[1]), sys.argv[2], 1).run(maps)["score"]).all()
"""


@pytest.mark.parametrize("precision", SCORE_DRIFT)
def test_nothing_is_read_beyond_the_maps(weights, precision):
    require_instructions(precision)
    command = [sys.executable, "-c", BESIDE_A_GUARD_PAGE, str(weights), precision]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SCORE_LARGE_PHOTOS = """
import sys
from pathlib import Path
import numpy as np
from cvnet_engine.engine.backends.native.engine import NativeReranker

scorer = NativeReranker(Path(sys.argv[1]), "fp32", threads=2)
sizes = ((64, 48), (91, 68), (128, 96))
maps = {f"{side}_{s}": np.full((1, 256, *sizes[s]), 1 / 16, np.float16) for side in ("query", "key") for s in range(3)}
assert np.isfinite(scorer.run(maps)["score"]).all()
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_a_pair_of_2048x1536_photos_takes_less_than_2_gb(weights):
    """The whole process at its peak, in the precision that needs most."""
    command = [sys.executable, "-c", SCORE_LARGE_PHOTOS, str(weights)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 2e9
