"""The pair scorer in C, compiled for this machine's processor when it is first used."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import BackendError, one_line
from engine.files import rename
from engine.geometry import AREA_SCALES

SOURCE = Path(__file__).with_name("pair_scorer.c")
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-pthread", "-shared", "-fPIC")

MapPointers = ctypes.c_void_p * len(AREA_SCALES)


@cache
def library() -> ctypes.CDLL:
    """The compiled library, from the cache where this processor and source have been compiled before.

    Raises:
        BackendError: no C compiler, or it does not take the source.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise BackendError(
            f"no C compiler ({compiler[0]}) for the native pair scorer; install gcc or clang, "
            "or build the bundle with --backend onnxruntime"
        )
    file = cache_folder() / f"pair_scorer-{fingerprint(compiler)}.so"
    if not file.is_file():
        compile_to(file, compiler)
    return declare(ctypes.CDLL(str(file)))


def compile_to(file: Path, compiler: list[str]) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}")
    command = [*compiler, *FLAGS, str(SOURCE), "-o", str(unfinished), "-lm"]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, capture_output=True, text=True)
        rename(unfinished, file)
    except subprocess.CalledProcessError as error:
        raise BackendError(
            f"{' '.join(command)} failed ({one_line(error.stderr)}); try another compiler with CC="
        ) from error
    except OSError as error:
        raise BackendError(f"{file.parent}: cannot be written ({error.strerror}); set XDG_CACHE_HOME") from error


def fingerprint(compiler: list[str]) -> str:
    """What a compiled library depends on: the source, the compiler, and the processor that `-march=native` means."""
    flags = next((line for line in cpuinfo() if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([*compiler, "--version"], check=False, capture_output=True).stdout
    parts = (SOURCE.read_bytes(), version, " ".join(FLAGS).encode(), platform.machine().encode(), flags.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvnet-engine"


def declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    """The library with its functions' types; see the end of pair_scorer.c."""
    side: list[Any] = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, MapPointers, ctypes.c_int]
    lib.cvnet_create.argtypes, lib.cvnet_create.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int], ctypes.c_void_p
    lib.cvnet_prepare_query.argtypes, lib.cvnet_prepare_query.restype = side, None
    lib.cvnet_score.argtypes, lib.cvnet_score.restype = [*side, ctypes.c_void_p], None
    lib.cvnet_accelerated.argtypes, lib.cvnet_accelerated.restype = [ctypes.c_int], ctypes.c_int
    lib.cvnet_free.argtypes, lib.cvnet_free.restype = [ctypes.c_void_p], None
    return lib
