"""Tables of results, and their Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cvnet_engine.engine.errors import DatasetError


@dataclass(frozen=True)
class Table:
    """Cells as they are to be read; columns of numbers are aligned right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def markdown(table: Table, text_columns: int = 2) -> str:
    """The table in Markdown, its first columns aligned left."""
    rule = ["---"] * text_columns + ["---:"] * (len(table.columns) - text_columns)
    lines = [f"| {' | '.join(cells)} |" for cells in (table.columns, tuple(rule), *table.rows)]
    return "\n".join(filter(None, [f"**{table.title}**\n" if table.title else "", *lines])) + "\n"


def ms(value: float) -> str:
    """Milliseconds to about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float) -> str:
    """A ratio to about two or three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def replace_section(document: str, section: str, command: str, text: str) -> str:
    """Replace the text between a section's two marker lines in a Markdown document.

    Raises:
        DatasetError: the document has no such lines.
    """
    begin, end = f"<!-- {section}: written by {command} -->", f"<!-- end of {section} -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(document):
        raise DatasetError(f"the document has no section from '{begin}' to '{end}'; put these lines where it belongs")
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n{end}", document)
