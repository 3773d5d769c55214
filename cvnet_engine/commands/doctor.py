"""`doctor`: report of this machine's hardware, libraries and usable backends."""

from __future__ import annotations

from cvnet_engine import console
from cvnet_engine.engine import machine
from cvnet_engine.engine.backends import auto_backends, auto_reason, missing_extras
from cvnet_engine.engine.errors import install_hint
from cvnet_engine.engine.geometry import GRAPH_NAMES
from cvnet_engine.options import DoctorOptions


def run(options: DoctorOptions) -> None:
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
    console.table("Libraries", ("", "", "extra"), library_rows(facts["libraries"]))
    console.say()
    backends = {graph: auto_backends(graph) for graph in GRAPH_NAMES}
    console.table(
        "Backends that --backend auto chooses from", ("", ""), [(g, ", ".join(b)) for g, b in backends.items()]
    )
    console.say(auto_reason())
    for advice in remedies(backends):
        console.warn(advice)
    if options.json:
        console.write_json(options.json, {**facts, "backends": backends})


def library_rows(versions: dict[str, str | None]) -> list[tuple[str, str, str]]:
    extras = machine.libraries()
    return [(name, version or "not installed", extras[name]) for name, version in versions.items()]


def remedies(backends: dict[str, list[str]]) -> list[str]:
    """Return advice on what is missing on this machine, with the command that installs it if there is one."""
    found = []
    if extras := missing_extras():
        found.append(f"missing extras: {', '.join(extras)}; {install_hint(*extras)}")
    if not machine.cuda_devices() and "native" not in backends["reranker"]:
        found.append("the native pair scorer, several times as fast as a graph, needs a C compiler: apt install gcc")
    if machine.amx_refused():
        found.append(
            "the processor has AMX, but this system refuses it to the process (a container's seccomp filter, a small "
            "signal stack, or an old kernel): bf16 pairs run without it, about four times slower"
        )
    return found
