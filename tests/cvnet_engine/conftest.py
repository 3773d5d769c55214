"""Fixtures for tests of the program, which runs in this process and with tiny graphs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvnet_engine import console, index
from cvnet_engine.cli import main
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.retrieval.engines import Engines
from scenes import SceneSet, write
from tests.cvnet_engine.program import Cli, Result
from tests.pictures import photo, png


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


@pytest.fixture(scope="session")
def data(made_once) -> Path:
    """DATA_DIR with the generated set `tiny`: 3 queries, 7 database images."""
    tiny = SceneSet("tiny", seed=3, scenes=3, views=3, distractors=1, size=(96, 128))
    return made_once("tiny_data", lambda folder: write(tiny, folder))


@pytest.fixture(scope="session")
def gallery(bundle: Path, data: Path, made_once) -> Path:
    """A gallery of all 10 images of `tiny`."""
    return made_once("tiny_gallery", lambda folder: index(data, bundle=Bundle.open(bundle), gallery=folder))


@pytest.fixture(scope="session")
def query(data: Path) -> Path:
    return sorted((data / "tiny" / "jpg").iterdir())[0]


@pytest.fixture(scope="session")
def bad_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files named like images that cannot be indexed."""
    folder = tmp_path_factory.mktemp("bad")
    whole = photo(folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("Dear diary")
    (folder / "huge.png").write_bytes(png(20000, 20000))
    photo(folder / "1x1.jpg", 1, 1)
    photo(folder / "thin.jpg", 1, 3000)
    return folder
