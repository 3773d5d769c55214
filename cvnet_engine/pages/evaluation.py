"""HTML page of an evaluation: accuracy, the hardest queries, and the queries that reranking changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cvnet_engine import console
from cvnet_engine.benchmarks.accuracy.agreement import Agreement
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, GroundTruth
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Evaluation, QueryEvaluation, Timed
from cvnet_engine.benchmarks.accuracy.protocol import CUTOFFS, SETUPS
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import counted
from cvnet_engine.engine.retrieval.ranking import Ranking, hits
from cvnet_engine.pages.page import Page, RankedQuery, Verdict

MEASURES = ("mAP", f"mP@{CUTOFFS[-1]}")
ACCURACY_COLUMNS = ("", *(f"{measure} {setup}" for measure in MEASURES for setup in SETUPS))
ENGINE, REFERENCE, AGAINST = "engine", "reference", "against"
AGREEMENT_COLUMNS = (
    "",
    "setup",
    "mAP, points",
    "largest AP, points",
    "same first",
    "first 10 in common",
    "Kendall's tau",
)

SETUP = "M"  # Medium setup, in which easy and hard images are relevant
HARDEST, MOVED = 10, 5  # queries of lowest AP; queries of largest gain, and of largest loss, in AP by reranking
SHOWN = 10  # results per query


def evaluation_page(
    dataset: Dataset,
    bundle: Bundle,
    outcomes: Mapping[str, Timed],
    agreements: Mapping[str, Agreement],
    shortlists: Sequence[int],
) -> Page:
    """Return the page, with the engine's rankings after reranking the longest shortlist."""
    engine, _ = outcomes[ENGINE]
    longest = max(shortlists, default=GLOBAL)
    chosen = choose(engine, longest)
    return Page(
        title=f"{dataset.name}, evaluated",
        lead=f"{counted(len(dataset.queries), 'query')} among {counted(len(dataset.images), 'image')}"
        + (f", best {longest} reranked" if longest else ", not reranked")
        + (", most by their pooled maps alone." if engine.pooled_pairs else ".")
        + f" Below: the queries of lowest AP in the Medium setup, and those that reranking moved most ({len(chosen)}).",
        banner=console.notice(bundle.manifest),
        queries=tuple(shown(row, reason, dataset, engine, longest) for row, reason in chosen.items()),
        tables=(
            accuracy(outcomes, shortlists),
            *moves(engine, shortlists),
            *(agreement_table(name, agreement) for name, agreement in agreements.items()),
        ),
        footer=f"cvnet-engine, {bundle.manifest.model}",
    )


def choose(evaluation: Evaluation, longest: int) -> dict[int, str]:
    """Return the queries to show, each with the reason: the hardest, and those that reranking helped and hurt most."""
    aps = {row: ap(query, longest) for row, query in enumerate(evaluation.queries) if query.results[longest, SETUP]}
    gains = {row: aps[row] - ap(evaluation.queries[row], GLOBAL) for row in aps}
    by_gain = sorted(gains, key=lambda row: gains[row])
    chosen = dict.fromkeys(sorted(aps, key=lambda row: aps[row])[:HARDEST], "among the hardest")
    for row in reversed(by_gain[-MOVED:]):
        if gains[row] > 0:
            chosen.setdefault(row, "among those that reranking helped most")
    for row in by_gain[:MOVED]:
        if gains[row] < 0:
            chosen.setdefault(row, "among those that reranking hurt most")
    return chosen


def ap(query: QueryEvaluation, shortlist: int) -> float:
    result = query.results[shortlist, SETUP]
    assert result
    return result.ap


def shown(row: int, reason: str, dataset: Dataset, evaluation: Evaluation, longest: int) -> RankedQuery:
    """Return a query with its first results and a note on its AP."""
    query, truth = evaluation.queries[row], dataset.ground_truth[row]
    (ap_before, place_before), (ap_after, place) = (
        (100 * ap(query, k), first_match(query.rankings[k, SETUP], truth)) for k in (GLOBAL, longest)
    )
    note = f"{reason.capitalize()}. AP {ap_after:.1f}, first match at {place}"
    if longest:
        note += f"; before reranking {ap_before:.1f}, at {place_before}"
    return judged(query, dataset, row, longest, SHOWN, note)


def first_match(ranking: Ranking, truth: GroundTruth) -> int:
    """Return the rank of the first relevant image, counted from 1."""
    return 1 + int(np.isin(ranking.rows, [*truth.easy, *truth.hard]).argmax())


def judged(
    query: QueryEvaluation, dataset: Dataset, number: int, shortlist: int, count: int, note: str = ""
) -> RankedQuery:
    """Return a query with its first `count` results, without ignored images, and their ground truth."""
    truth = dataset.ground_truth[number]
    verdicts: dict[int, Verdict] = dict.fromkeys(truth.easy.tolist(), "easy")
    verdicts |= dict.fromkeys(truth.hard.tolist(), "hard")
    before = query.rankings[GLOBAL, SETUP].rows.tolist() if shortlist else ()
    found = hits(query.rankings[shortlist, SETUP].first(count), before, dataset.images)
    verdicts |= {hit.row: "wrong" for hit in found if hit.row not in verdicts}
    return RankedQuery(str(dataset.queries[number]), truth.bbx, found, note, verdicts=verdicts)


def accuracy(outcomes: Mapping[str, Timed], shortlists: Sequence[int]) -> Table:
    """Return a table with one row per method and shortlist length."""
    rows = []
    for who, (evaluation, _) in outcomes.items():
        for k in (GLOBAL, *shortlists):
            means = [evaluation.means(k, setup) for setup in SETUPS]
            cells = [percent(mean[measure]) for measure in MEASURES for mean in means]
            rows.append((f"{who}, {f'reranked {k}' if k else 'global'}", *cells))
    note = "E, M, H: the Easy, Medium and Hard setups of Revisited Oxford/Paris."
    return Table("Accuracy, percent", ACCURACY_COLUMNS, tuple(rows), note)


def percent(fraction: float) -> str:
    return "-" if fraction != fraction else f"{100 * fraction:.2f}"


def moves(evaluation: Evaluation, shortlists: Sequence[int]) -> list[Table]:
    """Return a table of how many queries reranking improved and worsened, by shortlist length; empty without any."""
    rows = []
    for k in shortlists:
        judged = [query for query in evaluation.queries if query.results[k, SETUP]]
        gains = [100 * (ap(query, k) - ap(query, GLOBAL)) for query in judged]
        better, worse = ([g for g in gains if g * sign > 0] for sign in (1, -1))
        extremes = (f"{max(gains, default=0):+.1f}", f"{min(gains, default=0):+.1f}")
        rows.append((str(k), str(len(better)), str(len(worse)), str(len(gains) - len(better) - len(worse)), *extremes))
    columns = ("shortlist", "better", "worse", "unchanged", "largest gain", "largest loss")
    note = "Queries by what reranking did to their AP in the Medium setup; gain and loss in points."
    return [Table("What reranking moved", columns, tuple(rows), note)] if rows else []


def agreement_table(name: str, agreement: Agreement) -> Table:
    """Return a table of the engine's agreement with `name`, one row per shortlist length and setup."""
    rows = tuple(
        (
            f"reranked {k}" if k else "global",
            setup,
            f"{100 * ranks.map_difference:+.4f}",
            f"{100 * ranks.largest_ap_difference:.4f}",
            f"{ranks.same_first:.1%}",
            f"{ranks.head:.1%}",
            f"{ranks.tau:.4f}",
        )
        for (k, setup), ranks in agreement.ranks.items()
    )
    title = f"The engine against the {'other bundle' if name == AGAINST else name}"
    note = (
        f"Pair scores differ by {agreement.largest_pair_difference:.1e} at most. "
        "Kendall's tau: of the order of shortlisted images."
    )
    return Table(title, AGREEMENT_COLUMNS, rows, note)
