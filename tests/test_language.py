"""The mechanical part of the language rules: phrases that no user should have to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cvnet_engine.cli import app
from tests.test_documents import DOCUMENTS, ROOT

PHRASES = (
    "is said",
    "is told",
    "is asked",
    "goes by",
    "done without",
    "a rough look",
    "rough",
    "learnt",
    "census",
    "vanished",
    "anew",
    "of its own",
    "where there is none",
    "an image indexed",
    "a candidate all told",
    "foretells",
    "in its stead",
    "is no",
)
QUESTION_WORDS = {"What", "Whether", "Which", "Who", "Where", "When", "How"}
FORBIDDEN = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b(?! longer)", re.IGNORECASE)
MEASURED = ROOT / "benchmarks"  # documents written by a benchmark
PACKAGES = ("engine", "export", "cvnet", "benchmarks", "cvnet_engine", "scenes", "training")
PAGES = [file for folder in ("page", "templates") for file in sorted((ROOT / "cvnet_engine").rglob(f"{folder}/*.*"))]
TEXTS = [*(file for file in DOCUMENTS if MEASURED not in file.parents), *PAGES]
SOURCES = sorted({file.resolve() for package in PACKAGES for file in (ROOT / package).rglob("*.py")})
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SHOWN = {"say", "warn", "warn_once", "echo", "table", "progress", "debug", "info", "warning", "error", "exception"}


def phrases_in(text: str) -> list[str]:
    """Forbidden phrases of a text, also across line ends."""
    return FORBIDDEN.findall(" ".join(text.split()))


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", TEXTS, ids=name)
def test_documents_and_pages_use_plain_words(file):
    assert phrases_in(file.read_text()) == []


def commands(command: Any, path: str = "cvnet-engine") -> Iterator[tuple[str, Any]]:
    yield path, command
    for below, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, f"{path} {below}")


def test_help_uses_plain_words():
    found = {}
    for path, command in commands(get_command(app)):
        texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        found[path] = [phrase for text in texts for phrase in phrases_in(text or "")]
    assert len(found) > 15
    assert {path: phrases for path, phrases in found.items() if phrases} == {}


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of what users see: string constants in `raise` and in calls that print or log."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and called(node) in SHOWN):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def called(call: ast.Call) -> str:
    """Return the last name of what is called: `say` of `console.say(...)`."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def test_messages_use_plain_words():
    found = {
        f"{name(file)}:{line}": phrases
        for file in SOURCES
        for line, text in messages(ast.parse(file.read_text()))
        if (phrases := phrases_in(text))
    }
    assert found == {}


def test_no_module_docstring_begins_with_a_question_word():
    docstrings = {file: ast.get_docstring(ast.parse(file.read_text())) or "." for file in (*SOURCES, *TESTS)}
    assert len(docstrings) > 250
    assert [name(file) for file, text in docstrings.items() if text.split()[0] in QUESTION_WORDS] == []
    assert {name(file): found for file in SOURCES if (found := phrases_in(docstrings[file]))} == {}


def test_a_phrase_is_found_across_lines():
    assert phrases_in("What is\nsaid of canewood, Anew.") == ["is said", "Anew"]


def test_messages_are_found_in_raises_and_calls():
    tree = ast.parse("raise E(f'{x} a') from e\nconsole.say('b' + 'c')\nlogger.warning('d %s', x)\ny = 'not shown'")
    assert [text.strip() for _, text in messages(tree)] == ["a", "b", "c", "d %s"]
