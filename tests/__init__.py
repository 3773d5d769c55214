"""Tests. Importing them lets this process and the programs that they start keep compiled modules.

With PYTHONDONTWRITEBYTECODE, usual in containers, each process would compile PyTorch again: 11 s of CPU time.
"""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
