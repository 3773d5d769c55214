"""Presets: `exact` is the published computation, and what is asked for takes a preset's place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from cvnet_engine.engine.errors import CvnetError
from cvnet_engine.engine.gallery.info import GalleryInfo, write_info
from cvnet_engine.engine.gallery.map_codecs import parse_kind
from cvnet_engine.engine.geometry import IMAGE_SCALES, require_scales
from cvnet_engine.engine.presets import PRESETS, PresetName, gallery_settings, named
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
    assert named(None) is PRESETS["exact"]
    with pytest.raises(CvnetError, match="preset 'faster': expected one of exact, balanced, fast"):
        named("faster")


MANIFEST = SimpleNamespace(features_id="f", weights="w", descriptor="cvnet")


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        (None, {}, (1024, "float16", IMAGE_SCALES)),
        (None, {"preset": "fast"}, (512, "coded:16", (1.0,))),
        (None, {"preset": "fast", "max_side_px": 0, "maps": "float16"}, (None, "float16", (1.0,))),
        (None, {"max_side_px": 700, "scales": [1, 0.7071]}, (700, "float16", (0.7071, 1.0))),
        ((None, "coded:24", (1.0,)), {}, (None, "coded:24", (1.0,))),
        ((640, "coded:24", (1.0,)), {"maps": "coded"}, (640, "coded:24", (1.0,))),
        ((640, "coded:24", (1.0,)), {"preset": "exact"}, (1024, "float16", IMAGE_SCALES)),
    ],
)
def test_settings_are_given_or_the_presets_or_the_gallerys(tmp_path, recorded, given, expected):
    if recorded:
        write_info(tmp_path, GalleryInfo.made_with(MANIFEST, *recorded))
    settings = gallery_settings(MANIFEST, tmp_path, **given)
    assert settings == GalleryInfo.made_with(MANIFEST, *expected)


def test_settings_without_a_gallery_are_those_of_exact():
    assert gallery_settings(MANIFEST, None).max_side_px == PRESETS["exact"].max_side_px
