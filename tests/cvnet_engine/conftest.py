"""The program run in this process."""

from __future__ import annotations

import sys

import pytest

from cvnet_engine.cli import main
from tests.cvnet_engine.program import Cli, Result


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the program in this process; a string is split into words, anything else is one word."""

    def run(*words: object) -> Result:
        arguments = [a for word in words for a in (word.split() if isinstance(word, str) else [str(word)])]
        monkeypatch.setattr(sys, "argv", ["cvnet-engine", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Result(stopped.value.code or 0, *capfd.readouterr())

    return run
