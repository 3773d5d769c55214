"""The C library of the native pair scorer, compiled for this machine's processor on first use."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cvnet_engine.engine import machine
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.errors import OUT_OF_MEMORY, BackendError, OutOfMemoryError, one_line
from cvnet_engine.engine.files import cache_folder, private_folder, rename, sync
from cvnet_engine.engine.geometry import AREA_SCALES, MAP_DIM, Size

SOURCE = Path(__file__).with_name("pair_scorer.c")  # the only translation unit; it includes the headers
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-pthread", "-shared", "-fPIC", "-D_GNU_SOURCE"),
    *(f"-DMAP_DIM={MAP_DIM}", f"-DSCALES={len(AREA_SCALES)}"),
)
ANOTHER = "or build the bundle with --backend onnxruntime"

# Error message of each `Status` in memory.h, in the same order.
FAILURES = (
    "",
    OUT_OF_MEMORY,
    "its threads could not be started; use fewer --threads, or allow this process more of them or more memory (ulimit)",
    "maps or weights of another size than it was told; feed maps of engine.geometry.unit_map_sizes",
    "an unknown precision; expected fp32, bf16 or int8",
    "a map has positions that are no unit vectors (NaN, infinite or too long); extract the image's features again",
    "the score is no finite number, as of weights far too large; build the bundle again from a sound checkpoint",
    "no query has been prepared since the last one failed; feed a query again",
)


class Maps(ctypes.Structure):
    """One image's maps: size (h, w) and address per scale; `is_half` is 1 for float16, 0 for float32."""

    _fields_ = (
        ("grid", ctypes.c_int * 2 * len(AREA_SCALES)),
        ("map", ctypes.c_void_p * len(AREA_SCALES)),
        ("is_half", ctypes.c_int),
    )


class Grid(ctypes.Structure):
    """Height and width of a map in positions."""

    _fields_ = (("h", ctypes.c_int), ("w", ctypes.c_int))


class Tensor(ctypes.Structure):
    """Address and number of a tensor's float32 values."""

    _fields_ = (("values", ctypes.c_void_p), ("size", ctypes.c_int64))


@cache
def library() -> ctypes.CDLL:
    """Load the compiled library from the cache; compiles it if the cache has none for this source and processor.

    Raises:
        BackendError: no C compiler, a failed compilation, a cache folder that is not private or not writable, or a
            library that cannot be loaded.
    """
    folder = cache_folder()
    try:
        file = cached(private_folder(folder)) or compile_into(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        return declare(ctypes.CDLL(str(file)))
    except OSError as error:
        raise BackendError(
            f"{file}: cannot be loaded ({one_line(error)}); set XDG_CACHE_HOME to a folder whose files may be executed"
        ) from error


def is_here() -> bool:
    """Return True if the library is in the cache or a C compiler is installed."""
    ways: tuple[Callable[[], object], ...] = (compiler, lambda: cached(cache_folder()))
    for way in ways:
        with contextlib.suppress(BackendError):
            if way():
                return True
    return False


@cache
def is_ready() -> bool:
    """Return True if the library can be loaded. The first call tries it, and may compile the library."""
    try:
        library()
    except BackendError:
        return False
    return True


def expect(status: int) -> None:
    """Raise BackendError, or OutOfMemoryError, unless a function of the library returned 0."""
    if status:
        kind = OutOfMemoryError if FAILURES[status] is OUT_OF_MEMORY else BackendError
        raise kind(f"the native library stopped: {FAILURES[status]}")


def shrink(unit_map: Array, size: Size) -> Array:
    """Pool an L2-normalised map (c, h, w), float16 or float32, to (c, *size) float32, L2-normalised again.

    Each position is the mean of an equal part of the map; a mean of zero stays zero. `size` is at most (h, w).

    Raises:
        BackendError: the library is unavailable.
    """
    source = np.require(unit_map, requirements=["C", "A"])
    channels, *full = source.shape
    assert source.dtype in (np.float16, np.float32)
    found = np.empty((channels, *size), np.float32)
    is_half = source.dtype == np.float16
    expect(library().cvnet_shrink(source.ctypes.data, is_half, channels, Grid(*full), Grid(*size), found.ctypes.data))
    return found


def product(a: Array, b: Array) -> Array:
    """Multiply matrices (m, k) and (k, n) float32 on this thread alone; a BLAS would use a thread per core.

    Raises:
        BackendError: the library is unavailable.
    """
    rows, inner, columns = *a.shape, b.shape[1]
    assert a.dtype == b.dtype == np.float32
    assert len(b) == inner
    a, b = (np.require(matrix, requirements=["C", "A"]) for matrix in (a, b))
    found = np.empty((rows, columns), np.float32)
    expect(library().cvnet_product(a.ctypes.data, b.ctypes.data, rows, inner, columns, found.ctypes.data))
    return found


# the cache


def cached(folder: Path) -> Path | None:
    """Return the library for this source and processor from the folder; None if missing.

    The file name contains the content's digest; a file that does not match it is deleted.
    """
    for file in folder.glob(f"pair_scorer-{fingerprint()}-*.so"):
        with contextlib.suppress(OSError):  # an unreadable file counts as missing
            if file.stem.endswith(digest(file.read_bytes())):
                return file
            file.unlink()
    return None


def fingerprint() -> str:
    """Return a digest of all that a compiled library depends on: source, compiler command, CPU features."""
    features = machine.cpuinfo("flags") or machine.cpuinfo("Features")  # on x86-64 and on Arm
    command = (os.environ.get("CC", "cc"), *FLAGS, platform.machine(), features)
    sources = sorted(SOURCE.parent.glob("*.[ch]"))
    return digest(b"\0".join([*map(str.encode, command), *(file.read_bytes() for file in sources)]))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


# the compiler


def compiler() -> list[str]:
    """Return the C compiler's command, `CC` or `cc`.

    Raises:
        BackendError: `CC` is empty or not a valid command line, or the compiler is not installed.
    """
    text = os.environ.get("CC", "cc")
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise BackendError(
            f"CC is {text!r}, which is not a command ({error}); set it to a C compiler, or unset it"
        ) from error
    if not command:
        raise BackendError("CC is empty; set it to a C compiler, such as gcc or clang, or unset it")
    if shutil.which(command[0]) is None:
        raise BackendError(f"no C compiler ({command[0]}) for the native pair scorer; install gcc or clang, {ANOTHER}")
    return command


def compile_into(folder: Path) -> Path:
    """Compile the library and move it atomically into the folder, under a name that contains its digest."""
    command = compiler()
    with tempfile.TemporaryDirectory(dir=folder, prefix="compiling-") as unfinished:
        made = Path(unfinished) / "pair_scorer.so"
        run_compiler([*command, *FLAGS, str(SOURCE), "-o", str(made), "-lm"])
        sync(made)
        file = folder / f"pair_scorer-{fingerprint()}-{digest(made.read_bytes())}.so"
        rename(made, file)
    return file


def run_compiler(command: Sequence[str]) -> None:
    """Run the compiler.

    Raises:
        BackendError: it cannot be run, is killed by a signal, or reports an error.
    """
    name = command[0]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise BackendError(f"{name}: cannot be run ({error.strerror}); set CC to a C compiler, {ANOTHER}") from error
    if done.returncode < 0:
        raise BackendError(
            f"{name} was stopped by {signal.Signals(-done.returncode).name} while it compiled the native pair scorer; "
            f"free some memory, set CC to another compiler, {ANOTHER}"
        )
    if done.returncode:
        raise BackendError(
            f"{name} does not compile the native pair scorer ({one_line(done.stderr or 'it gave no reason')}); "
            f"set CC to another compiler (gcc from 12, clang from 14), {ANOTHER}"
        )


def unwritable(folder: Path, error: OSError) -> BackendError:
    return BackendError(
        f"{folder}: cannot be written ({error.strerror}), and the compiled pair scorer is kept there; "
        "set XDG_CACHE_HOME to a folder that can"
    )


def declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    """Set the argument and return types of the library's functions; see the end of pair_scorer.c."""
    model, maps, number = ctypes.c_void_p, ctypes.POINTER(Maps), ctypes.c_int
    lib.cvnet_accelerated.argtypes, lib.cvnet_accelerated.restype = [number], number
    lib.cvnet_create.argtypes = [ctypes.POINTER(Tensor), number, number, number, ctypes.POINTER(model)]
    lib.cvnet_prepare_query.argtypes = [model, maps]
    lib.cvnet_score.argtypes = [model, maps, number, ctypes.c_void_p]
    lib.cvnet_shrink.argtypes = [ctypes.c_void_p, number, number, Grid, Grid, ctypes.c_void_p]
    lib.cvnet_product.argtypes = [ctypes.c_void_p, ctypes.c_void_p, number, number, number, ctypes.c_void_p]
    for function in (lib.cvnet_create, lib.cvnet_prepare_query, lib.cvnet_score, lib.cvnet_shrink, lib.cvnet_product):
        function.restype = number
    lib.cvnet_free.argtypes, lib.cvnet_free.restype = [model], None
    return lib
