"""Options of every command: types that commands share, then a dataclass per command.

A dataclass is the only declaration of its command. Its fields are the parameters, its docstring is the help text, and
an instance is what the command's function receives (`cvnet_engine.cli.add_command`). Nothing heavy is imported here,
so that `--help` is fast.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvnet_engine.outputs import STANDARD_OUTPUT, Files, require_text, require_writable

if TYPE_CHECKING:
    from cvnet_engine.engine.cluster import Cluster


def check_results(context: typer.Context, file: Path | None) -> Path | None:
    """Check a results file before the work starts. `-` reserves standard output: other text goes to standard error."""
    if file == STANDARD_OUTPUT:
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
        return file
    return require_text(require_writable(file))


def check_format(context: typer.Context, format: str) -> str:
    """Reserve standard output for a format that programs read: other text goes to standard error."""
    if format != "table":
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    return format


PYTORCH = "pytorch"  # value of `eval --against`

BundleOption = Annotated[Path, typer.Option("--bundle", help="Bundle folder, written by 'build'.")]
GalleryOption = Annotated[Path, typer.Option("--gallery", help="Gallery folder, written by 'index'.")]
PresetOption = Annotated[
    Literal["exact", "balanced", "fast"] | None,
    typer.Option(
        "--preset",
        help="Settings for accuracy or speed. 'exact' (default) reproduces the paper. Use the same for "
        "build, index and search.",
    ),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(
        "--max-side",
        metavar="PIXELS",
        min=0,
        help="Shrink images whose longer side exceeds this; 0 for no limit. Default: the preset's; without one, the "
        "gallery's, or 1024.",
    ),
]
MAPS = typer.Option(
    "--maps",
    metavar="FORMAT",
    help="Map storage: float16 (default), or coded[:BYTES], compressed to BYTES per position (24: 21x smaller). "
    "Fixed for a gallery.",
)
ScalesOption = Annotated[
    str | None,
    typer.Option(
        "--scales",
        metavar="LIST",
        help="Image scales of a descriptor: 1 and any of 0.7071, 1.4142. Default all; fewer are faster. "
        "Fixed for a gallery.",
    ),
]
RerankWithOption = Annotated[
    Literal["cvnet", "superglobal", "both"] | None,
    typer.Option(
        "--rerank-with",
        help="cvnet (default): pair scores. superglobal: refined descriptors, in milliseconds. both: "
        "superglobal, then pair scores.",
    ),
]
RerankFullOption = Annotated[
    int | None,
    typer.Option(
        "--rerank-full",
        metavar="N",
        min=0,
        help="Score candidates at half resolution, then only the best N at full resolution. Faster, less exact.",
    ),
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Search every image, even if the gallery has an approximate index.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="CPU threads. Default: all available.")
]
RunnerOption = Annotated[
    str,
    typer.Option(
        "--runner",
        metavar="RUNNER",
        help="local: this process. ray: Ray processes on this machine. ray:ADDRESS: those of a running Ray cluster.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Ray processes. Default: as many as the cluster can hold."),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", callback=check_results, help="Write the results to this file as JSON; - for stdout."),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", callback=check_results, help="Write the results to this file as an HTML page.")
]


class Options:
    """Base of the options of a command."""

    @property
    def files(self) -> Files:
        """Files that the command reads and writes: results, which may not lie in a bundle or gallery."""
        written = {f"--{name}": getattr(self, name, None) for name in ("html", "json")}
        return Files(written, kept=[getattr(self, name, None) for name in ("bundle", "gallery")])


@dataclass(frozen=True)
class DemoOptions(Options):
    """Try every step on generated images: build, index, search, evaluate. Prints tables, writes an HTML report."""

    out: Annotated[Path, typer.Option(help="Folder for the generated images, bundle, gallery and report.")] = Path(
        "demo"
    )


@dataclass(frozen=True)
class BuildOptions(Options):
    """Export a PyTorch model to a bundle of engines, and check each engine against PyTorch."""

    weights: Annotated[
        str,
        typer.Option(
            help="CVNet checkpoint file; 'demo' for the small demonstration model; 'seeded[:N]' for random weights."
        ),
    ]
    depth: Annotated[int, typer.Option(metavar="50|101", help="Depth of the ResNet backbone.")]
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to. An existing bundle is replaced.")]
    descriptor: Annotated[
        Literal["cvnet", "superglobal"],
        typer.Option(help="Global descriptor: CVNet's, or SuperGlobal's from the same weights. Pair scores are equal."),
    ] = "cvnet"
    backend: Annotated[
        str,
        typer.Option(
            help="Backend for all graphs, or 'auto', which times the backends and picks the fastest per graph."
        ),
    ] = "auto"
    preset: PresetOption = None
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 (default, or the preset's), fp16, bf16 or int8. Lower is faster, less exact."),
    ] = None
    sizes: Annotated[
        str,
        typer.Option(
            help="Expected image sizes, WIDTHxHEIGHT,..., or a folder of typical photos. Engines are tuned for them."
        ),
    ] = "1024x768"
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of typical photos. Required for int8; other precisions are checked on it."),
    ] = None
    targets: Annotated[
        str,
        typer.Option(
            help="GPU architectures for tensorrt-rtx, as in sm86,sm120, or 'current' for this machine's. "
            "Default: Ampere and later."
        ),
    ] = ""

    @property
    def files(self) -> Files:
        named = [path for path in (Path(self.weights), Path(self.sizes)) if path.exists()]  # not `demo` or `80x60`
        return Files({"--out": self.out}, [*named, self.calibration])


@dataclass(frozen=True)
class IndexOptions(Options):
    """Add images to a gallery. Unchanged images are skipped, so the same command resumes an interrupted run."""

    images: Annotated[
        list[Path], typer.Argument(help="Image files and folders; - reads a list of paths from standard input.")
    ]
    bundle: BundleOption
    gallery: GalleryOption
    preset: PresetOption = None
    max_side: MaxSideOption = None
    maps: Annotated[str | None, MAPS] = None
    scales: ScalesOption = None
    include: Annotated[
        list[str] | None,
        typer.Option(help="Take only files of folders that match a pattern such as '*.jpg'. Repeatable."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Skip files of folders that match a pattern such as 'thumbs/*'. Repeatable."),
    ] = None
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and index new and changed files until Ctrl-C.")
    ] = False
    runner: RunnerOption = "local"
    workers: WorkersOption = None
    threads: ThreadsOption = None
    json: JsonOption = None

    @property
    def files(self) -> Files:
        return Files({"--json": self.json}, self.images, [self.bundle, self.gallery])


@dataclass(frozen=True)
class SearchOptions(Options):
    """Find the images of a gallery that show what a query shows."""

    bundle: BundleOption
    gallery: GalleryOption
    queries: Annotated[
        list[Path] | None, typer.Argument(help="Query images; - reads one image from standard input.")
    ] = None
    similar_to: Annotated[
        list[Path] | None, typer.Option(help="Use an image of the gallery as a query, by its path. Repeatable.")
    ] = None
    bbox: Annotated[
        str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="Crop the query images to this box, in pixels.")
    ] = None
    top_k: Annotated[int, typer.Option(metavar="N", min=1, help="Number of results per query.")] = 10
    rerank: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Candidates to rerank; 0 for global search only. Default 100, or all of --candidates.",
        ),
    ] = None
    rerank_with: RerankWithOption = None
    rerank_full: RerankFullOption = None
    preset: PresetOption = None
    exact: ExactOption = False
    filter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Search some images only: name=TEXT in the path, folder=PATH, taken_from=2019-06, taken_to=2020. "
            "Repeatable.",
        ),
    ] = None
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="Rank only the gallery images that this file lists: text, one path per line, or JSON, "
            "{query: [path, ...]}."
        ),
    ] = None
    format: Annotated[
        Literal["table", "paths", "paths0", "tsv", "json"],
        typer.Option(
            callback=check_format,
            help="Output format. paths: one per line; paths0: separated by NUL; tsv: tab-separated values.",
        ),
    ] = "table"
    threads: ThreadsOption = None
    html: HtmlOption = None
    json: JsonOption = None

    @property
    def files(self) -> Files:
        printed = None if self.format == "table" else STANDARD_OUTPUT
        images = [path for path in (*(self.queries or ()), *(self.similar_to or ())) if path != STANDARD_OUTPUT]
        return Files(
            {"--html": self.html, "--json": self.json, "--format": printed},
            [*images, self.candidates],
            [self.bundle, self.gallery],
        )


@dataclass(frozen=True)
class EvalOptions(Options):
    """Evaluate mAP and mP@k before and after reranking, with the protocol of Revisited Oxford/Paris."""

    dataset: Annotated[str, typer.Option(help="Name of the data set, for instance roxford5k.")]
    data_dir: Annotated[Path, typer.Option(help="Folder that contains NAME/gnd_NAME.pkl and NAME/jpg.")]
    bundle: BundleOption
    rerank: Annotated[
        str | None, typer.Option(metavar="LIST", help="Shortlist lengths, as in 100,400; 0 for none. Default 100.")
    ] = None
    rerank_with: RerankWithOption = None
    rerank_full: RerankFullOption = None
    preset: PresetOption = None
    uncropped: Annotated[
        bool,
        typer.Option("--uncropped", help="Search with whole query images instead of cropping them to their boxes."),
    ] = False
    against: Annotated[
        str | None,
        typer.Option(
            metavar="pytorch|BUNDLE",
            help="Also evaluate the PyTorch model of --bundle, or another bundle, and compare the results.",
        ),
    ] = None
    distractors: Annotated[
        Path | None, typer.Option(help="Text file of additional database images, one path per line.")
    ] = None
    gallery: Annotated[
        Path | None,
        typer.Option(help="Keep features and pair scores in this folder, to resume or repeat. Default: temporary."),
    ] = None
    runner: RunnerOption = "local"
    workers: WorkersOption = None
    threads: ThreadsOption = None
    html: HtmlOption = None
    json: JsonOption = None

    @property
    def files(self) -> Files:
        truths = [self.data_dir / self.dataset / f"gnd_{self.dataset}{suffix}" for suffix in (".pkl", ".json")]
        written = {"--html": self.html, "--json": self.json}
        other = Path(self.against) if self.against and self.against != PYTORCH else None
        return Files(written, [*truths, self.distractors], [self.bundle, other, self.gallery])


@dataclass(frozen=True)
class BenchOptions(Options):
    """Time every stage of the engine beside the PyTorch reference: median times with error bounds, and memory."""

    bundles: Annotated[list[Path], typer.Option("--bundle", help="Bundle folder, written by 'build'. Repeatable.")]
    sizes: Annotated[str, typer.Option(help="Image sizes, WIDTHxHEIGHT,...")] = "480x640,768x1024"
    galleries: Annotated[
        str, typer.Option(help="Gallery sizes for global search. 1000000 takes 9 GB of disk and 5 GB of memory.")
    ] = "1000,10000,100000"
    shortlists: Annotated[str, typer.Option(help="Numbers of candidates to rerank.")] = "10,30,100"
    throughput: Annotated[
        bool,
        typer.Option(
            "--throughput",
            help="Instead measure images indexed and queries answered per second, at the first of --sizes and "
            "--shortlists.",
        ),
    ] = False
    compiled: Annotated[bool, typer.Option("--compiled", help="Also time PyTorch with torch.compile.")] = False
    budget: Annotated[float, typer.Option(min=0, help="Seconds per stage, after the minimum number of rounds.")] = 4.0
    threads: ThreadsOption = None
    compare: Annotated[
        Path | None, typer.Option(help="JSON of an earlier run. Shows the changes that exceed noise.")
    ] = None
    plot: Annotated[
        Path | None, typer.Option(callback=require_writable, help="Write a figure to this .png, .svg or .pdf file.")
    ] = None
    markdown: Annotated[
        Path | None, typer.Option(callback=check_results, help="Write the tables to this file in Markdown.")
    ] = None
    json: JsonOption = None

    @property
    def files(self) -> Files:
        written = {"--plot": self.plot, "--markdown": self.markdown, "--json": self.json}
        return Files(written, [self.compare], self.bundles)


@dataclass(frozen=True)
class ServeOptions(Options):
    """Serve a search page and an HTTP API."""

    bundle: BundleOption
    gallery: GalleryOption
    host: Annotated[
        str, typer.Option(help="Address to listen on. --token is required for any that other machines can reach.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8080
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CVNET_ENGINE_TOKEN", help="Require this token in requests, as 'Authorization: Bearer TOKEN'."
        ),
    ] = field(default=None, repr=False)
    preset: PresetOption = None
    runner: RunnerOption = "local"
    workers: WorkersOption = None
    threads: ThreadsOption = None


@dataclass(frozen=True)
class DoctorOptions(Options):
    """Show the processor, GPU, runtimes and versions of this machine, and the backends that 'build' can choose from."""

    json: JsonOption = None


# ---- cvnet-engine gallery

ImagesArgument = typer.Argument(help="Images, folders, and patterns such as '*.png' or '/photos/2019*'; * matches /.")
TargetOption = Annotated[
    Path, typer.Option("--gallery", help="Gallery to add the images to. It is created if it does not exist.")
]


@dataclass(frozen=True)
class InfoOptions(Options):
    """Show the number of images, the size on disk, the model and the settings of a gallery."""

    gallery: GalleryOption
    json: JsonOption = None


@dataclass(frozen=True)
class ListOptions(Options):
    """List the paths of images, one per line. --json adds the size and date of each file and the size of its maps."""

    gallery: GalleryOption
    only: Annotated[list[str] | None, ImagesArgument] = None
    json: JsonOption = None


@dataclass(frozen=True)
class VerifyOptions(Options):
    """Read and check everything that a gallery stores. Exit code 1 if something is damaged and not repaired."""

    gallery: GalleryOption
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is damaged. The next 'index' adds those images again.")
    ] = False
    json: JsonOption = None


@dataclass(frozen=True)
class RemoveOptions(Options):
    """Remove images from a gallery. The photos stay; 'gallery list' with the same arguments shows which images."""

    images: Annotated[list[str], ImagesArgument]
    gallery: GalleryOption


@dataclass(frozen=True)
class PruneOptions(Options):
    """Remove images whose files were deleted. Folders that are missing entirely (an unmounted disk) are kept."""

    gallery: GalleryOption
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the images that would be removed, and remove none.")
    ] = False


@dataclass(frozen=True)
class CompactOptions(Options):
    """Return the disk space of removed images."""

    gallery: GalleryOption


@dataclass(frozen=True)
class ExportOptions(Options):
    """Write the descriptors to a file for other programs."""

    gallery: GalleryOption
    out: Annotated[Path, typer.Option(callback=require_writable, help="File to write: .npz or .parquet.")]
    maps: Annotated[
        bool, typer.Option("--maps", help="Also write the feature maps, float16: 2.7 MB per 1024x768 image.")
    ] = False

    @property
    def files(self) -> Files:
        return Files({"--out": self.out}, kept=[self.gallery])


@dataclass(frozen=True)
class DuplicatesOptions(Options):
    """Find photos that a gallery holds more than once: equal files, and edited, resized or recompressed copies."""

    bundle: BundleOption
    gallery: GalleryOption
    score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least pair score of near-duplicates. Default 0.5. Raise it to see fewer."),
    ] = None
    threads: ThreadsOption = None
    html: HtmlOption = None
    json: JsonOption = None


@dataclass(frozen=True)
class MergeOptions(Options):
    """Copy the images of galleries of one model into another. If a path occurs twice, the newer file wins."""

    sources: Annotated[list[Path], typer.Argument(help="Galleries to copy images from.")]
    gallery: TargetOption


@dataclass(frozen=True)
class AnnOptions(Options):
    """Build an approximate index, which makes global search of a large gallery several times as fast."""

    gallery: GalleryOption
    recall: Annotated[
        float, typer.Option(min=0.5, max=1, help="Mean share of the true 100 nearest images to find. Higher is slower.")
    ] = 0.99
    remove: Annotated[bool, typer.Option("--remove", help="Delete the index; search is exact again.")] = False


@dataclass(frozen=True)
class ConvertOptions(Options):
    """Copy a gallery into one that stores feature maps in another format, usually to save space."""

    source: Annotated[Path, typer.Argument(help="Gallery to copy images from. It is not changed.")]
    gallery: TargetOption
    maps: Annotated[str, MAPS] = "coded"


def cluster_of(options: IndexOptions | EvalOptions | ServeOptions) -> Cluster | None:
    """Return the Ray cluster of --runner; None for this process.

    Raises:
        BadParameter: another runner, or --workers without Ray.
    """
    from cvnet_engine.engine.cluster import WORKER_THREADS, Cluster

    runner, _, address = options.runner.partition(":")
    if runner == "ray":
        return Cluster(address or None, options.workers, options.threads or WORKER_THREADS)
    if options.runner != "local":
        raise typer.BadParameter("expected local, ray or ray:ADDRESS", param_hint="'--runner'")
    if options.workers is not None:
        raise typer.BadParameter("needs --runner ray", param_hint="'--workers'")
    return None
