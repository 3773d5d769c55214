"""The program run for tests: its output and its exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def assert_one_line(result: Result, *contents: str) -> None:
    """An input error: exit code 1, one line on standard error that says what is wrong, no traceback."""
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert "Traceback" not in result.out
    for content in contents:
        assert content in result.err
