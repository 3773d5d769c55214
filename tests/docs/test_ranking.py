"""README's picture says what the rankings say."""

import numpy as np

from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, QueryEvaluation
from cvnet_engine.benchmarks.accuracy.protocol import judge
from cvnet_engine.engine.retrieval.ranking import Ranking
from docs.ranking import SETUP, SHORTLIST, draw
from tests.pictures import photo


def test_each_result_has_its_rank_the_one_before_and_a_frame(tmp_path):
    images = tuple(photo(tmp_path / f"{number}.jpg", seed=number) for number in range(4))
    none = np.array([], np.int64)
    truth = GroundTruth((0.0, 0.0, 40.0, 30.0), easy=np.array([2]), hard=none, junk=none)
    before = Ranking.by_similarity(np.array([0.9, 0.8, 0.7], np.float32))
    after = before.reranked(np.array([0.0, 0.0, 1.0], np.float32))
    rankings = {(GLOBAL, SETUP): before, (SHORTLIST, SETUP): after}
    results = {key: judge(ranking.rows, truth, SETUP) for key, ranking in rankings.items()}
    query = QueryEvaluation(before, {}, {}, rankings, results, 0.0)
    figure = draw(Dataset("set", images[:3], images[3:], (truth,)), 0, query)
    asked, *shown = figure.axes
    assert len(asked.patches) == 1  # the box
    assert [axes.get_title("left") for axes in shown] == ["1", "2", "3", "1, was 3", "2, was 1", "3, was 2"]
    frames = [axes.spines["left"].get_edgecolor()[:3] for axes in shown]
    assert [frame == frames[2] for frame in frames] == [False, False, True, True, False, False]
    assert [text.get_text() for text in figure.texts][1:] == [
        "Ranked by descriptor: average precision 17%",
        f"Best {SHORTLIST} reranked: average precision 100%",
    ]
