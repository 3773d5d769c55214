"""`doctor`: what this machine can run."""

from __future__ import annotations

from pathlib import Path

from cvnet_engine import console
from engine import machine


def run(json: Path | None) -> None:
    facts = machine.describe()
    backend, reason = machine.choose_backend()
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
    console.say(f"--backend auto picks {backend}: {reason}")
    if facts["libraries"]["torch"] is None:
        console.say("build and eval --reference need PyTorch: install the 'export' extra")
    if json:
        console.write_json(json, facts | {"auto_backend": backend, "auto_reason": reason})
