"""One self-contained HTML page of rankings and tables: no network, no script, thumbnails inside.

Every string that comes from outside (paths, notes, cells) is escaped; a picture that can no longer be read becomes a
placeholder, since a report on a thousand images should not fail over one.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from benchmarks.tables import Table
from engine.retrieval.ranking import Ranking

Verdict = Literal["easy", "hard", "junk", "wrong"]
Box = tuple[float, float, float, float]

THUMBNAIL_PX = 240
THUMBNAIL_QUALITY = 80
NAME_CHARS = 30
ORIENTATION_TAG, FIRST_SIDEWAYS = 0x0112, 5  # EXIF orientations 5 to 8 swap width and height
VERDICTS: dict[Verdict, str] = {"easy": "Match, easy", "hard": "Match, hard", "junk": "Ignored, junk", "wrong": "Wrong"}
NUMBER = re.compile(r"[-+−±≈<>≤≥~]?\s?\d[\d.,eE+-]*\s?(%|×|x|s|ms|µs|px|B|[KMGT]i?B|GB/s|/s)?")
NOTHING = {"", "-", "–", "—", "n/a"}
# The page may load nothing, so that it shows the same for ever, and a crafted file name has nowhere to go.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Hit:
    """One row of a ranking. `rank` and `before` (its rank before reranking) count from 1."""

    path: str
    rank: int
    score: float
    similarity: float
    rerank_score: float | None = None
    verdict: Verdict | None = None
    before: int | None = None


def hits(
    ranking: Ranking,
    before: Ranking | None,
    paths: Sequence[Path],
    verdict: Callable[[int], Verdict | None],
    count: int,
) -> tuple[Hit, ...]:
    """The first `count` results of a ranking, each with its verdict and the rank it had before reranking, if it was."""
    ranks_before = {row: rank for rank, row in enumerate(before.rows.tolist(), 1)} if before else {}
    top = ranking.first(count)
    columns = (top.rows, top.scores, top.similarities, top.pair_scores)
    return tuple(
        Hit(
            path=str(paths[row]),
            rank=rank,
            score=score,
            similarity=similarity,
            rerank_score=pair_score if pair_score == pair_score else None,  # NaN where not reranked
            verdict=verdict(row),
            before=ranks_before.get(row),
        )
        for rank, (row, score, similarity, pair_score) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
    )


@dataclass(frozen=True)
class Query:
    """A query image and its ranking; `bbx` is x1, y1, x2, y2 in pixels of the upright image."""

    path: str
    bbx: Box | None
    hits: tuple[Hit, ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report. `banner` is a plain warning shown above everything else."""

    title: str
    lead: str
    banner: str | None
    queries: tuple[Query, ...]
    tables: tuple[Table, ...]
    footer: str


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI, with the size in pixels of the upright original."""

    uri: str
    width_px: int
    height_px: int


def render(page: Page) -> str:
    """The page as HTML, about 10 KB a picture."""
    shrink = cache(thumbnail)
    css = resources.files("cvnet_engine").joinpath("templates", "report.css").read_text(encoding="utf-8")
    body = [
        f"<header><h1>{escape(page.title)}</h1>{_paragraph(page.lead, 'lead')}</header>",
        f'<p class="banner" role="note"><strong>Note</strong> {escape(page.banner)}</p>' if page.banner else "",
        _tables(page.tables),
        _legend(page.queries),
        *(_query(query, shrink) for query in page.queries),
        f"<footer>{escape(page.footer)}</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{css}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(filter(None, body)) + "\n</main>\n</body>\n</html>\n"
    )


def thumbnail(path: str) -> Thumbnail | None:
    """A picture at most THUMBNAIL_PX on its longer side, upright; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.getexif().get(ORIENTATION_TAG, 1) >= FIRST_SIDEWAYS:
                width, height = height, width
            image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))  # JPEG decodes at a fraction of its size
            small = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for bad files
        return None
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=THUMBNAIL_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    return Thumbnail(uri, width, height)


Shrink = Callable[[str], Thumbnail | None]


def _query(query: Query, shrink: Shrink) -> str:
    hits = "\n".join(_hit(hit, shrink) for hit in query.hits)
    ranking = f'<ol class="hits">\n{hits}\n</ol>' if query.hits else '<p class="empty">Nothing was found.</p>'
    return (
        f'<section class="query">\n<figure class="asked">{_asked(query, shrink(query.path))}'
        f"<figcaption><span>Query</span> {_name(query.path)}{_paragraph(query.note, 'note')}</figcaption></figure>\n"
        f"{ranking}\n</section>"
    )


def _asked(query: Query, picture: Thumbnail | None) -> str:
    """The query image with its bounding box."""
    box = _bbx(query.bbx, picture) if query.bbx and picture else ""
    return f'<div class="frame">{_image(query.path, picture)}{box}</div>'


def _bbx(bbx: Box, picture: Thumbnail) -> str:
    left, right = (100 * min(max(x / picture.width_px, 0), 1) for x in bbx[0::2])
    top, bottom = (100 * min(max(y / picture.height_px, 0), 1) for y in bbx[1::2])
    place = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
    return f'<span class="bbx" style="{place}" title="bounding box of the query"></span>'


def _hit(hit: Hit, shrink: Shrink) -> str:
    kind = f" {hit.verdict}" if hit.verdict else ""
    verdict = f'<span class="verdict">{VERDICTS[hit.verdict]}</span>' if hit.verdict else ""
    numbers = [("score", hit.score), ("similarity", hit.similarity), ("rerank", hit.rerank_score)]
    scores = "".join(f"<div><dt>{n}</dt><dd>{_number(v)}</dd></div>" for n, v in numbers if v is not None)
    return (
        f'<li class="hit{kind}">{_image(hit.path, shrink(hit.path))}'
        f'<p class="place"><b>{hit.rank}</b>{_movement(hit)}{verdict}</p>'
        f'<dl>{scores}</dl><p class="name">{_name(hit.path)}</p></li>'
    )


def _movement(hit: Hit) -> str:
    """How far reranking moved a hit: up, down, or not at all."""
    if hit.before is None:
        return ""
    places = hit.before - hit.rank
    if places == 0:
        return '<span class="move" title="not moved by reranking">=</span>'
    arrow, word = ("▲", "up") if places > 0 else ("▼", "down")
    title = f"moved {word} by reranking, from rank {hit.before}"
    return f'<span class="move {word}" title="{title}">{arrow}{abs(places)}</span>'


def _image(path: str, picture: Thumbnail | None) -> str:
    if picture is None:
        return f'<div class="missing" role="img" aria-label="{escape(path)}">This picture cannot be read.</div>'
    return f'<img src="{picture.uri}" alt="{escape(Path(path).name)}" loading="lazy" decoding="async">'


def _name(path: str) -> str:
    """The file's name, shortened in the middle, with the whole path as title."""
    name = Path(path).name
    if len(name) > NAME_CHARS:
        name = name[: NAME_CHARS - 13] + "…" + name[-12:]
    return f'<span class="file" title="{escape(path)}">{escape(name)}</span>'


def _legend(queries: tuple[Query, ...]) -> str:
    """Explains only the marks that the page uses."""
    hits = [hit for query in queries for hit in query.hits]
    marks = []
    if any(hit.verdict for hit in hits):
        marks.append(
            "A solid edge marks a match, a dashed edge a wrong answer, a dotted edge an image left out of mAP."
        )
    if any(hit.before is not None for hit in hits):
        marks.append("▲ and ▼ count the places that reranking moved an image up or down; = means it stayed.")
    return _paragraph(" ".join(marks), "legend")


def _tables(tables: tuple[Table, ...]) -> str:
    return '<div class="tables">\n' + "\n".join(map(_table, tables)) + "\n</div>" if tables else ""


def _table(table: Table) -> str:
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    kinds = [' class="num"' if _is_numeric(cells) else "" for cells in columns]
    head = "".join(f'<th scope="col"{k}>{escape(c)}</th>' for c, k in zip(table.columns, kinds, strict=True))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{k}>{escape(cell)}</td>" for cell, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<section class="table">\n<h2>{escape(table.title)}</h2>\n<div class="scroll">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
        f"{_paragraph(table.note, 'note')}\n</section>"
    )


def _is_numeric(cells: list[str]) -> bool:
    """Whether a column holds numbers, with their units or signs, and gaps at most."""
    filled = [cell for cell in cells if cell.strip() not in NOTHING]
    return bool(filled) and all(NUMBER.fullmatch(cell.strip()) for cell in filled)


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")
