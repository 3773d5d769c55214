"""The native pair scorer for every processor and compiler, compiled without a warning and fuzzed, under sanitizers too.

`make native-check` runs it. A compiler that is not here is skipped, and what this processor cannot run is compiled
only; a line says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cvnet_engine.engine.backends.native.library import FLAGS, SOURCE
from cvnet_engine.engine.machine import cpuinfo, usable_cpus

STRICT = ("-Wall", "-Wextra", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
PROCESSORS = {  # -march and more -> the instructions that it needs
    "sapphirerapids": "amx_bf16",
    "x86-64-v4 -mavx512vnni -mavx512bf16": "avx512_bf16",
    "x86-64-v4 -mavx512vnni": "avx512_vnni",
    "x86-64-v4": "avx512bw",
    "x86-64-v3 -mavxvnni": "avx_vnni",
    "x86-64-v3": "avx2",
    "x86-64-v2 -mavx": "avx",
    "x86-64": "sse2",
    "x86-64 -O1 -DAMX_EMULATED -Wno-psabi": "sse2",
}
SANITIZED_ON = ("x86-64 -O1 -DAMX_EMULATED -Wno-psabi", "x86-64-v4 -mavx512vnni -mavx512bf16", "x86-64-v3", "x86-64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="feeds in all")
    builds = [
        (compiler, processor, more)
        for processor in PROCESSORS
        for compiler, more in (("gcc", ()), ("clang", ()), ("gcc", SANITIZED))
        if not more or processor in SANITIZED_ON
    ]
    each = -(-parser.parse_args().count // len(builds))
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for line in pool.map(lambda build: check(*build, each), builds):
            print(line, flush=True)  # noqa: T201


def check(compiler: str, processor: str, more: tuple[str, ...], count: int) -> str:
    """Compile for a processor, and fuzz where this machine is one; a line that says so."""
    needed = PROCESSORS[processor]
    label = f"{compiler} -march={processor}{' sanitized' if more else ''}"
    if shutil.which(compiler) is None:
        return f"{label}: skipped, no {compiler} here"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "pair_scorer.so"
        target = f"-march={processor}".split()
        command = [compiler, *FLAGS, *STRICT, *target, *more, str(SOURCE), "-o", str(library), "-lm"]
        subprocess.run(command, check=True)
        if needed not in cpuinfo("flags").split():
            return f"{label}: compiled; not run, this processor has no {needed}"
        preloaded = {"LD_PRELOAD": runtime(), "ASAN_OPTIONS": "detect_leaks=0"} if more else {}
        fuzz = [sys.executable, "-m", "tests.engine.backends.native_fuzz", str(library)]
        fuzz += ["--count", str(count)]
        subprocess.run(fuzz, check=True, stdout=subprocess.DEVNULL, env=os.environ | preloaded)
    return f"{label}: compiled, {count} feeds"


def runtime() -> str:
    """AddressSanitizer's library, which has to be there before Python is."""
    asked = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    return asked.stdout.strip()


if __name__ == "__main__":
    main()
