"""Renderer of self-contained HTML pages: embedded thumbnails, no scripts, no network access."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.filesize import decimal

from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.errors import counted
from cvnet_engine.pages.page import DuplicatesPage, Page, RankedQuery
from cvnet_engine.pages.thumbnail import thumbnail

NAME_CHARS, TAIL_CHARS = 30, 12
NUMBER = re.compile(r"[-+−±≈<>≤≥~]?\s?\d[\d.,eE+-]*\s?(%|×|x|s|ms|µs|px|B|[KMGT]i?B|GB/s|/s)?")
NOTHING = {"", "-", "–", "—", "n/a"}


def render(page: Page | DuplicatesPage, template: str = "page.html") -> str:
    """Render a page as HTML, about 10 KB per image."""
    return environment().get_template(template).render(page=page)


def render_fragment(query: RankedQuery, banner: str | None) -> str:
    """Render a query and its ranking as an HTML fragment, for instance for a notebook."""
    return environment().get_template("fragment.html").render(query=query, banner=banner)


def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("cvnet_engine.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "bytes": decimal,
        "counted": counted,
        "name": name,
        "shortened": shortened,
        "numeric_columns": numeric_columns,
        "thumbnail": cache(thumbnail),
    }
    return found


def name(path: str) -> str:
    return Path(path).name


def shortened(text: str) -> str:
    """Shorten a text to NAME_CHARS by replacing its middle with an ellipsis."""
    head = NAME_CHARS - TAIL_CHARS - 1
    return text if len(text) <= NAME_CHARS else f"{text[:head]}…{text[-TAIL_CHARS:]}"


def numeric_columns(table: Table) -> list[bool]:
    """Return for each column if all its non-empty cells are numbers, with or without a sign or unit."""
    columns = ([row[i].strip() for row in table.rows] for i in range(len(table.columns)))
    filled = [[cell for cell in cells if cell not in NOTHING] for cells in columns]
    return [bool(cells) and all(map(NUMBER.fullmatch, cells)) for cells in filled]
