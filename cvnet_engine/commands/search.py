"""`search`: a gallery searched with query images."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from cvnet_engine import console
from cvnet_engine.commands.shortlists import Shortlists
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import CvnetError, ImageError, counted
from cvnet_engine.engine.gallery.filter import Filter
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.images import MAX_BYTES, Box, ImageLike
from cvnet_engine.engine.retrieval.ranking import Hit
from cvnet_engine.options import SearchOptions
from cvnet_engine.outputs import STANDARD_OUTPUT
from cvnet_engine.pages.page import Page
from cvnet_engine.pages.rendering import render
from cvnet_engine.results import Results
from cvnet_engine.retriever import EVERYTHING, GalleryImage, Retriever

STANDARD_INPUT = Path("-")
TSV_COLUMNS = ("query", "rank", "score", "similarity", "rerank_score", "before", "path")


@dataclass(frozen=True)
class Found:
    """A query and its results."""

    query: Path
    results: Results


@dataclass(frozen=True)
class Failed:
    """A query that failed, with the error message."""

    query: Path
    reason: str


@dataclass(frozen=True)
class Search:
    """State shared by all queries of a command."""

    retriever: Retriever
    options: SearchOptions
    box: Box | None
    where: Filter
    shortlists: Shortlists | None

    def attempt(self, query: Path, image: ImageLike | GalleryImage) -> Found | Failed:
        """Search with one query and show its results; an error does not affect the other queries."""
        try:
            found = Found(query, self.find(query, image))
        except MemoryError:
            return Failed(query, f"{query}: out of memory; shrink it first, or lower --rerank")
        except CvnetError as error:
            return Failed(query, f"standard input: {error}" if query == STANDARD_INPUT else str(error))
        show(found, self.options.format)
        return found

    def find(self, query: Path, image: ImageLike | GalleryImage) -> Results:
        candidates, options = self.shortlists.of(query) if self.shortlists else None, self.options
        with console.progress("reranking") as advance:
            return self.retriever.search(
                image,
                options.top_k,
                options.rerank,
                self.box,
                method=options.rerank_with,
                rerank_full=options.rerank_full,
                preset=options.preset or "exact",
                where=self.where,
                candidates=candidates,
                done=advance,
            )


def run(options: SearchOptions) -> None:
    if not options.queries and not options.similar_to:
        raise typer.BadParameter("expected a query image, or --similar-to", param_hint="'QUERIES...'")
    box, where = parse_box(options.bbox), Filter.parse(options.filter or ())
    shortlists = Shortlists.read(options.candidates) if options.candidates else None
    bundle = Bundle.open(options.bundle)
    exact = (
        options.exact or shortlists is not None or where != EVERYTHING
    )  # the approximate index is never used for a subset
    with (
        Gallery.open(options.gallery) as gallery,
        Retriever(bundle, gallery, options.threads, exact=exact) as retriever,
    ):
        search = Search(retriever, options, box, where, shortlists)
        if options.format == "tsv":
            console.emit("\t".join(TSV_COLUMNS) + "\n")
        outcomes = [search.attempt(query, image) for query, image in queries_of(options)]
        report(outcomes, len(gallery), bundle, options)
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
    if reasons:
        raise CvnetError("; ".join(dict.fromkeys(reasons)))


def queries_of(options: SearchOptions) -> Iterator[tuple[Path, ImageLike | GalleryImage]]:
    """Yield each query's name and image."""
    for query in options.queries or ():
        yield query, sys.stdin.buffer.read(MAX_BYTES) if query == STANDARD_INPUT else query
    for path in options.similar_to or ():
        yield path, GalleryImage(path)


def report(outcomes: Sequence[Found | Failed], images: int, bundle: Bundle, options: SearchOptions) -> None:
    """Show the model's warning and write the requested files."""
    found = [outcome for outcome in outcomes if isinstance(outcome, Found)]
    if found:
        console.warn_of_model(bundle.manifest)
    for file in filter(None, (options.json, STANDARD_OUTPUT if options.format == "json" else None)):
        console.write_json(file, [to_json(outcome) for outcome in outcomes])
    if options.html and found:
        console.write_file(options.html, render(page(found, images, bundle)))


def parse_box(text: str | None) -> Box | None:
    """Parse `x1,y1,x2,y2`.

    Raises:
        ImageError: the text is not four finite numbers.
    """
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(value) for value in text.split(","))
        int(x1 + y1 + x2 + y2)  # rejects inf and nan
    except (ValueError, OverflowError) as error:
        raise ImageError(f"bbox {text!r}: expected four numbers x1,y1,x2,y2 in pixels") from error
    return x1, y1, x2, y2


def show(found: Found, format: str) -> None:
    results = found.results
    match format:
        case "table" if results.hits:
            columns = ("rank", "score", "similarity", "rerank", "before", "path")
            console.table(str(found.query), columns, [table_row(hit) for hit in results.hits])
        case "paths" | "paths0":
            end = "\n" if format == "paths" else "\0"
            console.emit("".join(f"{hit.path}{end}" for hit in results.hits))
        case "tsv":
            console.emit("".join("\t".join(tsv_row(found.query, hit)) + "\n" for hit in results.hits))
    if not results.hits:
        console.warn(f"{found.query}: no gallery image is left by --filter or --candidates")
    s = results.seconds
    coarse = f"coarse scores of {counted(results.pooled_pairs, 'pair')} {s['pooled']:.2f} s, " if "pooled" in s else ""
    way = "global" if results.exact else "approximate global"
    console.say(
        f"features {s['features']:.2f} s, {way} search of {counted(results.images, 'image')} "
        f"{1e3 * s['global']:.1f} ms, {coarse}rerank of {counted(results.pairs, 'pair')} {s['rerank']:.2f} s\n"
    )


def table_row(hit: Hit) -> tuple[str, ...]:
    scores = (f"{hit.score:.4f}", f"{hit.similarity:.4f}", number(hit.rerank_score, 4, "-"))
    return str(hit.rank), *scores, number(hit.before, 0, "-"), short(hit.path)


def tsv_row(query: Path, hit: Hit) -> tuple[str, ...]:
    """Return the cells of `TSV_COLUMNS`; tabs and newlines in paths are replaced by U+FFFD."""
    scores = (f"{hit.score:.6f}", f"{hit.similarity:.6f}", number(hit.rerank_score, 6, ""))
    query_text, path = (re.sub(r"[\t\n]", "\N{REPLACEMENT CHARACTER}", str(text)) for text in (query, hit.path))
    return query_text, str(hit.rank), *scores, number(hit.before, 0, ""), path


def number(value: float | None, digits: int, none: str) -> str:
    return none if value is None else f"{value:.{digits}f}"


def short(path: Path) -> str:
    """Return the path, or the path relative to the working directory if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def to_json(outcome: Found | Failed) -> dict[str, object]:
    query = str(outcome.query)
    if isinstance(outcome, Failed):
        return {"query": query, "results": [], "error": outcome.reason}
    hits = [
        {
            "rank": hit.rank,
            "path": str(hit.path),
            "score": hit.score,
            "similarity": hit.similarity,
            "refined": hit.refined,
            "rerank_score": hit.rerank_score,
            "pooled_score": hit.pooled_score,
            "before": hit.before,
        }
        for hit in outcome.results.hits
    ]
    way = "exact" if outcome.results.exact else "ann"
    return {"query": query, "results": hits, "seconds": outcome.results.seconds, "global": way}


def page(outcomes: Sequence[Found], images: int, bundle: Bundle) -> Page:
    manifest = bundle.manifest
    queries, gallery = counted(len(outcomes), "query"), counted(images, "image")
    return Page(
        title="Search results",
        lead=f"{queries} in a gallery of {gallery}",
        banner=console.notice(manifest),
        queries=tuple(found.results.on_page(str(found.query)) for found in outcomes),
        tables=(),
        footer=f"cvnet-engine, {manifest.model}",
    )
