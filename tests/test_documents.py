"""Documents against the repository: links, headings, paths, names, and the index of decisions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import ALLOWED

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(file for folder in ("docs", "benchmarks", ".github") for file in (ROOT / folder).rglob("*.md")),
    ]
)
TOP = "|".join((*(package for package in ALLOWED if "." not in package), "tests", "docs"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?:`|python )((?:{TOP})/[\w./-]+)")
NAME = re.compile(rf"`((?:{TOP})(?:\.(?!py`)\w+)+)`")
RUN = re.compile(rf"python -m ((?:{TOP})[\w.]*)")


def dead_links(document: Path) -> Iterator[str]:
    """Links of a document that lead to no file here, or to no heading of one."""
    for link in LINK.findall(document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not re.match(r"\w+:", link) and (not target.exists() or (anchor and anchor not in anchors(target))):
            yield link


def anchors(document: Path) -> set[str]:
    """What a link to a heading of a document says behind its #, as GitHub makes it of the heading."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing(document: Path) -> Iterator[str]:
    """Paths, dotted names and programs of ours that a document names and that are not there."""
    text = document.read_text()
    yield from (path for path in PATH.findall(text) if not (ROOT / path).exists())
    yield from (name for name in NAME.findall(text) if not is_there(name))
    yield from (name for name in RUN.findall(text) if not module(name))


def module(name: str) -> Path | None:
    """The file of a module or package, if there is one of that name."""
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def is_there(name: str) -> bool:
    """Whether it is a module, or something that one speaks of."""
    parent, _, last = name.rpartition(".")
    file = module(parent)
    return bool(module(name) or (file and re.search(rf"\b{last}\b", file.read_text())))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_document_names_is_there(document):
    assert list(dead_links(document)) == []
    assert list(missing(document)) == []


def test_what_is_not_there_is_seen(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("# A heading: `x`\n[a](a.md#a-heading-x) [b](b.md) [c](#d) [e](https://f.g)")
    assert list(dead_links(document)) == ["b.md", "#d"]
    document.write_text(
        "`engine/no.py`, `engine/files.py`, python docs/no.py, `engine.nowhere`, "
        "`engine.files.write_atomically`, `engine`, python -m benchmarks.no, "
        "`python -m scenes`, `python -m benchmarks.lab.readme`"
    )
    assert list(missing(document)) == ["engine/no.py", "docs/no.py", "engine.nowhere", "benchmarks.no"]


def test_every_decision_is_in_the_index_once():
    folder = ROOT / "docs" / "decisions"
    notes = [link for link in LINK.findall((folder / "README.md").read_text()) if "/" not in link]
    assert sorted(notes) == sorted(file.name for file in folder.glob("*.md") if file.name != "README.md")
