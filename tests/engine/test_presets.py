"""Presets: `exact` is the published computation, and what is asked for takes a preset's place."""

from __future__ import annotations

from typing import get_args

import pytest

from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.map_codecs import parse_kind
from cvnet_engine.engine.geometry import require_scales
from cvnet_engine.engine.presets import PRESETS, PresetName, limit_px, named
from cvnet_engine.engine.retrieval.searcher import Plan


def test_exact_is_the_published_computation():
    assert PRESETS["exact"].plan(10, None, None, None) == Plan()
    assert (PRESETS["exact"].precision, PRESETS["exact"].maps, PRESETS["exact"].scales[1:]) == (
        "fp32",
        "float16",
        (1.0, 1.4142),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_such_as_commands_take(name):
    preset = PRESETS[name]
    assert name in get_args(PresetName)
    assert parse_kind(preset.maps) == preset.maps
    assert require_scales(preset.scales) == preset.scales
    assert preset.plan(10, None, None, None).full_pairs <= preset.rerank


def test_what_is_asked_for_takes_its_place():
    assert PRESETS["fast"].plan(5, 0, "both", 7) == Plan(5, 0, "both", 7)
    assert PRESETS["fast"].plan(5, 30, None, None).rerank == 30


def test_where_no_pair_is_scored_there_is_none_to_score_in_full():
    assert PRESETS["fast"].plan(5, 30, "superglobal", None) == Plan(5, 30, "superglobal")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((0, None, None, None), "top_k is 0"),
        ((10, -1, None, None), "rerank -1"),
        ((10, None, None, -1), "rerank_full -1"),
        ((10, None, "magic", None), "method 'magic': expected one of cvnet, superglobal, both"),
        ((10, None, "superglobal", 30), "rerank_full 30: superglobal scores no pair"),
    ],
)
def test_what_cannot_be_searched_is_said(asked, message):
    with pytest.raises(CvnetError, match=message):
        PRESETS["fast"].plan(*asked)


def test_a_preset_by_its_name():
    assert named("fast") is PRESETS["fast"]
    with pytest.raises(CvnetError, match="preset 'faster': expected one of exact, balanced, fast"):
        named("faster")


def test_a_limit_of_nought_is_none():
    assert limit_px(0, "fast") is None
    assert limit_px(700, "fast") == 700
    assert limit_px(None, "fast") == PRESETS["fast"].max_side_px
    assert limit_px(None, None) == 1024
