"""The server keeps its own word: requests made from its OpenAPI schema are answered as that says, none with a 500."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytestmark = pytest.mark.slow
# a deadline may be too short; a box may miss its image, and a candidate may be unknown
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
positive_data_acceptance.enabled = false
"""


def test_answers_conform_to_openapi(run, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    program = [sys.executable, "-m", "schemathesis.cli", "run", f"{run().url}openapi.json"]
    options = ["--max-examples", "20", "--generation-deterministic", "--suppress-health-check", "all", "--no-color"]
    done = subprocess.run([*program, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    operations = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert operations
    assert len(set(operations.groups())) == 1, done.stdout
