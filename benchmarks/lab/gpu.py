"""Comparison of all backends on an NVIDIA GPU: `python -m benchmarks.lab.gpu --out FILE`.

The methods are PyTorch as published (eager and compiled, float32 and float16), ONNX Runtime's CUDA provider (float32,
float16), TensorRT and TensorRT for RTX (float32, float16, int8), as far as they are installed. Before timing, results
are compared with PyTorch in float32 on the CPU; a method that differs too much or is missing is listed with the reason.

All methods take turns in one run (A B A B). PyTorch's tensors stay on the GPU, but the engines' times include copying
images and maps to the GPU and results back, so the comparison favours PyTorch. TensorRT's engines also run in float16
once for each of `VARIANTS`, to show the effect of each way of running them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.lab import commands
from benchmarks.lab.commands import DepthOption, OutOption, WeightsOption
from cvnet_engine.benchmarks.latency.stages import photo
from cvnet_engine.benchmarks.latency.timing import Rounds, take_turns
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.cvnet.model import CVNet
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends.onnxruntime import OnnxRuntimeEngine
from cvnet_engine.engine.backends.tensorrt import TensorRtEngine, require_device
from cvnet_engine.engine.backends.tensorrt_rtx import CURRENT, TensorRtRtxEngine, resolve
from cvnet_engine.engine.contract import Array, Engine, Uploading
from cvnet_engine.engine.errors import BackendError, CvnetError
from cvnet_engine.engine.geometry import Size
from cvnet_engine.engine.images import normalise
from cvnet_engine.engine.machine import usable_cpus
from cvnet_engine.export.graphs import GRAPHS
from cvnet_engine.export.onnx_export import export
from cvnet_engine.export.precision import take_half_keys, to_fp16, to_int8
from cvnet_engine.export.tensorrt_plan import PlanOptions, SizeRange, build_plan, profiles

MAX_DRIFT = {"fp32": 1e-4, "fp16": 5e-3, "int8": 1e-2}  # largest difference of a pair score
MIN_COSINE = {"fp32": 0.99999, "fp16": 0.9995, "int8": 0.999}  # smallest cosine between descriptors
CALIBRATION_IMAGES = 8
BASELINE = "PyTorch eager fp32"


@dataclass(frozen=True)
class Variant:
    """Way of running TensorRT's engines.

    Attributes:
        cuda_graphs: see `TensorRtEngine` and `TensorRtRtxEngine`.
        keeps_query: send the query's maps to the GPU once, not with each run.
        half_keys: send the candidates' maps in float16, not in float32.
    """

    cuda_graphs: bool = False
    keeps_query: bool = True
    half_keys: bool = True


AS_BUILT = Variant()
VARIANTS = {
    "with CUDA graphs": Variant(cuda_graphs=True),
    "query sent each time": Variant(keeps_query=False),
    "keys sent in float32": Variant(half_keys=False),
}


@dataclass(frozen=True)
class Check:
    """Differences from the reference: largest difference of a pair score, smallest cosine between descriptors."""

    drift: float
    cosine: float


@dataclass(frozen=True)
class GpuTime:
    """Time of a stage by one method over `n` runs; `speedup` is the baseline's median divided by this median."""

    stage: str
    size: str
    backend: str
    precision: str
    median_ms: float
    p95_ms: float
    n: int
    baseline: str
    speedup: float


@dataclass(frozen=True)
class GpuReport:
    """The whole comparison; `checks` and `absent` (reasons) are by method."""

    command: str
    date: str
    machine: machine.Machine
    torch: str
    model: str
    checks: dict[str, Check]
    absent: dict[str, str]
    records: list[GpuTime]


@dataclass(frozen=True)
class GpuMethod:
    """A method from normalised images to pair scores. Tensors may be on any device; calls wait for the result."""

    precision: str
    load: Callable[[Array], Any]  # images (B, 3, H, W) float32
    features: Callable[[Any], tuple[Any, Any]]  # loaded images -> descriptors (B, 2048), maps of B images
    score: Callable[[Any, Any], Any]  # maps of one query, maps of B keys -> scores (B,)
    to_host: Callable[[Any], Array]


def torch_method(model: CVNet, precision: str, device: str, compiled: bool) -> GpuMethod:
    """Return the published model; float16 uses autocast, which keeps operations that would overflow in float32."""
    model = model.to(device)
    backbone = torch.compile(model.backbone) if compiled else model.backbone
    reranker = torch.compile(model.reranker) if compiled else model.reranker

    def finished(call: Callable[..., Any], *arguments: Tensor) -> Any:
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=precision == "fp16"):
            result = call(*arguments)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def scores(query: Tensor, keys: Tensor) -> Tensor:
        logits = [reranker(query, key[None]) for key in keys]  # one pair at a time, as published
        return torch.cat(logits).float().softmax(dim=1)[:, 1]

    return GpuMethod(
        precision,
        load=lambda images: torch.from_numpy(images).to(device),
        features=partial(finished, backbone),
        score=partial(finished, scores),
        to_host=lambda tensor: tensor.float().cpu().numpy(),
    )


def engine_method(features: Engine, reranker: Engine, precision: str, keeps_query: bool = True) -> GpuMethod:
    """Return two engines whose inputs and outputs are in host memory."""

    def describe(images: Array) -> tuple[Array, list[Array]]:
        outputs = features.run({"image": images})
        return outputs["descriptor"], [outputs[f"map_{s}"] for s in range(3)]

    def score(query: list[Array], keys: list[Array]) -> Array:
        query_feeds = {f"query_{s}": m for s, m in enumerate(query)}
        if keeps_query and isinstance(reranker, Uploading):
            reranker.upload(query_feeds)  # no effect from the second call on
        return reranker.run(query_feeds | {f"key_{s}": m for s, m in enumerate(keys)})["score"]

    return GpuMethod(precision, load=lambda images: images, features=describe, score=score, to_host=lambda array: array)


def convert(model: CVNet, calibration: list[Array], folder: Path) -> dict[str, dict[str, Path]]:
    """Return precision -> graph name -> ONNX file of the features and the reranker; int8 uses the float16 reranker."""
    files: dict[str, dict[str, Path]] = {precision: {} for precision in MAX_DRIFT}
    for graph in GRAPHS[1:]:
        for precision in files:
            files[precision][graph.name] = folder / f"{graph.name}_{precision}.onnx"
        export(graph, model, files["fp32"][graph.name])
        to_fp16(files["fp32"][graph.name], files["fp16"][graph.name])
    to_int8(files["fp32"]["features"], files["int8"]["features"], calibration)
    files["int8"]["reranker"] = files["fp16"]["reranker"]
    return files


def cuda_provider(files: dict[str, Path], precision: str) -> GpuMethod:
    features, reranker = (
        OnnxRuntimeEngine(files[name], cuda=True, threads=usable_cpus()) for name in ("features", "reranker")
    )
    return engine_method(features, reranker, precision)


def tensorrt(files: dict[str, Path], precision: str, size: Size, batch: int, variant: Variant) -> GpuMethod:
    features, reranker = planned(files, size, batch, PlanOptions(), variant.half_keys)
    engines = TensorRtEngine(features, variant.cuda_graphs), TensorRtEngine(reranker, variant.cuda_graphs)
    return engine_method(engines[0], engines[1], precision, variant.keeps_query)


def tensorrt_rtx(files: dict[str, Path], precision: str, size: Size, batch: int, variant: Variant) -> GpuMethod:
    options = PlanOptions(targets=resolve([CURRENT]))
    features, reranker = planned(files, size, batch, options, variant.half_keys)
    engines = TensorRtRtxEngine(features, variant.cuda_graphs), TensorRtRtxEngine(reranker, variant.cuda_graphs)
    return engine_method(engines[0], engines[1], precision, variant.keeps_query)


def planned(files: dict[str, Path], size: Size, batch: int, options: PlanOptions, half_keys: bool) -> tuple[Path, Path]:
    """Return the plans of features and reranker for one image size, built if missing."""
    reranker = files["reranker"]
    if half_keys:
        reranker = reranker.with_name(f"{reranker.stem}_half-keys.onnx")
        take_half_keys(files["reranker"], reranker)

    def plan_of(name: str, graph: Path) -> Path:
        plan = graph.with_name("-".join((graph.stem, *options.targets)) + ".plan")
        if not plan.exists():
            shapes = profiles(name, [SizeRange(size, size, size)], batch)
            build_plan(graph, plan, shapes, plan.with_name("timings"), options, lambda *_: None)
        return plan

    return plan_of("features", files["features"]), plan_of("reranker", reranker)


def openers(
    model: CVNet, files: dict[str, dict[str, Path]], size: Size, batch: int
) -> dict[str, Callable[[], GpuMethod]]:
    """Return a function per method that opens it."""
    found: dict[str, Callable[[], GpuMethod]] = {}
    for precision in ("fp32", "fp16"):
        found[f"PyTorch eager {precision}"] = partial(torch_method, model, precision, "cuda", compiled=False)
        found[f"torch.compile {precision}"] = partial(torch_method, model, precision, "cuda", compiled=True)
        found[f"ONNX Runtime CUDA {precision}"] = partial(cuda_provider, files[precision], precision)
    for name, opener in (("TensorRT", tensorrt), ("TensorRT for RTX", tensorrt_rtx)):
        for precision in MAX_DRIFT:
            found[f"{name} {precision}"] = partial(opener, files[precision], precision, size, batch, AS_BUILT)
        for words, variant in VARIANTS.items():
            found[f"{name}, {words} fp16"] = partial(opener, files["fp16"], "fp16", size, batch, variant)
    return found


@dataclass(frozen=True)
class Outcome:
    """Results of a method for a query and B keys: descriptors (1 + B, 2048), scores (B,)."""

    descriptors: Array
    scores: Array


def outcome(method: GpuMethod, images: Array) -> Outcome:
    """Extract all images and score the first against the others."""
    query, query_maps = method.features(method.load(images[:1]))
    keys, key_maps = method.features(method.load(images[1:]))
    descriptors = np.concatenate([method.to_host(query), method.to_host(keys)])
    return Outcome(descriptors, method.to_host(method.score(query_maps, key_maps)))


def check(method: GpuMethod, images: Array, want: Outcome) -> Check:
    """Compare a method with the reference.

    Raises:
        BackendError: the difference exceeds what the precision allows.
    """
    got = outcome(method, images)
    drift = float(np.abs(got.scores - want.scores).max())
    norms = np.linalg.norm(got.descriptors, axis=1) * np.linalg.norm(want.descriptors, axis=1)
    cosine = float(((got.descriptors * want.descriptors).sum(axis=1) / norms).min())
    max_drift, min_cosine = MAX_DRIFT[method.precision], MIN_COSINE[method.precision]
    if not (drift <= max_drift and cosine >= min_cosine):
        raise BackendError(
            f"scores differ by {drift:.1e} and descriptors' cosine is {cosine:.5f}; expected {max_drift:.0e} at most "
            f"and {min_cosine} at least: not timed"
        )
    return Check(drift, cosine)


def open_and_check(
    openers: dict[str, Callable[[], GpuMethod]], images: Array, want: Outcome
) -> tuple[dict[str, GpuMethod], dict[str, Check], dict[str, str]]:
    """Return the methods that work, their differences from the reference, and why the others are absent."""
    methods: dict[str, GpuMethod] = {}
    checks: dict[str, Check] = {}
    absent: dict[str, str] = {}
    for name, opener in openers.items():
        typer.echo(name, err=True)
        try:
            method = opener()
            checks[name] = check(method, images, want)
            methods[name] = method
        except (CvnetError, RuntimeError) as error:  # torch.compile and CUDA raise RuntimeError
            absent[name] = " ".join((str(error) or type(error).__name__).split())[:300]
    return methods, checks, absent


def measure(methods: dict[str, GpuMethod], images: Array, repeats: int) -> list[GpuTime]:
    """Return a record per stage and method: one image and one pair, then a batch of each."""
    calls: dict[str, dict[str, Callable[[], Any]]] = {}
    batch = len(images) - 1
    for name, method in methods.items():
        one, many = method.load(images[:1]), method.load(images[1:])
        (_, query), (_, key), (_, keys) = (method.features(x) for x in (one, method.load(images[1:2]), many))
        calls.setdefault("features, 1 image", {})[name] = partial(method.features, one)
        calls.setdefault(f"features, {batch} images", {})[name] = partial(method.features, many)
        calls.setdefault("score, 1 pair", {})[name] = partial(method.score, query, key)
        calls.setdefault(f"score, {batch} pairs", {})[name] = partial(method.score, query, keys)
    records: list[GpuTime] = []
    size = "x".join(map(str, images.shape[2:]))
    for stage, by_method in calls.items():
        times = take_turns(by_method, Rounds(warm_up=3, fewest=repeats, most=repeats))
        baseline_s = times[BASELINE].median if BASELINE in times else float("nan")
        for name, interval in times.items():
            backend, _, precision = name.rpartition(" ")
            times_ms = (1e3 * interval.median, 1e3 * interval.p95)
            speedup = baseline_s / interval.median
            records.append(GpuTime(stage, size, backend, precision, *times_ms, repeats, BASELINE, speedup))
    return records


def markdown(report: GpuReport) -> str:
    """Format the report as tables."""
    lines = [
        f"# {', '.join(report.machine['cuda_devices'])}",
        "",
        f"{report.date}, `{report.command}`; PyTorch {report.torch}, model {report.model}. "
        f"Checked against PyTorch fp32 on the CPU before timing.",
        "",
        "| stage | method | precision | median ms | p95 ms | times as fast as PyTorch eager fp32 |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for r in report.records:
        times = f"{r.median_ms:.2f} | {r.p95_ms:.2f} | {r.speedup:.1f}"
        lines.append(f"| {r.stage} | {r.backend} | {r.precision} | {times} |")
    lines += ["", "| method | largest score drift | smallest descriptor cosine |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {c.drift:.1e} | {c.cosine:.6f} |" for name, c in report.checks.items()]
    lines += [f"\nNot timed: {name}: {reason}" for name, reason in report.absent.items()]
    return "\n".join(lines) + "\n"


def main(
    out: OutOption,
    weights: WeightsOption = "seeded:0",
    depth: DepthOption = 50,
    height: Annotated[int, typer.Option(min=64, help="Of the images, in pixels.")] = 768,
    width: Annotated[int, typer.Option(min=64, help="Of the images, in pixels.")] = 1024,
    batch: Annotated[int, typer.Option(min=1, help="Images, and keys of a query, at once.")] = 8,
    repeats: Annotated[int, typer.Option(min=1)] = 30,
) -> None:
    """Compare parity, latency and throughput of all backends on this machine's NVIDIA GPU."""
    try:
        require_device()
        report = run(weights, depth, (height, width), batch, repeats)
    except CvnetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    commands.write(out, asdict(report), markdown(report))
    typer.echo(markdown(report))


def run(weights: str, depth: int, size: Size, batch: int, repeats: int) -> GpuReport:
    torch.backends.cudnn.allow_tf32 = False  # real float32 in PyTorch, as in TensorRT
    model = checkpoint.load(weights, depth)
    images = np.concatenate([normalise(photo(*size, seed)) for seed in range(1 + batch)])
    calibration = [normalise(photo(*size, 1000 + seed)) for seed in range(CALIBRATION_IMAGES)]
    want = outcome(torch_method(model, "fp32", "cpu", compiled=False), images)
    with tempfile.TemporaryDirectory() as folder:
        files = convert(model, calibration, Path(folder))
        methods, checks, absent = open_and_check(openers(model, files, size, batch), images, want)
        records = measure(methods, images, repeats)
    return GpuReport(
        **commands.head("benchmarks.lab.gpu"),
        torch=torch.__version__,
        model=f"ResNet-{depth} {weights}",
        checks=checks,
        absent=absent,
        records=records,
    )


if __name__ == "__main__":
    typer.run(main)
