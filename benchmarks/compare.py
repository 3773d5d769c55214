"""Bundles beside the PyTorch reference, stage by stage: `python -m benchmarks.compare BUNDLE...`.

The reference is timed in both of its forms: *cached* keeps candidate features, as the engine does; *published*
extracts the candidate again for every pair, as the published loop does. All methods take turns in one run
(A B A B), so a change of the machine's speed meets all of them. A method whose scores differ is not timed.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.reference import reference
from cvnet import checkpoint
from engine import machine
from engine.bundle import Bundle
from engine.errors import BackendError
from engine.features import Features
from engine.files import write_atomically
from engine.gallery import FORMAT as GALLERY_FORMAT
from engine.gallery import FileStamp, Gallery, GalleryInfo, GalleryWriter
from engine.images import normalise
from engine.retriever import Retriever
from engine.session import Array, usable_cpus

HEIGHT_PX, WIDTH_PX = 1024, 768
SIZES = ((32, 24), (45, 34), (64, 48))  # positions of its maps
KEYS = 3  # different candidates
PAIR_GFLOP = 41.0  # of the factored pair score at 64x48 a side (DESIGN, section 3)
SHORTLIST = 100
MAX_DRIFT = {"fp32": 1e-5, "bf16": 1e-2, "int8": 1e-2}  # of a pair score


@dataclass(frozen=True)
class Method:
    """Something that extracts and scores, with features of one query and of a few keys."""

    name: str
    precision: str
    retriever: Retriever
    query: Features
    keys: list[Features]


def photo(height: int, width: int, seed: int) -> Array:
    """A picture-like image (H, W, 3) uint8: coarse structure and grain."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, 256, (height // 32, width // 32, 3)), np.ones((32, 32, 1)))
    return np.clip(blocks + rng.normal(0, 20, blocks.shape), 0, 255).astype(np.uint8)


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, all of them taken in turn, after one round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: median(values[1:]) for name, values in times.items()}


def gemm_gflops(dtype: torch.dtype, n: int = 2048) -> float:
    """Rate of a square matrix product, in GFLOP/s: the limit that the pair score is held against."""
    a = torch.randn(n, n).to(dtype)
    return 2e-9 * n**3 / interleaved({"mm": lambda: a @ a}, 9)["mm"]


def open_methods(bundles: list[Path], images: list[Array], threads: int) -> list[Method]:
    """The reference and every bundle, features extracted; float16 maps for bundles, as a gallery stores them."""
    opened = [Bundle(path) for path in bundles]
    manifest = opened[0].manifest
    torch.set_num_threads(threads)
    retrievers = {"PyTorch": ("fp32", reference(checkpoint.load(manifest.weights, manifest.depth)))}
    for path, bundle in zip(bundles, opened, strict=True):
        retrievers[path.name] = bundle.manifest.precision, Retriever.open(bundle, threads)
    methods = []
    for name, (precision, retriever) in retrievers.items():
        features = [retriever.extract(image) for image in images]
        if name != "PyTorch":
            features = [Features(f.descriptor, tuple(m.astype(np.float16) for m in f.maps)) for f in features]
        methods.append(Method(name, precision, retriever, features[0], features[1:]))
    return methods


def drift(method: Method, baseline: Method) -> float:
    """Largest difference of a pair score from the reference's, features included.

    Raises:
        BackendError: beyond what the precision allows.
    """
    want = [baseline.retriever.score(baseline.query, [key])[0] for key in baseline.keys]
    got = [method.retriever.score(method.query, [key])[0] for key in method.keys]
    worst = float(np.abs(np.array(got) - np.array(want)).max())
    if not worst <= MAX_DRIFT[method.precision]:
        raise BackendError(f"{method.name}: scores differ from PyTorch by {worst:.1e}; not timed")
    return worst


def published_loop(method: Method, image: Array) -> None:
    """What the published loop does for each candidate: extract its map, and score the pair."""
    outputs = method.retriever.features.run({"image": normalise(image)})
    candidate = Features(outputs["descriptor"][0], (outputs["map_0"][0],))
    method.retriever.score(method.query, [candidate])


def fill_gallery(method: Method, folder: Path) -> Gallery:
    """A gallery of `SHORTLIST` images on disk, the method's keys over and over."""
    with GalleryWriter(folder, GalleryInfo(GALLERY_FORMAT, "benchmark", "benchmark", None)) as writer:
        for row in range(SHORTLIST):
            writer.put(Path(f"/{row}"), FileStamp(0, 0, ""), method.keys[row % len(method.keys)])
    return Gallery(folder)


def measure(methods: list[Method], image: Array, repeats: int, folder: Path) -> dict[str, dict[str, float]]:
    """Median seconds by stage and method."""
    baseline, *engines = methods
    galleries = {method.name: fill_gallery(method, folder / method.name) for method in engines}
    rows = list(range(SHORTLIST))
    features = {m.name: partial(m.retriever.extract, image) for m in methods}
    pairs = {m.name: partial(m.retriever.score, m.query, m.keys[:1]) for m in methods}
    reranks = {m.name: partial(m.retriever.score_rows, m.query, galleries[m.name], rows) for m in engines}
    published = {"published": partial(published_loop, baseline, image)}
    stages = {
        "features": interleaved(features, repeats),
        "pair score": interleaved(pairs, repeats),
        f"rerank {SHORTLIST}": interleaved(reranks | published, max(1, repeats // 3)),
    }
    rerank = stages[f"rerank {SHORTLIST}"]
    rerank["PyTorch published"] = SHORTLIST * rerank.pop("published")  # the same for every candidate
    rerank["PyTorch"] = SHORTLIST * stages["pair score"]["PyTorch"]
    return stages


def peak_bytes(bundle: Path, of_reference: bool) -> int:
    """Growth of peak memory over the loaded model while one pair of 64x48 maps is scored; wants a fresh process."""
    manifest = Bundle(bundle).manifest
    if of_reference:
        retriever = reference(checkpoint.load(manifest.weights, manifest.depth))
    else:
        retriever = Retriever.open(Bundle(bundle))
    maps = (1024,) if of_reference else (256, 256, 256)
    sizes = SIZES[-len(maps) :]
    rng = np.random.default_rng(0)
    shapes = [(channels, *size) for channels, size in zip(maps, sizes, strict=True)]
    pair = [Features(np.empty(0), tuple(rng.standard_normal(s, np.float32) / 16 for s in shapes)) for _ in range(2)]
    ctypes.CDLL(None).malloc_trim(0)  # what loading left behind is not ours to hide in
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is in use now
    before = status_bytes("VmHWM")
    retriever.score(pair[0], pair[1:])
    return status_bytes("VmHWM") - before


def status_bytes(field: str) -> int:
    """A field of /proc/self/status, such as VmHWM, the peak of resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def in_fresh_process(call: Callable[..., int], *arguments: object) -> int:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def markdown(report: dict[str, Any]) -> str:
    """The report as tables: milliseconds, and how many times faster than each baseline."""
    machine_, methods, stages = report["machine"], report["methods"], report["stages"]
    lines = [
        f"{machine_['cpu']} ({', '.join(machine_['cpu_features'])}), {report['threads']} threads; {report['date']}",
        "",
        f"`{report['command']}`",
        "",
        "| stage | method | ms | times as fast as PyTorch | score drift | share of GEMM rate | peak memory, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage, seconds in stages.items():
        for name, value in seconds.items():
            facts = methods.get(name, {}) if stage == "pair score" else {}
            lines.append(
                f"| {stage} | {name} | {1e3 * value:.0f} | {seconds['PyTorch'] / value:.1f} | "
                f"{facts.get('drift', '')} | {facts.get('share', '')} | {facts.get('peak_mb', '')} |"
            )
    return "\n".join(lines) + "\n"


def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of one model to compare.")],
    out: Annotated[Path, typer.Option(help="Writes OUT.json and OUT.md.")],
    repeats: Annotated[int, typer.Option(min=1)] = 9,
    threads: Annotated[int, typer.Option(min=1)] = usable_cpus(),
) -> None:
    """Features of a 1024x768 image, score of a 64x48 pair, and a rerank of 100: engines beside PyTorch."""
    images = [photo(HEIGHT_PX, WIDTH_PX, seed) for seed in range(1 + KEYS)]
    methods = open_methods(bundles, images, threads)
    drifts = {method.name: drift(method, methods[0]) for method in methods[1:]}
    with tempfile.TemporaryDirectory() as folder:
        stages = measure(methods, images[0], repeats, Path(folder))
    limits = {"fp32": gemm_gflops(torch.float32), "bf16": gemm_gflops(torch.bfloat16)}
    facts = {"PyTorch": {"peak_mb": in_fresh_process(peak_bytes, bundles[0], True) // 10**6}}
    for path, method in zip(bundles, methods[1:], strict=True):
        rate = PAIR_GFLOP / stages["pair score"][method.name]
        facts[method.name] = {
            "precision": method.precision,
            "drift": f"{drifts[method.name]:.1e}",
            "share": f"{rate / limits[method.precision]:.0%}" if method.precision in limits else "",
            "peak_mb": in_fresh_process(peak_bytes, path, False) // 10**6,
        }
    report = {
        "command": "python -m benchmarks.compare " + " ".join(path.name for path in bundles),
        "date": date.today().isoformat(),
        "machine": machine.describe(),
        "threads": threads,
        "gemm_gflops": limits,
        "methods": facts,
        "stages": stages,
    }
    write_atomically(out.with_suffix(".json"), json.dumps(report, indent=2) + "\n")
    write_atomically(out.with_suffix(".md"), markdown(report))
    sys.stdout.write(markdown(report))


if __name__ == "__main__":
    typer.run(main)
