"""Options that commands share."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvnet_engine.outputs import STANDARD_OUTPUT, require_text, require_writable

if TYPE_CHECKING:
    from cvnet_engine.engine.cluster import Cluster
    from cvnet_engine.engine.presets import PresetName


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
PresetOption = Annotated[
    Literal["exact", "balanced", "fast"] | None,
    typer.Option(
        "--preset",
        help="What holds where nothing else is asked for: exact, as published, the default; balanced; or fast. "
        "Give 'build', 'index' and 'search' the same.",
    ),
]
RerankWithOption = Annotated[
    Literal["cvnet", "superglobal", "both"] | None,
    typer.Option(
        "--rerank-with",
        help="CVNet's pair scores, the default; SuperGlobal's refined descriptors, in milliseconds; "
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
ScalesOption = Annotated[
    str | None,
    typer.Option(
        help="Scales that images are described at: 1, where the maps come from, and any of 0.7071 and 1.4142; fewer "
        "take less time. A gallery keeps its own; a new one has all three, as published."
    ),
]
GalleryOption = Annotated[Path, typer.Option("--gallery", help="Folder written by 'index'.")]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Search all images, also where the gallery has an approximate index.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads; all that are available by default.")
]
RunnerOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--runner",
        help="Who does the work: this process, or those of a Ray cluster, by 2 --threads each unless told otherwise.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Of the Ray cluster; one of this machine alone where it is left out."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes of the Ray cluster; as many as it has room for by default."),
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


def cluster_of(
    runner: str, address: str | None, workers: int | None, threads: int | None, counted: str = "--workers"
) -> Cluster | None:
    """The Ray cluster that was asked for, None for this process alone; `counted` is the option for its processes."""
    from cvnet_engine.engine.cluster import WORKER_THREADS, Cluster

    if runner == "ray":
        return Cluster(address, workers, threads or WORKER_THREADS)
    for option, value in (("--address", address), (counted, workers)):
        if value is not None:
            raise typer.BadParameter("is for --runner ray", param_hint=f"'{option}'")
    return None


def scales_asked(scales: str | None, preset: PresetName | None) -> str | None:
    """The scales that were asked for, else the preset's; None for those of the gallery."""
    from cvnet_engine.engine.presets import PRESETS
    from cvnet_engine.engine.scales import shown

    return scales or (shown(PRESETS[preset].scales) if preset else None)
