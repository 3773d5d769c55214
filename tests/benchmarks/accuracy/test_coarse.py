"""The report of coarse-to-fine reranking: ratios within a round, and a table of each kind."""

from __future__ import annotations

from benchmarks.accuracy.coarse import markdown, plans, ratios

REPORT = {
    "machine": {"cpu": "a processor"},
    "date": "2026-11-24",
    "command": "python -m benchmarks.accuracy.coarse",
    "dataset": "scenes",
    "shortlist": 100,
    "mAP": {"similarity alone": {"E": 74.7211, "M": 39.08, "H": 28.35}},
    "cost": {"fp32": {"100": 1.0, "30": 0.4321}},
    "parts": {"fp32": {"in full": 1.0, "pooled": 0.07}},
    "pairs in full": {"1": {"100": 58.84, "30": 19.4}},
}


def test_ratios_are_of_one_round_and_their_median_counts():
    """The second round was slow for both: its ratio is as good as any."""
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 200.0, "b": 60.0}, {"a": 1.0, "b": 0.4}]
    assert ratios(rounds) == {"a": 1.0, "b": 0.4}


def test_all_pairs_in_full_come_first_as_others_are_held_against_them():
    found = plans(top_k=10)
    assert list(found) == ["100", "50", "30", "20", "0"]
    assert [plan.full_pairs for plan in found.values()] == [100, 50, 30, 20, 0]
    assert not found["100"].pooled_pairs(100)


def test_the_tables():
    text = markdown(REPORT)
    assert "| scored | mAP E | mAP M | mAP H |" in text
    assert "| similarity alone | 74.72 | 39.08 | 28.35 |" in text
    assert "| fp32 | 1.00 | 0.43 |" in text
    assert "| 1 | 58.8 | 19.4 |" in text
