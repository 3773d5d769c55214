"""HTML reports: self-contained, escaped, with placeholders for unreadable pictures."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.retrieval.ranking import Hit
from cvnet_engine.pages.page import Page, RankedQuery
from cvnet_engine.pages.rendering import render, render_fragment

EVIL = '/photos/<script>alert("1")</script>&.jpg'
VOID = {"meta", "img", "br", "hr"}


def hit(
    path: str, rank: int, score: float, similarity: float, rerank_score: float | None = None, before: int | None = None
) -> Hit:
    return Hit(Path(path), rank, rank, score, similarity, None, rerank_score, None, before)


def page(*queries: RankedQuery, banner: str | None = None, tables: tuple[Table, ...] = ()) -> Page:
    return Page("Title", "Lead.", banner, queries, tables, "Footer")


def pictures(html: str) -> list[Image.Image]:
    encoded = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


class Balance(HTMLParser):
    """Fails on a tag that is closed without being open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Balance:
    balance = Balance()
    balance.feed(html)
    assert balance.open == []
    return balance


def test_everything_from_outside_is_escaped() -> None:
    hostile = RankedQuery(EVIL, (0, 0, 1, 1), (hit(EVIL, 1, 0.5, 0.5),), note=EVIL)
    table = Table(EVIL, (EVIL,), ((EVIL,),), EVIL)
    html = render(Page(EVIL, EVIL, EVIL, (hostile,), (table,), EVIL))
    assert "script" not in parsed(html).seen
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 8


def test_a_page_loads_nothing(photo: str) -> None:
    html = render(page(RankedQuery(photo, None, (hit(photo, 1, 0.5, 0.5),))))
    assert "default-src 'none'" in html
    assert "prefers-color-scheme" in html  # its style is inside
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "url(" not in html
    assert "@import" not in html


def test_thumbnails_are_small_and_keep_their_shape(photo: str) -> None:
    query, result = pictures(render(page(RankedQuery(photo, None, (hit(photo, 1, 0.5, 0.5),)))))
    assert query.size == result.size == (240, 180)


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_unreadable_picture_gives_a_placeholder(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gone.jpg"
    if content is not None:
        path.write_bytes(content)
    html = render(page(RankedQuery(str(path), (1, 2, 3, 4), (hit(str(path), 1, 0.5, 0.5),))))
    assert html.count("This picture cannot be read.") == 2
    assert 'class="bbx"' not in html


def test_bbx_is_drawn_in_proportion_and_inside(photo: str) -> None:
    assert "left:25.00%;top:50.00%;width:50.00%;height:25.00%" in render(
        page(RankedQuery(photo, (200.0, 300.0, 600.0, 450.0), ()))
    )
    assert "left:0.00%;top:0.00%;width:100.00%;height:100.00%" in render(
        page(RankedQuery(photo, (-5.0, -5.0, 900.0, 900.0), ()))
    )


def test_hits_show_scores_movement_and_verdict() -> None:
    hits = (
        hit("a.jpg", 1, 1.25, 0.75, 1.0, before=4),
        hit("b.jpg", 2, 0.5, -0.5, 0.0, before=1),
        hit("c.jpg", 3, 0.4, 0.4, 0.0, before=3),
        hit("d.jpg", 4, 0.3, 0.3),
    )
    query = RankedQuery("q.jpg", None, hits, verdicts={1: "hard", 2: "wrong", 3: "junk"})
    first, second, third, last = re.findall(r"<li.*?</li>", render(page(query)))
    for expected in (
        "1.2500",
        "0.7500",
        "1.0000",
        "▲3",
        "moved up by reranking, from rank 4",
        "Match, hard",
        'class="hit hard"',
    ):
        assert expected in first
    for expected in ("▼1", "moved down by reranking, from rank 1", "Wrong", "−0.5000", 'class="hit wrong"'):
        assert expected in second
    assert ">=</span>" in third
    assert "Ignored, junk" in third
    for absent in ("rerank", "move", "verdict"):
        assert absent not in last


def test_legend_explains_only_what_is_there() -> None:
    assert "edge" not in render(page(RankedQuery("q.jpg", None, (hit("a.jpg", 1, 0.5, 0.5),)))).split("</style>")[1]
    assert "edge" in render(page(RankedQuery("q.jpg", None, (hit("a.jpg", 1, 0.5, 0.5),), verdicts={1: "easy"})))


def test_long_names_are_shortened_and_kept_as_title() -> None:
    path = "/photos/" + "x" * 60 + "_0001.jpg"
    html = render(page(RankedQuery(path, None, ())))
    assert f'title="{path}"' in html
    assert f"{'x' * 17}…xxx_0001.jpg<" in html


def test_numbers_are_aligned_right_and_words_are_not() -> None:
    table = Table("T", ("name", "mAP", "time"), (("global", "41.5", "2.1 ms"), ("reranked", "–", "1,024 ms")))
    html = render(page(tables=(table,)))
    assert '<th scope="col">name</th><th scope="col" class="num">mAP</th><th scope="col" class="num">time</th>' in html
    assert '<td class="num">41.5</td>' in html
    assert "<td>global</td>" in html


def test_banner_is_there_only_when_given() -> None:
    assert "Untrained" in render(page(banner="Untrained"))
    assert 'role="note"' not in render(page())


def test_a_fragment_is_part_of_another_page(photo: str) -> None:
    query = RankedQuery(
        photo, (0, 0, 400, 300), (hit(photo, 1, 0.9, 0.5, 0.8, before=3), hit("/gone.jpg", 2, 0.4, 0.4))
    )
    html = render_fragment(query, "a notice")
    seen = parsed(html).seen
    assert not {"html", "body", "title", "meta", "script", "main"} & seen
    assert [image.size for image in pictures(html)] == [(240, 180)] * 2
    for text in ("a notice", "left:0.00%;top:0.00%;width:50.00%;height:50.00%", "moved up", "0.9000", "cannot be read"):
        assert text in html
    styles = html.partition("<style>")[2].partition("</style>")[0]
    rules = [line for line in styles.strip().splitlines() if not line.startswith("/*")]
    assert all(selector.strip().startswith(".cvnet-ranking") for rule in rules for selector in selectors(rule))


def selectors(rule: str) -> list[str]:
    """Of a rule on one line, the commas within :is() left alone."""
    return re.split(r",(?![^(]*\))", rule.partition("{")[0])


def test_a_fragment_escapes_input_and_reports_no_results() -> None:
    html = render_fragment(RankedQuery(EVIL, None, ()), EVIL)
    assert "script" not in parsed(html).seen
    assert "No results." in html
    assert "Note" not in render_fragment(RankedQuery(EVIL, None, ()), None)


def test_a_query_in_memory_is_shown(photo: str) -> None:
    query = RankedQuery("-", (0, 0, 800, 600), (), image=Path(photo).read_bytes())
    for html in (render_fragment(query, None), render(page(query))):
        assert [image.size for image in pictures(html)] == [(240, 180)]
        assert "width:100.00%;height:100.00%" in html
