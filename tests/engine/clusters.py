"""A Ray cluster of two nodes on this machine, for tests, and the processes of its workers."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Ray's default timeouts are too short on a machine that is busy with other tests
PATIENCE = {"RAY_raylet_start_wait_time_s": "300", "RAY_worker_register_timeout_seconds": "300"}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # instead of the user's token
ENVIRONMENT = os.environ | PATIENCE | TOKEN | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
START = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
# ports of a node's processes, which two nodes cannot share
PORTS = ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export", "runtime-env-agent")


@dataclass(frozen=True)
class Nodes:
    """Address of a cluster of two nodes with one CPU each, and the working folder of its processes."""

    address: str
    folder: Path


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Start both nodes, and stop them at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short name, because paths of sockets are limited
    port = free_port()
    nodes = Nodes(f"127.0.0.1:{port}", folder)
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        with node(head, folder), node([f"--address={nodes.address}"], folder):
            yield nodes
    finally:
        for process in processes(str(folder)):  # that outlived their node
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def node(options: list[str], folder: Path) -> Iterator[None]:
    """Run a node in a separate process group until the end of the block."""
    ports = [f"--{name}-port={free_port()}" for name in PORTS]
    process = subprocess.Popen(
        [*START, *options, *ports, "--min-worker-port=0", "--max-worker-port=0", "--node-ip-address=127.0.0.1"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def worker_processes(kind: str, folder: str) -> list[int]:
    """Processes of workers of this kind with this working folder."""
    return [process for process in processes(f"ray::{kind}") if os.path.realpath(f"/proc/{process}/cwd") == folder]


def processes(mark: str) -> list[int]:
    """Other processes whose command line contains `mark`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def free_port() -> int:
    """A port on which no process listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
