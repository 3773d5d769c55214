"""Two nodes of a Ray cluster on this machine, for tests, and its workers' processes."""

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
# a machine that is busy with other tests takes longer than Ray waits for
PATIENCE = {"RAY_raylet_start_wait_time_s": "300", "RAY_worker_register_timeout_seconds": "300"}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # whatever this user's own is
ENVIRONMENT = os.environ | PATIENCE | TOKEN | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
START = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
# of a node's processes, which two nodes cannot share
PORTS = ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export", "runtime-env-agent")


@dataclass(frozen=True)
class Nodes:
    """A cluster of two nodes with a processor each: where it listens, and the folder that its processes work in."""

    address: str
    folder: Path


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Both started and, whatever happens, stopped."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short name: paths of sockets have to be
    port = free_port()
    nodes = Nodes(f"127.0.0.1:{port}", folder)
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        with node(head, folder), node([f"--address={nodes.address}"], folder):
            yield nodes
    finally:
        for process in processes(str(folder)):  # whatever outlived its node
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def node(options: list[str], folder: Path) -> Iterator[None]:
    """A node while it is needed, in a process group of its own."""
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
    """Processes of workers of that kind that work in a folder."""
    return [process for process in processes(f"ray::{kind}") if os.path.realpath(f"/proc/{process}/cwd") == folder]


def processes(mark: str) -> list[int]:
    """Other processes whose command line has the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
