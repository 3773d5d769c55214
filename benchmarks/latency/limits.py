"""Limits of this processor, measured during the run: matrix products and memory copies."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cvnet_engine.benchmarks.latency.costs import Cost
from cvnet_engine.benchmarks.latency.timing import Rounds, take_turns
from cvnet_engine.engine.contract import Array

SIDE = 2048  # of the square matrices; 16 MiB each in float32
COPY_VALUES = 2**25  # float32 values, 128 MiB, larger than any cache
ROUNDS = Rounds(warm_up=2, fewest=9, most=9)


@dataclass(frozen=True)
class Limits:
    """Rates at one moment: matrix products by precision, in 10⁹ operations/s, and copying, in 10⁹ bytes/s.

    Copied bytes count twice, because they are read and written.
    """

    gemm_gflops: dict[str, float]
    copy_gb_s: float


@dataclass
class Ceiling:
    """Rates measured at several moments of one run."""

    moments: list[Limits] = field(default_factory=list)

    def look(self, threads: int) -> None:
        """Measure the rates once more."""
        self.moments.append(measure(threads))

    @property
    def best(self) -> Limits:
        """The highest value of each rate."""
        names = self.moments[0].gemm_gflops
        gemm = {name: max(m.gemm_gflops[name] for m in self.moments) for name in names}
        return Limits(gemm, max(m.copy_gb_s for m in self.moments))

    @property
    def unsteadiness(self) -> float:
        """Fraction by which the slowest float32 rate is below the fastest, because of other programs or heat."""
        rates = [m.gemm_gflops["fp32"] for m in self.moments]
        return 1 - min(rates) / max(rates)

    def floor_ms(self, cost: Cost, precision: str) -> float | None:
        """Return the least time a stage can take; None if the product rate of the precision was not measured."""
        best = self.best
        if cost.flop and precision not in best.gemm_gflops:
            return None
        compute_s = cost.flop / (1e9 * best.gemm_gflops[precision]) if cost.flop else 0.0
        return 1e3 * max(compute_s, cost.bytes / (1e9 * best.copy_gb_s))

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self.best),
            "unsteadiness": self.unsteadiness,
            "moments": [asdict(moment) for moment in self.moments],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Ceiling:
        """Read the output of `to_json`.

        Raises:
            ValueError: it contains no moments.
        """
        moments = [Limits(**moment) for moment in content["moments"]]
        if not moments:
            raise ValueError("limits of no moment")
        return cls(moments)


def measure(threads: int) -> Limits:
    """Measure the copying rate, and the product rate of the fastest library in each precision."""
    products = gemms(threads)
    times = take_turns(products, ROUNDS)
    gemm: dict[str, float] = {}
    for name, interval in times.items():
        precision, _, _ = name.partition(" ")
        gemm[precision] = max(gemm.get(precision, 0.0), 2e-9 * SIDE**3 / interval.median)
    return Limits(gemm, copy_gb_s())


def gemms(threads: int) -> dict[str, Callable[[], object]]:
    """Return a square matrix product per precision and library, named `PRECISION LIBRARY`."""
    import torch

    torch.set_num_threads(threads)
    single = torch.randn(SIDE, SIDE)
    bits16 = single.bfloat16()
    bits8 = (32 * single).to(torch.int8)
    array = single.numpy()
    return openvino_gemms(array, threads) | {
        "fp32 torch": lambda: single @ single,
        "fp32 numpy": lambda: array @ array,
        "bf16 torch": lambda: bits16 @ bits16,
        "int8 torch": lambda: torch._int_mm(bits8, bits8),
    }


def openvino_gemms(array: Array, threads: int) -> dict[str, Callable[[], object]]:
    """Return the matrix products of OpenVINO, which converts the float32 input itself; empty if it is not installed."""
    if not importlib.util.find_spec("openvino"):
        return {}
    import openvino
    from openvino import opset13 as ops

    found: dict[str, Callable[[], object]] = {}
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16")):
        factor = ops.parameter(array.shape, np.float32)
        model = openvino.Model([ops.matmul(factor, ops.constant(array), False, False)], [factor])
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        found[f"{precision} openvino"] = partial(request.infer, [array], share_inputs=True)
    return found


def copy_gb_s() -> float:
    """Measure the rate of copying memory larger than the caches, with all threads of PyTorch."""
    import torch

    source = torch.from_numpy(np.ones(COPY_VALUES, np.float32))
    target = torch.empty_like(source)
    times = take_turns({"copy": lambda: target.copy_(source)}, ROUNDS)
    return 2e-9 * source.nbytes / times["copy"].median
