"""The examples of docs/python.md run, in the order of the page, on generated scenes."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import cv2
import pytest

from cvnet_engine import Bundle, index
from scenes import build_scene, choose_view, render

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)
VIEWS = 4


def draw(path: Path, scene: int, view: int) -> None:
    """Write a photograph of a generated scene."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), render(build_scene(3, scene), choose_view(3, scene, view, (240, 320))))


@pytest.fixture(scope="module")
def after(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the examples define, run where there is a bundle, a gallery, its photos and two queries."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "bundle").symlink_to(bundle.resolve())
    for scene, name in enumerate(("abbey", "mill")):
        for view in range(VIEWS):
            draw(folder / "photos" / name / f"{view}.jpg", scene, view)
    draw(folder / "query.jpg", 0, VIEWS)
    draw(folder / "other.jpg", 1, VIEWS)
    names: dict[str, Any] = {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        index("photos", bundle=Bundle.open("bundle"), gallery="photos.gallery")
        draw(Path("photos/mill/new.jpg"), 1, VIEWS + 1)
        for example in EXAMPLES:
            exec(compile(example, "docs/python.md", "exec"), names)
    names["retriever"].close()
    names["gallery"].close()
    return names | {"printed": printed.getvalue().splitlines()}


def test_a_search_is_five_lines():
    assert len([line for line in EXAMPLES[0].splitlines() if line]) <= 5


def test_what_the_examples_come_to(after):
    photos = {hit.path.parent.name for hit in after["results"].hits}
    assert photos <= {"abbey", "mill"}
    assert len(after["results"].hits) == 5
    assert after["best"].keys() == {"query.jpg", "other.jpg"}
    assert len(after["similar"].hits) == 2 * VIEWS - 1
    assert {hit.path.parent.name for hit in after["in_abbey"].hits} == {"abbey"}
    assert len(after["reranked"].hits) == after["reranked"].pairs == 2 * VIEWS
    assert {hit.before for hit in after["reranked"].hits} == set(range(1, 2 * VIEWS + 1))
    assert len(after["gallery"]) == 2 * VIEWS + 1


def test_what_the_examples_print(after):
    *hits, counts, added, error = after["printed"]
    assert [line.split()[0] for line in hits] == ["1", "2", "3", "4", "5"]
    assert counts.startswith(f"{2 * VIEWS} searched, {2 * VIEWS} compared pair by pair")
    assert added == f"1 added, {2 * VIEWS} unchanged, {{}}"
    assert error.startswith("absent.jpg: cannot be read")
