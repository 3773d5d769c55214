"""What is said of a model, once, wherever something is made with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cvnet_engine import console
from engine.bundle import Manifest, read_manifest


@pytest.fixture
def seeded(bundle: Path) -> Manifest:
    return read_manifest(bundle)


def test_each_model_says_what_it_is(seeded: Manifest) -> None:
    demonstration = replace(seeded, weights="demo", trained=True)
    assert "untrained" in str(console.notice(seeded))
    assert "demonstration model" in str(console.notice(demonstration))
    assert "demonstration model" in demonstration.model
    assert console.notice(replace(seeded, weights="/models/demo", trained=True)) is None


def test_the_notice_is_said_once(seeded: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    console.warn_once.cache_clear()
    for _ in range(2):
        console.warn_of_model(replace(seeded, weights="demo", trained=True))
    assert capsys.readouterr().out.count("demonstration model") == 1
