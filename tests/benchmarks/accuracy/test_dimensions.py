"""The report of fewer dimensions: ratios of what is timed, and differences of mAP."""

from __future__ import annotations

import numpy as np

from cvnet_engine.benchmarks.accuracy.dimensions import markdown, ratios, unit_maps

REPORT = {
    "machine": {"cpu": "a processor"},
    "date": "2026-11-29",
    "command": "python -m benchmarks.accuracy.dimensions",
    "energy": {"256": 1.0, "64": 0.99123},
    "pair": {"fp32": {"512x384": {"256": 1.0, "64": 0.654, "64, decoded so": 0.6}}},
    "decoding": {"int8": {"512x384": {"pair": 1.0, "256": 0.2, "64": 0.071}}},
    "datasets": {"scenes": {"256": {"reranked M": [80.0, 60.0]}, "64": {"reranked M": [79.0, 60.0]}}},
}


def test_ratios_are_over_the_first_call():
    steps = {"one": 1000, "ten": 100_000}
    found = ratios({name: lambda count=count: sum(range(count)) for name, count in steps.items()})
    assert list(found) == ["one", "ten"]
    assert found["one"] == 1
    assert found["ten"] > 1


def test_maps_are_of_unit_norm_and_of_one_image():
    maps = unit_maps(np.random.default_rng(0), (6, 8), 64)
    assert [m.shape for m in maps] == [(1, 64, 3, 4), (1, 64, 4, 6), (1, 64, 6, 8)]
    np.testing.assert_allclose([np.linalg.norm(m, axis=1).max() for m in maps], 1, rtol=1e-5)


def test_the_tables():
    text = markdown(REPORT)
    assert "256: 100.00%, 64: 99.12%" in text
    assert "| pairs | maps of | 256 | 64 | 64, decoded so |" in text
    assert "| fp32 | 512x384 | 1.00 | 0.65 | 0.60 |" in text
    assert "| int8 | 512x384 | 1.00 | 0.20 | 0.07 |" in text
    assert "| 256 | 70.00 |" in text
    assert "| 64 | -0.50 ± 0.50 |" in text
