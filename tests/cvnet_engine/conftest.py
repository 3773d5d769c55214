"""The program, run in this process and with graphs that cost no time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvnet_engine import console
from cvnet_engine.cli import main
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.retrieval.engines import Engines
from tests.cvnet_engine.program import Cli, Result


@pytest.fixture(autouse=True)
def warn_again() -> None:
    """A warning that is shown once per process is shown once per test."""
    console.warn_once.cache_clear()


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Path:
    return tiny_bundle


@pytest.fixture(scope="session")
def engines(bundle: Path) -> Iterator[Engines]:
    with Engines.open(Bundle(bundle)) as opened:
        yield opened


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
