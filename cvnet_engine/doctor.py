"""`doctor`: what this machine can run."""

from __future__ import annotations

from pathlib import Path

from cvnet_engine import console
from engine import machine
from engine.bundle import GRAPH_NAMES


def run(json: Path | None) -> None:
    facts = machine.describe()
    console.table(
        "Machine",
        ("", ""),
        [
            ("system", f"{facts['system']}, Python {facts['python']}"),
            ("processor", f"{facts['cpu']}, {facts['cpus']} usable"),
            ("instructions", ", ".join(facts["cpu_features"]) or "none that inference libraries look for"),
            ("memory", f"{facts['memory_bytes'] / 2**30:.1f} GiB"),
            ("CUDA devices", ", ".join(facts["cuda_devices"]) or "none"),
        ],
    )
    console.say()
    console.table("Libraries", ("", ""), [(name, v or "not installed") for name, v in facts["libraries"].items()])
    console.say()
    backends = {graph: machine.backends(graph) for graph in GRAPH_NAMES}
    console.table(
        "Backends that --backend auto chooses from", ("", ""), [(g, ", ".join(b)) for g, b in backends.items()]
    )
    console.say(machine.auto_reason())
    if "native" not in backends["reranker"]:
        console.say(
            "the native pair scorer, several times as fast as a graph, needs a C compiler: install gcc or clang"
        )
    if facts["libraries"]["torch"] is None:
        console.say("build and eval --reference need PyTorch: install the 'export' extra")
    if json:
        console.write_json(json, facts | {"backends": backends})
