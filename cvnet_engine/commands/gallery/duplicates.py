"""`gallery duplicates`: equal files and near-duplicates in a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from cvnet_engine import console
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.errors import counted
from cvnet_engine.engine.gallery.duplicates import LEAST_SCORE, LEAST_SIMILARITY, Group, identical, near
from cvnet_engine.engine.gallery.info import require_equal
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.gallery.shards import FileStamp
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.options import DuplicatesOptions
from cvnet_engine.pages.page import Copy, DuplicatesPage
from cvnet_engine.pages.rendering import render

LISTED = 20  # groups shown; all of them are in the JSON
PICTURED = 300  # groups of each kind on the page, about 10 MB


def run(options: DuplicatesOptions) -> None:
    bundle, least_score = Bundle(options.bundle), LEAST_SCORE if options.score is None else options.score
    with Gallery(options.gallery) as gallery:
        require_equal(gallery.info, gallery.info.by(bundle.manifest), options.gallery)
        stamps = [gallery.stamp(row) for row in range(len(gallery))]
        same = identical([stamp.digest for stamp in stamps])
        repeated = {row for rows in same for row in rows[1:]}  # only the first of equal files is compared
        distinct = np.array([row for row in range(len(gallery)) if row not in repeated], np.int64)
        with (
            Engines.open(bundle, options.threads) as engines,
            console.progress("comparing", len(distinct)) as advance,
        ):
            groups = near(gallery, distinct, engines, LEAST_SIMILARITY, least_score, advance)
        exact = [copies(rows, gallery.paths, stamps) for rows in same]
        similar = [copies(group.rows, gallery.paths, stamps, group) for group in groups]
        images = len(gallery)
    show("the same file", exact)
    show("the same photo", similar)
    files, photos = counted(len(exact), "file"), counted(len(similar), "photo")
    console.say(f"{options.gallery}: {files} stored more than once, {photos} with near-duplicates")
    console.warn_of_model(bundle.manifest)
    if options.json:
        console.write_json(options.json, to_json(options.gallery, exact, similar, least_score))
    if options.html:
        page = DuplicatesPage(
            lead=f"{files} stored more than once and {photos} with near-duplicates among "
            f"{counted(images, 'image')}; near-duplicates have a similarity of at least {LEAST_SIMILARITY:g} and a "
            f"pair score of at least {least_score:g}",
            banner=console.notice(bundle.manifest),
            exact=tuple(exact[:PICTURED]),
            similar=tuple(similar[:PICTURED]),
            left_out=max(0, len(exact) - PICTURED) + max(0, len(similar) - PICTURED),
            footer=f"cvnet-engine, {bundle.manifest.model}",
        )
        console.write_file(options.html, render(page, "duplicates.html"))


def copies(
    rows: Sequence[int], paths: Sequence[Path], stamps: Sequence[FileStamp], group: Group | None = None
) -> tuple[Copy, ...]:
    """Return the images of a group, the largest file first, each with its most similar match."""

    def copy(row: int) -> Copy:
        found = [match for match in group.matches if row in (match.one, match.other)] if group else []
        best = max(found, key=lambda match: match.similarity, default=None)
        if best is None:
            return Copy(str(paths[row]), stamps[row].size)
        other = best.other if best.one == row else best.one
        return Copy(str(paths[row]), stamps[row].size, str(paths[other]), best.similarity, best.score)

    return tuple(copy(row) for row in sorted(rows, key=lambda row: (-stamps[row].size, row)))


def show(what: str, groups: Sequence[Sequence[Copy]]) -> None:
    for group in groups[:LISTED]:
        console.say(f"{what}:")
        for copy in group:
            likeness = f", similarity {copy.similarity:.3f}, pair score {copy.score:.3f}" if copy.like else ""
            console.say(f"  {copy.path} ({decimal(copy.size)}{likeness})")
    if len(groups) > LISTED:
        console.say(f"and {len(groups) - LISTED} more, all of them in --json")


def to_json(
    gallery: Path, exact: Sequence[Sequence[Copy]], similar: Sequence[Sequence[Copy]], least_score: float
) -> dict[str, object]:
    return {
        "gallery": str(gallery),
        "least_similarity": LEAST_SIMILARITY,
        "least_score": least_score,
        "exact": [[{"path": copy.path, "bytes": copy.size} for copy in group] for group in exact],
        "similar": [
            [
                {
                    "path": copy.path,
                    "bytes": copy.size,
                    "like": copy.like,
                    "similarity": copy.similarity,
                    "score": copy.score,
                }
                for copy in group
            ]
            for group in similar
        ],
    }
