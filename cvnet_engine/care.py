"""`gallery`: looking after a gallery; what each of its commands takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvnet_engine.options import BundleOption, GalleryOption, HtmlOption, JsonOption, ThreadsOption
from cvnet_engine.outputs import require_writable

app = typer.Typer(
    no_args_is_help=True,
    help="Look after a gallery: count, list, verify, remove, prune, compact, export, duplicates, merge, convert, ann.",
)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")]
SELECTED = "Images, folders, and patterns such as '*.png' or '/photos/2019*'; * stands for slashes too."


@app.command("info")
def info(gallery: GalleryOption, json: JsonOption = None) -> None:
    """Count images and bytes; say what made the gallery, and when it was last changed."""
    from cvnet_engine.commands.gallery import info

    info.run(info.Options(gallery=gallery, json=json))


@app.command("list")
def list_images(
    gallery: GalleryOption,
    only: Annotated[list[str] | None, typer.Argument(help=f"{SELECTED} All by default.")] = None,
    json: JsonOption = None,
) -> None:
    """List the paths of images, one a line; with --json also what is known of the files, and the sizes of maps."""
    from cvnet_engine.commands.gallery import listing

    listing.run(listing.Options(gallery=gallery, only=only or [], json=json))


@app.command("verify")
def verify(
    gallery: GalleryOption,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take out what is damaged, so that the next 'index' takes it in anew.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Read everything that is stored and check it; exit code 1 where something is damaged and was not repaired."""
    from cvnet_engine.commands.gallery import verify

    verify.run(verify.Options(gallery=gallery, repair=repair, json=json))


@app.command("remove")
def remove(
    images: Annotated[list[str], typer.Argument(help=SELECTED)],
    gallery: GalleryOption,
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Take images out of a gallery. The photos themselves are left alone."""
    from cvnet_engine.commands.gallery import remove

    remove.run(remove.Options(images=images, gallery=gallery, dry_run=dry_run, json=json))


@app.command("prune")
def prune(
    gallery: GalleryOption,
    force: Annotated[
        bool, typer.Option("--force", help="Also take out images from where nothing is left: no disk is missing.")
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Take out images whose files have been deleted, unless all of a place is gone, as when a disk is not mounted."""
    from cvnet_engine.commands.gallery import prune

    prune.run(prune.Options(gallery=gallery, force=force, dry_run=dry_run, json=json))


@app.command("compact")
def compact(gallery: GalleryOption, json: JsonOption = None) -> None:
    """Give the space of removed images back to the disk."""
    from cvnet_engine.commands.gallery import compact

    compact.run(compact.Options(gallery=gallery, json=json))


@app.command("export")
def export(
    gallery: GalleryOption,
    out: Annotated[Path, typer.Option(callback=require_writable, help="File to write: .npz or .parquet.")],
    maps: Annotated[
        bool, typer.Option("--maps", help="Feature maps too, in float16: 2.6 MiB an image of 1024x768.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Write descriptors to a file that other programs read."""
    from cvnet_engine.commands.gallery import export

    export.run(export.Options(gallery=gallery, out=out, maps=maps, json=json))


@app.command("duplicates")
def duplicates(
    bundle: BundleOption,
    gallery: GalleryOption,
    similarity: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Least similarity of near-duplicates' descriptors.")
    ] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help="Least pair score that confirms them.")] = None,
    threads: ThreadsOption = None,
    html: HtmlOption = None,
    json: JsonOption = None,
) -> None:
    """Find photos that a gallery has more than once: the same file, or the same photo edited, shrunk or compressed."""
    from cvnet_engine.commands.gallery import duplicates

    duplicates.run(
        duplicates.Options(
            bundle=bundle,
            gallery=gallery,
            similarity=similarity,
            score=score,
            threads=threads,
            html=html,
            json=json,
        )
    )


@app.command("merge")
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Galleries to take images from.")],
    gallery: Annotated[Path, typer.Option("--gallery", help="Gallery to add them to; made where there is none.")],
    json: JsonOption = None,
) -> None:
    """Copy the images of galleries of one model into another. Of one path, the later modified file's features stay."""
    from cvnet_engine.commands.gallery import merge

    merge.run(merge.Options(sources=sources, gallery=gallery, json=json))


@app.command("ann")
def ann(
    gallery: GalleryOption,
    recall: Annotated[
        float, typer.Option(min=0.5, max=1, help="Share of the exact best 100 that is to be found, on average.")
    ] = 0.99,
    remove: Annotated[bool, typer.Option("--remove", help="Take the index away: search is exact again.")] = False,
    json: JsonOption = None,
) -> None:
    """Build an approximate index, by which 'search' and 'serve' look at candidates instead of at all images."""
    from cvnet_engine.commands.gallery import ann

    ann.run(ann.Options(gallery=gallery, recall=recall, remove=remove, json=json))


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="Gallery to take images from; it stays as it is.")],
    gallery: Annotated[Path, typer.Option("--gallery", help="Gallery to add them to; made where there is none.")],
    maps: Annotated[
        str, typer.Option(help="How feature maps are kept there: float16, int8 or coded[:BYTES or :PERCENT%].")
    ] = "coded",
    bundle: Annotated[
        Path | None, typer.Option(help="The gallery's model, to say what a learnt code does to its pair scores.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Copy a gallery into one that keeps its feature maps in another way, mostly to have it smaller."""
    from cvnet_engine.commands.gallery import convert

    convert.run(convert.Options(source=source, gallery=gallery, maps=maps, bundle=bundle, json=json))
