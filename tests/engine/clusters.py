"""Ray clusters for tests: their processes found, and two nodes of one on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# a machine that is busy with other tests takes longer than Ray waits for
PATIENCE = {"RAY_raylet_start_wait_time_s": "600", "RAY_worker_register_timeout_seconds": "600"}
ENVIRONMENT = os.environ | PATIENCE | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
START = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]


def worker_processes(kind: str, mark: str) -> list[int]:
    """Processes of workers of that kind whose command line or working folder has the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if f"ray::{kind}".encode() in command and mark in str((process / "cwd").resolve()):
                found.append(int(process.name))
    return found


@contextlib.contextmanager
def two_nodes() -> Iterator[str]:
    """A cluster of two nodes with a processor each, on this machine; its address."""
    folder = tempfile.mkdtemp(prefix="ray")  # a short name: paths of sockets have to be
    port = free_port()
    address = f"127.0.0.1:{port}"
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--node-ip-address=127.0.0.1"]
    try:
        with (
            node([*START, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}", *ports]),
            node([*START, f"--address={address}", *ports]),
        ):
            yield address
    finally:
        for process in processes_of(folder):  # whatever outlived its node
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def node(command: list[str]) -> Iterator[None]:
    """A node while it is needed, in a process group of its own."""
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
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


def processes_of(folder: str) -> list[int]:
    """Processes whose command line names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.encode() in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
