"""Last step of `demo`: the server starts, answers and stops; without the extra it is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvnet_engine.commands import demo, index
from cvnet_engine.commands.demo import SHOWN
from cvnet_engine.engine.errors import BackendError
from cvnet_engine.options import IndexOptions
from tests.pictures import photo


@pytest.fixture
def gallery(bundle, tmp_path) -> Path:
    photos = [photo(tmp_path / f"{seed}.jpg", seed=seed) for seed in range(SHOWN + 1)]  # one of them is the query
    index.run(IndexOptions(photos, bundle, tmp_path / "gallery"))
    return tmp_path / "gallery"


def test_the_search_page_answers(bundle, gallery, capsys):
    demo.check_page(bundle, gallery)
    assert f"a search found {SHOWN} images" in capsys.readouterr().out


def test_a_server_that_does_not_start_says_why(bundle, tmp_path):
    with pytest.raises(BackendError, match="no gallery"):
        demo.check_page(bundle, tmp_path / "nowhere")


def test_without_the_extra_a_line_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    demo.check_page(tmp_path, tmp_path)
    assert "pip install '.[serve]'" in capsys.readouterr().out
