"""What a GPU would take at its datasheet's rates, computed and not measured: `python -m benchmarks.latency.roofline`.

Operations and bytes are counted off the graphs as they are. Two times bracket what a compiler can reach: `alone` gives
every operator the longer of its arithmetic and its traffic, nothing fused; `arithmetic` is the operations alone, as if
nothing but weights and results were moved. A measurement above the first, or below the second, is a reason to look.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cvnet_engine.benchmarks import commands
from cvnet_engine.benchmarks.commands import DepthOption, WeightsOption
from cvnet_engine.benchmarks.latency.graph_costs import NodeCost, Shape, node_costs
from cvnet_engine.benchmarks.tables import Table, markdown
from cvnet_engine.cvnet import checkpoint
from cvnet_engine.engine.geometry import IMAGE_SCALES, MAP_DIM, Size, map_size, scaled, unit_map_sizes
from cvnet_engine.engine.retrieval.retriever import BATCH
from cvnet_engine.export.artifacts import Artifacts

SHORTLIST = 100
IMAGE = (768, 1024)  # height, width px
PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Gpu:
    """Dense rates of a datasheet: operations a second in float32 without TF32 and in float16 with sums in float32."""

    name: str
    fp32_flops: float
    fp16_flops: float
    bytes_per_s: float


GPUS = {
    "h100": Gpu("H100 SXM", 67e12, 989e12, 3.35e12),
    "rtx4090": Gpu("GeForce RTX 4090", 82.6e12, 165.2e12, 1.008e12),
    "l4": Gpu("L4", 30.3e12, 121e12, 0.3e12),
}


@dataclass(frozen=True)
class Stage:
    """Operators that run one after the other, `times` over."""

    name: str
    nodes: list[NodeCost]
    times: int = 1

    @property
    def flop(self) -> float:
        return self.times * sum(node.cost.flop for node in self.nodes)

    @property
    def bytes(self) -> float:
        return self.times * sum(node.cost.bytes for node in self.nodes)

    def alone_s(self, gpu: Gpu) -> float:
        return self.times * sum(max(arithmetic_s(n, gpu), n.cost.bytes / gpu.bytes_per_s) for n in self.nodes)

    def arithmetic_s(self, gpu: Gpu) -> float:
        return self.times * sum(arithmetic_s(node, gpu) for node in self.nodes)


def arithmetic_s(node: NodeCost, gpu: Gpu) -> float:
    return node.cost.flop / (gpu.fp16_flops if node.half else gpu.fp32_flops)


def stages(artifacts: Artifacts) -> list[Stage]:
    """A pair, an image at all scales, and a shortlist in batches, of photos of `IMAGE`."""
    files = {graph: artifacts.file(graph, "onnxruntime-cuda") for graph in ("descriptor", "features", "reranker")}
    image = node_costs(files["features"], {"image": (1, 3, *IMAGE)})
    for scale in IMAGE_SCALES:
        if scale != 1:
            image = image + node_costs(files["descriptor"], {"image": (1, 3, *scaled(IMAGE, scale))})
    pair, batch = (node_costs(files["reranker"], pair_shapes(IMAGE, keys)) for keys in (1, BATCH))
    return [
        Stage("pair", pair),
        Stage("image, all scales", image),
        Stage(f"shortlist of {SHORTLIST}", batch, SHORTLIST // BATCH),
    ]


def pair_shapes(image: Size, keys: int) -> dict[str, Shape]:
    """The reranker's inputs for a query and keys of one size."""
    sizes = list(enumerate(unit_map_sizes(map_size(image))))
    return {f"{side}_{s}": (n, MAP_DIM, *size) for side, n in (("query", 1), ("key", keys)) for s, size in sizes}


def table(gpu: Gpu, found: dict[str, list[Stage]]) -> Table:
    rows = tuple(
        (
            stage.name,
            precision,
            f"{stage.flop / 1e9:.0f}",
            f"{stage.bytes / 1e6:.0f}",
            f"{1e3 * stage.alone_s(gpu):.2f}",
            f"{1e3 * stage.arithmetic_s(gpu):.2f}",
        )
        for precision, listed in found.items()
        for stage in listed
    )
    columns = ("stage", "precision", "GFLOP", "MB", "alone, ms", "arithmetic, ms")
    return Table(f"{gpu.name}: computed from its datasheet, not measured", columns, rows)


def main(
    gpu: Annotated[str, typer.Option(help=f"One of {', '.join(GPUS)}.")] = "h100",
    weights: WeightsOption = "seeded:0",
    depth: DepthOption = 50,
) -> None:
    """Time of each stage at a GPU's datasheet rates, from the operations and bytes of the graphs as they are."""
    if gpu not in GPUS:
        raise typer.BadParameter(f"{gpu!r} is unknown; expected one of {', '.join(GPUS)}")
    model = checkpoint.load(weights, depth)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            precision: stages(Artifacts(Path(folder), model, precision, [], [], (), lambda _: None))
            for precision in PRECISIONS
        }
    typer.echo(markdown(table(GPUS[gpu], found)))


if __name__ == "__main__":
    with commands.told_in_a_line():
        typer.run(main)
