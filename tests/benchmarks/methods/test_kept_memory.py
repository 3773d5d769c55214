import subprocess
import sys

import pytest

FREE_LARGE = """
import ctypes, sys
from pathlib import Path
from cvnet_engine.benchmarks.methods.kept_memory import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
block = libc.malloc(400_000_000)
ctypes.memset(block, 1, 400_000_000)
libc.free(block)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_freed_stays_with_the_process():
    resident = [
        int(subprocess.run([sys.executable, "-c", FREE_LARGE, how], capture_output=True, check=True, text=True).stdout)
        for how in ("leave", "keep")
    ]
    assert resident[0] < 200_000 < 400_000 < resident[1]  # kB
