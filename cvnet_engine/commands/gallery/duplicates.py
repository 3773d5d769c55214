"""`gallery duplicates`: photos that a gallery has more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.gallery.duplicates import LEAST_SCORE, LEAST_SIMILARITY, Group, identical, near
from cvnet_engine.engine.gallery.info import require_equal
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.retrieval.retriever import Retriever
from cvnet_engine.outputs import Files
from cvnet_engine.pages.duplicates import Copies, Copy, DuplicatesPage
from cvnet_engine.pages.rendering import render

LISTED = 20  # groups shown; all of them are in the JSON
PICTURED = 300  # groups on the page: ten megabytes or so


@dataclass(frozen=True)
class Options:
    """Where to look, and from when on images count as near-duplicates; as measured where None."""

    bundle: Path
    gallery: Path
    similarity: float | None = None
    score: float | None = None
    threads: int | None = None
    html: Path | None = None
    json: Path | None = None

    @property
    def files(self) -> Files:
        return Files({"--html": self.html, "--json": self.json}, kept=[self.bundle, self.gallery])

    @property
    def limits(self) -> tuple[float, float]:
        """The least similarity, and the least pair score."""
        return (
            LEAST_SIMILARITY if self.similarity is None else self.similarity,
            LEAST_SCORE if self.score is None else self.score,
        )


def run(options: Options) -> None:
    options.files.require_apart()
    bundle = Bundle(options.bundle)
    with Gallery(options.gallery) as gallery:
        require_equal(gallery.info, gallery.info.by(bundle.manifest), options.gallery)
        stamps = [gallery.stamp(row) for row in range(len(gallery))]
        same = identical([stamp.digest for stamp in stamps])
        again = {row for rows in same for row in rows[1:]}  # of equal files the first stands for all
        distinct = np.array([row for row in range(len(gallery)) if row not in again], np.int64)
        with (
            Retriever.open(bundle, options.threads) as retriever,
            console.progress("comparing", len(distinct)) as advance,
        ):
            groups = near(gallery, distinct, retriever, *options.limits, advance)
        exact = [copies(rows, gallery.paths, stamps) for rows in same]
        similar = [copies(group.rows, gallery.paths, stamps, group) for group in groups]
        images = len(gallery)
    show("the same file", exact)
    show("the same photo", similar)
    files, photos = console.counted(len(exact), "file"), console.counted(len(similar), "photo")
    console.say(f"{options.gallery}: {files} there more than once, {photos} in other forms")
    console.warn_of_model(bundle.manifest)
    if options.json:
        console.write_json(options.json, to_json(exact, similar, options))
    if options.html:
        least_similarity, least_score = options.limits
        page = DuplicatesPage(
            lead=f"{len(exact)} files that are there more than once, and {len(similar)} photos in several forms, among "
            f"{images:,} images; similar from {least_similarity:g}, confirmed from a pair score of {least_score:g}",
            banner=console.notice(bundle.manifest),
            exact=tuple(exact[:PICTURED]),
            similar=tuple(similar[:PICTURED]),
            left_out=max(0, len(exact) - PICTURED) + max(0, len(similar) - PICTURED),
            footer=f"cvnet-engine, {bundle.manifest.model}",
        )
        console.write_file(options.html, render(page, "duplicates.html"))


def copies(
    rows: Sequence[int], paths: Sequence[Path], stamps: Sequence[FileStamp], group: Group | None = None
) -> Copies:
    """A group's images, the largest file first, each with the best of its matches."""

    def copy(row: int) -> Copy:
        found = [match for match in group.matches if row in (match.one, match.other)] if group else []
        best = max(found, key=lambda match: match.similarity, default=None)
        if best is None:
            return Copy(str(paths[row]), stamps[row].size)
        other = best.other if best.one == row else best.one
        return Copy(str(paths[row]), stamps[row].size, str(paths[other]), best.similarity, best.score)

    return Copies(tuple(copy(row) for row in sorted(rows, key=lambda row: (-stamps[row].size, row))))


def show(what: str, groups: Sequence[Copies]) -> None:
    for group in groups[:LISTED]:
        console.say(f"{what}:")
        for copy in group.images:
            likeness = f", similarity {copy.similarity:.3f}, pair score {copy.score:.3f}" if copy.like else ""
            console.say(f"  {copy.path} ({decimal(copy.size)}{likeness})")
    if len(groups) > LISTED:
        console.say(f"and {len(groups) - LISTED} more, all of them in --json")


def to_json(exact: Sequence[Copies], similar: Sequence[Copies], options: Options) -> dict[str, object]:
    least_similarity, least_score = options.limits
    return {
        "gallery": str(options.gallery),
        "least_similarity": least_similarity,
        "least_score": least_score,
        "exact": [[{"path": copy.path, "bytes": copy.size} for copy in group.images] for group in exact],
        "similar": [
            [
                {
                    "path": copy.path,
                    "bytes": copy.size,
                    "like": copy.like,
                    "similarity": copy.similarity,
                    "score": copy.score,
                }
                for copy in group.images
            ]
            for group in similar
        ],
    }
