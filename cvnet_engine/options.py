"""Options that commands share."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cvnet_engine.outputs import STANDARD_OUTPUT, require_text, require_writable


def results(context: typer.Context, file: Path | None) -> Path | None:
    """A file for results, checked before the work; standard output is kept for them alone where they go there."""
    if file == STANDARD_OUTPUT:
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
        return file
    return require_text(require_writable(file))


def printed(context: typer.Context, format: str) -> str:
    """What is printed: where that is not for people, standard output is kept for it alone."""
    if format != "table":
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    return format


BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder written by 'build'.")]
RerankWithOption = Annotated[
    Literal["cvnet", "superglobal", "both"],
    typer.Option(
        "--rerank-with",
        help="CVNet's pair scores; SuperGlobal's refined descriptors, in milliseconds; "
        "or pair scores of the best of the 400 that these put in order.",
    ),
]
FineOption = Annotated[
    int | None,
    typer.Option(
        "--fine",
        min=0,
        help="Candidates to score in full, the best by a rough look at the whole shortlist: less time, other scores.",
    ),
]
GalleryOption = Annotated[Path, typer.Option("--gallery", help="Folder written by 'index'.")]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Search all images, also where the gallery has an approximate index.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads; all that are available by default.")
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", callback=results, help="Write the results to this file, for machines; - is standard output."
    ),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", callback=results, help="Write the results as one HTML page, for people.")
]
