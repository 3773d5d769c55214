"""Console output: one warning per model, progress in lines, and text that is safe to print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cvnet_engine import console
from cvnet_engine.engine.bundle import Manifest, read_manifest


@pytest.fixture
def seeded(bundle: Path) -> Manifest:
    return read_manifest(bundle)


def test_each_model_says_what_it_is(seeded: Manifest) -> None:
    demonstration = replace(seeded, weights="demo", trained=True)
    assert "untrained" in str(console.notice(seeded))
    assert "demonstration model" in str(console.notice(demonstration))
    assert "demonstration model" in demonstration.model
    assert console.notice(replace(seeded, weights="/models/demo", trained=True)) is None


def test_the_notice_is_shown_once(seeded: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        console.warn_of_model(replace(seeded, weights="demo", trained=True))
    assert capsys.readouterr().out.count("demonstration model") == 1


# ------------------------------------------------------------------------------------------------- progress


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = console.Lines("indexing", 1000, clock)
    for _ in range(130):
        clock.now += 0.5
        lines.advance()
    assert capsys.readouterr().err.splitlines() == [
        "indexing: 60 of 1000, 2.0/s, 8 min left",
        "indexing: 120 of 1000, 2.0/s, 7 min left",
    ]


def test_time_left_follows_the_recent_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = console.Lines("indexing", 1000, clock)
    lines.advance(900)  # there already, and skipped at once
    clock.now += 30
    lines.advance(0)
    capsys.readouterr()
    clock.now += 40
    lines.advance(10)
    assert capsys.readouterr().err == "indexing: 910 of 1000, 4.0 s each, 6 min left\n"


def test_a_total_may_be_known_with_the_first_steps(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = console.Lines("reranking", None, clock)
    clock.now += 40
    lines.advance(10, 50)
    assert capsys.readouterr().err == "reranking: 10 of 50, 4.0 s each, 3 min left\n"


def test_short_work_without_a_terminal_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("reranking", 3) as advance:
        for _ in range(3):
            advance()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (99, "99 s"), (600, "10 min"), (5999, "100 min"), (36000, "10.0 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


# ----------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("codes", [range(0x20), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A)])
def test_control_characters_do_not_reach_the_terminal(codes: range, capsys: pytest.CaptureFixture[str]) -> None:
    name = "".join(chr(code) for code in codes if chr(code) not in "\t\n")
    console.say(f"photo{name}gpj.exe")
    assert capsys.readouterr().out == f"photo{chr(0xFFFD) * len(name)}gpj.exe\n"


def test_json_keeps_every_name_as_it_is(tmp_path: Path) -> None:
    name = "caf\udce9 \u202egpj.exe \u05d0\u200f.jpg"
    console.write_json(tmp_path / "out.json", {name: name})
    assert json.loads((tmp_path / "out.json").read_text()) == {name: name}
