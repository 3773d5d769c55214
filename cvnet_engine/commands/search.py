"""`search`: the images of a gallery that show what a query shows."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvnet_engine import console
from cvnet_engine.commands.index import info
from cvnet_engine.outputs import Files
from cvnet_engine.pages.page import Hit, Page, Query, hits
from cvnet_engine.pages.rendering import render
from engine.bundle import Bundle
from engine.contract import Array
from engine.errors import CvnetError, GalleryError, ImageError
from engine.gallery.info import require_equal
from engine.gallery.reader import Gallery
from engine.retrieval.ranking import Ranking
from engine.retrieval.retriever import Retriever
from engine.retrieval.searcher import Plan, RerankWith, Searcher

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Options:
    """What to search for, and where.

    Attributes:
        bbox: the box that queries are cropped to, as in `x1,y1,x2,y2`.
        top_k: results to show.
        rerank: candidates to rerank.
        rerank_with: what the shortlist is reranked with; see `Plan`.
        fine: candidates to score in full; see `Plan`.
    """

    queries: list[Path]
    bundle: Path
    gallery: Path
    bbox: str | None = None
    top_k: int = 10
    rerank: int = 100
    rerank_with: RerankWith = "cvnet"
    fine: int | None = None
    threads: int | None = None
    html: Path | None = None
    json: Path | None = None

    @property
    def files(self) -> Files:
        return Files({"--html": self.html, "--json": self.json}, self.queries, [self.bundle, self.gallery])


@dataclass(frozen=True)
class Found:
    """One query's outcome: the ranking by similarity, the final one, and how long each stage took in seconds."""

    query: Path
    before: Ranking
    ranking: Ranking
    seconds: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A query that came to nothing, and why."""

    query: Path
    reason: str


def run(options: Options) -> None:
    options.files.require_apart()
    box = parse_box(options.bbox)
    bundle = Bundle(options.bundle)
    with Gallery(options.gallery) as gallery:
        info_here = info(bundle.manifest, gallery.info.max_side_px, gallery.info.maps)
        require_equal(gallery.info, info_here, options.gallery)
        if not len(gallery):
            raise GalleryError(f"{options.gallery}: holds no images yet; add some with 'cvnet-engine index'")
        plan = Plan(options.top_k, options.rerank, options.rerank_with, options.fine)
        with Retriever.open(bundle, options.threads) as retriever, Searcher(retriever, gallery) as searcher:
            outcomes = [attempt(query, box, retriever, gallery, searcher, plan) for query in options.queries]
        report(outcomes, gallery, box, bundle, options)
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
    if reasons:
        raise CvnetError("; ".join(dict.fromkeys(reasons)))


def report(outcomes: list[Found | Failed], gallery: Gallery, box: Box | None, bundle: Bundle, options: Options) -> None:
    """What must be said of the model, and the files that were asked for."""
    found = [outcome for outcome in outcomes if isinstance(outcome, Found)]
    if found:
        console.warn_of_model(bundle.manifest)
    if options.json:
        console.write_json(options.json, [to_json(outcome, gallery, options.top_k) for outcome in outcomes])
    if options.html and found:
        console.write_file(options.html, render(page(found, gallery, box, options.top_k, bundle)))


def attempt(
    query: Path, box: Box | None, retriever: Retriever, gallery: Gallery, searcher: Searcher, plan: Plan
) -> Found | Failed:
    """A query's outcome, shown at once; one that fails leaves the others theirs."""
    try:
        found = find(query, box, retriever, gallery, searcher, plan)
    except MemoryError:
        return Failed(query, f"{query}: out of memory; shrink it first, or lower --rerank")
    except CvnetError as error:
        return Failed(query, str(error))
    show(found, gallery, plan.top_k)
    return found


def find(path: Path, box: Box | None, retriever: Retriever, gallery: Gallery, searcher: Searcher, plan: Plan) -> Found:
    """Features, global search, reranking of the shortlist."""
    started = time.perf_counter()
    query = retriever.extract_file(path, box, gallery.info.max_side_px)
    features_s = time.perf_counter() - started
    pairs = plan.pooled_pairs(len(gallery)) + min(plan.full_pairs, len(gallery))
    with console.progress("reranking", pairs) as advance:
        found = searcher.find(query, plan, advance)
    return Found(path, found.before, found.ranking, {"features": features_s} | found.seconds)


def parse_box(text: str | None) -> Box | None:
    """`x1,y1,x2,y2` as four numbers.

    Raises:
        ImageError: anything else.
    """
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(value) for value in text.split(","))
        int(x1 + y1 + x2 + y2)  # rejects inf and nan
    except (ValueError, OverflowError) as error:
        raise ImageError(f"bbox {text!r}: expected four numbers x1,y1,x2,y2 in pixels") from error
    return x1, y1, x2, y2


def found_hits(found: Found, gallery: Gallery, top_k: int) -> tuple[Hit, ...]:
    return hits(found.ranking, found.before, gallery.paths, lambda _: None, top_k)


def show(found: Found, gallery: Gallery, top_k: int) -> None:
    rows = [
        (
            str(hit.rank),
            f"{hit.score:.4f}",
            f"{hit.similarity:.4f}",
            number(hit.rerank_score),
            str(hit.before),
            short(hit.path),
        )
        for hit in found_hits(found, gallery, top_k)
    ]
    console.table(str(found.query), ("rank", "score", "similarity", "rerank", "before", "path"), rows)
    s = found.seconds
    rough = f"rough look at {known(found.ranking.pooled_scores)} {s['pooled']:.2f} s, " if "pooled" in s else ""
    console.say(
        f"features {s['features']:.2f} s, global search of {len(gallery)} images {1e3 * s['global']:.1f} ms, {rough}"
        f"rerank of {known(found.ranking.pair_scores)} {s['rerank']:.2f} s\n"
    )


def known(scores: Array) -> int:
    return int(np.isfinite(scores).sum())


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def short(path: str) -> str:
    """The path from here where that is shorter."""
    return min(path, os.path.relpath(path), key=len)


def to_json(outcome: Found | Failed, gallery: Gallery, top_k: int) -> dict[str, object]:
    query = str(outcome.query)
    if isinstance(outcome, Failed):
        return {"query": query, "results": [], "error": outcome.reason}
    hits = [
        {
            "rank": hit.rank,
            "path": hit.path,
            "score": hit.score,
            "similarity": hit.similarity,
            "rerank_score": hit.rerank_score,
            "pooled_score": hit.pooled_score,
        }
        for hit in found_hits(outcome, gallery, top_k)
    ]
    return {"query": query, "results": hits, "seconds": outcome.seconds}


def page(outcomes: list[Found], gallery: Gallery, box: Box | None, top_k: int, bundle: Bundle) -> Page:
    manifest = bundle.manifest
    queries = tuple(Query(str(found.query), box, found_hits(found, gallery, top_k)) for found in outcomes)
    return Page(
        title="Search results",
        lead=f"{len(outcomes)} queries in a gallery of {len(gallery)} images",
        banner=console.notice(manifest),
        queries=queries,
        tables=(),
        footer=f"cvnet-engine, {manifest.model}",
    )
