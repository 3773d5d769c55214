"""The mechanical part of the language rules: phrases that no user should have to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.test_documents import DOCUMENTS, ROOT

PHRASES = (
    "is said",
    "is told",
    "is asked",
    "goes by",
    "done without",
    "a rough look",
    "learnt code",
    "census",
    "anew",
    "of its own",
    "where there is none",
    "an image indexed",
    "a candidate all told",
    "foretells",
    "in its stead",
    "is no result",
)
QUESTION_WORDS = {"What", "Whether", "Which", "Who", "Where", "When", "How"}
FORBIDDEN = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.IGNORECASE)
WRITTEN = [file for file in DOCUMENTS if ROOT / "benchmarks" not in file.parents]  # not by a benchmark


def phrases_in(text: str) -> Iterator[str]:
    """Forbidden phrases of a text, also across line ends."""
    yield from FORBIDDEN.findall(" ".join(text.split()))


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: str(file.relative_to(ROOT)))
def test_documents_use_plain_words(file):
    assert list(phrases_in(file.read_text())) == []


def test_a_phrase_is_found_across_lines():
    assert list(phrases_in("What is\nsaid of canewood, Anew.")) == ["is said", "Anew"]


SOURCES = sorted(
    file
    for package in ("engine", "export", "cvnet", "benchmarks", "cvnet_engine", "scenes", "training", "tests")
    for file in (ROOT / package).rglob("*.py")
)


def test_no_module_docstring_begins_with_a_question_word():
    first = {file: (ast.get_docstring(ast.parse(file.read_text())) or ".").split()[0] for file in SOURCES}
    assert len(first) > 300
    assert [str(file) for file, word in first.items() if word in QUESTION_WORDS] == []
