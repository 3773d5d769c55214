"""The `cvnet-engine` program: what each command takes. What it does is in the module of its name, imported when run."""

from __future__ import annotations

import io
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer
from typer.core import TyperGroup

from cvnet_engine import care, interrupts
from cvnet_engine.engine.backends import PRECISIONS, WHOLE
from cvnet_engine.engine.errors import OUT_OF_MEMORY, CvnetError, CvnetWarning
from cvnet_engine.engine.geometry import MAP_DIM, REDUCED_DIMS
from cvnet_engine.options import (
    AddressOption,
    BundleOption,
    ExactOption,
    FineOption,
    GalleryOption,
    HtmlOption,
    JsonOption,
    PresetOption,
    RerankWithOption,
    RunnerOption,
    ScalesOption,
    ThreadsOption,
    WorkersOption,
    cluster_of,
    printed,
    results,
    scales_asked,
)
from cvnet_engine.outputs import require_writable


class Program(TyperGroup):
    """The commands, each unwound by Ctrl-C."""

    def invoke(self, context: Any) -> Any:
        with interrupts.unwinding():
            return super().invoke(context)


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"cvnet-engine {version('cvnet-engine')}")
        raise typer.Exit


@app.callback()
def program(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Instance-level image retrieval with CVNet: build an engine, index photos, search, evaluate."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    threads: ThreadsOption = None,
) -> None:
    """The whole tour on generated scenes: build, index, search, eval; prints tables, writes an HTML report."""
    from cvnet_engine.commands import demo

    demo.run(out, threads)


@app.command()
def build(
    weights: Annotated[
        str,
        typer.Option(help="A CVNet checkpoint, 'demo' for the demonstration model, 'seeded[:N]' for an untrained one."),
    ],
    depth: Annotated[int, typer.Option(help="Of the ResNet: 50 or 101.")],
    out: Annotated[Path, typer.Option(help="Folder for the bundle; a bundle that is there is replaced.")],
    descriptor: Annotated[
        Literal["cvnet", "superglobal"],
        typer.Option(help="CVNet's own, or SuperGlobal's from the same weights. Pair scores do not depend on it."),
    ] = "cvnet",
    backend: Annotated[
        str,
        typer.Option(help=f"auto (the fastest for each graph), or one for all: {', '.join(WHOLE)}."),
    ] = "auto",
    preset: PresetOption = None,
    precision: Annotated[
        str | None, typer.Option(help=f"{', '.join(PRECISIONS)}; not every backend has all of them. fp32 by default.")
    ] = None,
    sizes: Annotated[
        str,
        typer.Option(
            help="Image sizes to come, WIDTHxHEIGHT,... or a folder of such images: "
            "'auto' times at the first or most frequent, TensorRT plans for all."
        ),
    ] = "1024x768",
    max_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="As 'index' will be told, in pixels, where --sizes is a folder; 0 for no limit, 1024 by default.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of photos like those to come: int8 needs it, other precisions are measured on it."),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            help="GPU architectures that tensorrt-rtx compiles for ahead of time, as in sm86,sm89,sm120; 'current' is "
            "this machine's. By default Ampere and later."
        ),
    ] = "",
    map_dims: Annotated[
        str,
        typer.Option(
            help=f"Correlate maps in {', '.join(map(str, REDUCED_DIMS))} of their {MAP_DIM} dimensions, or, with auto, "
            "in the fewest that leave scores as they are; learnt from --calibration, else from generated scenes. Only "
            "for the native pair scorer. Left out, maps are whole, as published."
        ),
    ] = "",
    map_drift: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How far --map-dims may move pair scores in the mean, and a fifth of how far any; else maps stay "
            "whole. By default 0.002.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Export a PyTorch model to a bundle of engines, each checked against PyTorch."""
    from cvnet_engine.commands import build
    from cvnet_engine.engine.presets import PRESETS, limit_px

    build.run(
        build.Options(
            weights=weights,
            depth=depth,
            out=out,
            descriptor=descriptor,
            backend=backend,
            precision=precision or PRESETS[preset or "exact"].precision,
            sizes=sizes,
            max_side_px=limit_px(max_side, preset),
            calibration=calibration,
            targets=targets,
            map_dims=map_dims,
            map_drift=map_drift,
            json=json,
        )
    )


@app.command()
def index(
    images: Annotated[
        list[Path], typer.Argument(help="Image files, and folders to search for them; - lists them on standard input.")
    ],
    bundle: BundleOption,
    gallery: GalleryOption,
    preset: PresetOption = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Shrink images whose longer side exceeds this, in pixels; 0 for no limit, 1024 by default.",
        ),
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(
            help="How feature maps are kept: float16; int8, in half the space; or coded[:BYTES], a learnt code of so "
            "many bytes a position, 24 by default, in a 21st of it; or coded:PERCENT%, of as few as keep that share of "
            "their energy. A gallery keeps its kind."
        ),
    ] = None,
    scales: ScalesOption = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Of folders, only files like this, as '*.jpg'; repeat it for several.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Of folders, no files like this, as 'thumbs/*'; repeat it for several.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with what is added to the folders or changed, until Ctrl-C.")
    ] = False,
    runner: RunnerOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Add images to a gallery. What is there and unchanged is skipped, so an interrupted run resumes."""
    from cvnet_engine.commands import index
    from cvnet_engine.engine.presets import PRESETS, limit_px

    index.run(
        index.Options(
            images=images,
            bundle=bundle,
            gallery=gallery,
            max_side_px=limit_px(max_side, preset),
            maps=maps or (PRESETS[preset].maps if preset else None),
            threads=threads,
            json=json,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            watch=watch,
            cluster=cluster_of(runner, address, workers, threads),
            scales=scales_asked(scales, preset),
        )
    )


@app.command()
def search(
    bundle: BundleOption,
    gallery: GalleryOption,
    queries: Annotated[
        list[Path] | None, typer.Argument(help="Query images; - reads one from standard input.", show_default=False)
    ] = None,
    similar_to: Annotated[
        list[Path] | None,
        typer.Option(
            help="Take this image of the gallery as a query, by its stored features; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    bbox: Annotated[str | None, typer.Option(help="Crop the query to x1,y1,x2,y2 in pixels.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Results to show.")] = 10,
    rerank: Annotated[
        int | None,
        typer.Option(min=0, help="Candidates to rerank; 0 for none. 100 by default, or all of --candidates."),
    ] = None,
    rerank_with: RerankWithOption = None,
    fine: FineOption = None,
    preset: PresetOption = None,
    exact: ExactOption = False,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="Search only images whose path contains a text, name=TEXT; that are below a folder, folder=PATH; that "
            "were taken from, or to, a year, month or day, taken_from=2019-06. Repeat it for several.",
            show_default=False,
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="Text file of gallery images to rank, and no others, one path a line; or a .json file: an object that "
            "has such a list for each query."
        ),
    ] = None,
    format: Annotated[
        Literal["table", "paths", "paths0", "tsv", "json"],
        typer.Option(
            callback=printed,
            help="What to print: a table for people; or, with nothing else on standard output, a path a line, paths "
            "that each end in NUL, tab-separated values, JSON.",
        ),
    ] = "table",
    threads: ThreadsOption = None,
    html: HtmlOption = None,
    json: JsonOption = None,
) -> None:
    """Find the images of a gallery that show what a query shows."""
    if not queries and not similar_to:
        raise typer.BadParameter("expected a query image, or --similar-to", param_hint="'QUERIES...'")
    from cvnet_engine.commands import search

    search.run(
        search.Options(
            queries=queries or [],
            bundle=bundle,
            gallery=gallery,
            similar_to=similar_to or [],
            bbox=bbox,
            top_k=top_k,
            rerank=rerank,
            rerank_with=rerank_with,
            fine=fine,
            preset=preset or "exact",
            exact=exact,
            candidates=candidates,
            filters=filter or [],
            format=format,
            threads=threads,
            html=html,
            json=json,
        )
    )


@app.command("eval")
def evaluate(
    dataset: Annotated[str, typer.Option(help="Name of the data set, for instance roxford5k.")],
    data_dir: Annotated[Path, typer.Option(help="Folder that holds NAME/gnd_NAME.pkl and NAME/jpg.")],
    bundle: BundleOption,
    rerank: Annotated[
        str | None, typer.Option(help="Shortlist lengths, for instance 100,400; 0 for none; 100 by default.")
    ] = None,
    rerank_with: RerankWithOption = None,
    fine: FineOption = None,
    preset: PresetOption = None,
    scales: ScalesOption = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Evaluate the PyTorch model beside the engine.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="Evaluate this bundle too, for instance one of another precision.")
    ] = None,
    distractors: Annotated[
        Path | None, typer.Option(help="Text file of further database images, one path a line.")
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Keep features and pair scores here, to go on after a kill or to repeat; else temporary."),
    ] = None,
    uncropped: Annotated[
        bool, typer.Option("--uncropped", help="Take whole query images, not their boxes: not the published protocol.")
    ] = False,
    runner: RunnerOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    html: HtmlOption = None,
    json: JsonOption = None,
) -> None:
    """Evaluate mAP and mP@k in the protocol of Revisited Oxford/Paris: Easy, Medium, Hard, global and reranked."""
    from cvnet_engine.commands import evaluate
    from cvnet_engine.engine.presets import PRESETS

    plan = PRESETS[preset or "exact"].plan(1, None, rerank_with, fine)
    evaluate.run(
        evaluate.Options(
            dataset=dataset,
            data_dir=data_dir,
            bundle=bundle,
            rerank=str(plan.rerank) if rerank is None else rerank,
            rerank_with=plan.method,
            fine=plan.fine,
            scales=scales_asked(scales, preset),
            reference=reference,
            against=against,
            distractors=distractors,
            gallery=gallery,
            cropped=not uncropped,
            threads=threads,
            html=html,
            json=json,
            cluster=cluster_of(runner, address, workers, threads),
        )
    )


@app.command()
def bench(
    bundles: Annotated[list[Path], typer.Option("--bundle", help="Folder written by 'build'; repeat it for several.")],
    sizes: Annotated[str, typer.Option(help="Image sizes, WIDTHxHEIGHT,...")] = "480x640,768x1024",
    galleries: Annotated[
        str, typer.Option(help="Numbers of descriptors for global search; 1000000 takes 9 GB of disk and 5 of memory.")
    ] = "1000,10000,100000",
    shortlists: Annotated[str, typer.Option(help="Numbers of candidates to rerank.")] = "10,30,100",
    throughput: Annotated[
        bool,
        typer.Option(
            "--throughput",
            help="In place of the stages: images indexed and queries answered a second, by streams, processes and "
            "batches, at the first of --sizes and --shortlists.",
        ),
    ] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Time PyTorch under torch.compile too.")] = False,
    budget: Annotated[float, typer.Option(min=0, help="Seconds a stage may take, after the fewest rounds.")] = 4.0,
    threads: ThreadsOption = None,
    compare: Annotated[
        Path | None, typer.Option(help="What an earlier run wrote with --json: shows what changed beyond noise.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(callback=require_writable, help="Write the figure to this file: .png, .svg or .pdf.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(callback=results, help="Write the tables to this file, in Markdown.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Time every stage beside the PyTorch reference: medians with bounds, memory, share of the machine's limits."""
    from cvnet_engine.commands import bench

    bench.run(
        bench.Options(
            bundles=bundles,
            sizes=sizes,
            galleries=galleries,
            shortlists=shortlists,
            compiled=compiled,
            budget_s=budget,
            threads=threads,
            compare=compare,
            plot=plot,
            markdown=markdown,
            json=json,
            throughput=throughput,
        )
    )


@app.command()
def serve(
    bundle: BundleOption,
    gallery: GalleryOption,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for one that is free.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(envvar="CVNET_ENGINE_TOKEN", help="What requests must bring: 'Authorization: Bearer TOKEN'."),
    ] = None,
    preset: PresetOption = None,
    exact: ExactOption = False,
    runner: RunnerOption = "local",
    address: AddressOption = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes of the Ray cluster, each of which searches a share of the gallery; as many as it has room "
            "for by default.",
        ),
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Serve a search page and an HTTP API."""
    from cvnet_engine.commands import serve

    serve.run(
        serve.Options(
            bundle=bundle,
            gallery=gallery,
            host=host,
            port=port,
            token=token,
            preset=preset or "exact",
            exact=exact,
            threads=threads,
            cluster=cluster_of(runner, address, replicas, threads, "--replicas"),
        )
    )


@app.command()
def doctor(json: JsonOption = None) -> None:
    """Show what this machine can run: processor, GPU, runtimes, versions, and the backend that 'auto' picks."""
    from cvnet_engine.commands import doctor

    doctor.run(json)


app.add_typer(care.app, name="gallery")


def main() -> None:
    """Run the program; an error that is the input's or the machine's fault is one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is no UTF-8 one
    warnings.showwarning = show_note
    try:
        app()
    except CvnetError as error:
        fail(str(error))
    except MemoryError:
        fail(OUT_OF_MEMORY)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(f"{error}; check the file and the disk it is on")


def fail(message: str) -> None:
    tell("error", message)
    sys.exit(1)


def show_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line; where in the source it arose matters to nobody but the developers of what gave it."""
    if issubclass(category, CvnetWarning):
        tell("note", str(message))
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def tell(kind: str, message: str) -> None:
    from cvnet_engine.console import printable

    sys.stderr.write(f"{kind}: {printable(' '.join(message.split()))}\n")
