"""Search of a gallery, for `cvnet-engine search` and Python programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cvnet_engine import console
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array, Closing
from cvnet_engine.engine.errors import CvnetError, GalleryError
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.files import absolute
from cvnet_engine.engine.gallery.filter import Filter
from cvnet_engine.engine.gallery.info import require_equal
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.images import Box, ImageLike, load, require_box
from cvnet_engine.engine.presets import PresetName, named
from cvnet_engine.engine.retrieval.engines import Engines
from cvnet_engine.engine.retrieval.ranking import hits
from cvnet_engine.engine.retrieval.searcher import RerankWith, Searcher, Stages
from cvnet_engine.results import Results

EVERYTHING = Filter()


@dataclass(frozen=True)
class GalleryImage:
    """A gallery image as the query. Its stored features are used, and it is left out of its own results."""

    path: str | os.PathLike[str]


class Retriever(Closing):
    """Searches a gallery with the model that built it. Threads may share it; a forked process opens its own.

    `close` does not close the gallery.
    """

    def __init__(self, bundle: Bundle, gallery: Gallery, threads: int | None = None, *, exact: bool = False) -> None:
        """
        Args:
            threads: number of CPU threads; by default all available ones.
            exact: search all images even if the gallery has an approximate index.

        Raises:
            GalleryError: the gallery was built with another model, or is empty.
            BundleError: the bundle's files are bound to another machine.
            BackendError: a backend or its device is not available.
        """
        made = gallery.info
        require_equal(made, made.by(bundle.manifest), gallery.path)
        if not len(gallery):
            raise GalleryError(f"{gallery.path}: holds no images yet; add some with 'cvnet-engine index'")
        self._closed = False
        self._gallery = gallery
        self._notice = console.notice(bundle.manifest)
        self._engines = Engines.open(bundle, threads, made.scales)
        self._searcher = Searcher(self._engines, gallery, None if exact else gallery.approximate())

    @np.errstate(all="ignore")  # the caller's settings are for the caller's arithmetic
    def search(
        self,
        image: ImageLike | GalleryImage,
        top_k: int = 10,
        rerank: int | None = None,
        bbox: Box | None = None,
        *,
        method: RerankWith | None = None,
        rerank_full: int | None = None,
        preset: PresetName = "exact",
        where: Filter = EVERYTHING,
        candidates: Iterable[str | os.PathLike[str]] | None = None,
        done: Callable[[int, int], None] = lambda _n, _of: None,
    ) -> Results:
        """Search the gallery with an image.

        Args:
            top_k: number of results.
            rerank: shortlist length; by default the number of `candidates`, or the preset's (100 for `exact`).
            bbox: x1, y1, x2, y2 in pixels of the upright image: the region to search for; by default the whole image.
            method: reranking by pair scores, SuperGlobal's descriptors, or both; see `Plan`.
            rerank_full: coarse-to-fine reranking: score every candidate at half resolution, then only the best
                `rerank_full` at full resolution.
            preset: default for `rerank`, `method` and `rerank_full`; `exact` scores every pair at full resolution.
            where: filter on the images to search; by default none.
            candidates: shortlist from another system, as paths of gallery images; no other image is searched.
            done: progress callback: the number of pairs scored since the last call, and the most that will be scored.

        Raises:
            ImageError: the image cannot be read, or the box lies outside it.
            GalleryError: the `GalleryImage` or a candidate is not in the gallery, or the gallery is damaged.
            CvnetError: invalid options.
        """
        bbox = None if bbox is None else require_box(bbox)
        shortlist = None if candidates is None else self._rows(candidates)
        if rerank is None and shortlist is not None:
            rerank = len(shortlist)
        plan = named(preset).plan(top_k, rerank, method, rerank_full)
        selection = self._selection(where, shortlist)
        stages = Stages()
        with stages.timed("features"):
            query, features, own_row = self._described(image, bbox)
        found = self._searcher.find(features, plan, done, selection, own_row)
        before = found.before.rows.tolist() if shortlist is None else shortlist
        return Results(
            query=query,
            bbox=bbox,
            hits=hits(found.ranking.first(top_k), before, self._gallery.paths),
            images=len(self._gallery) if selection is None else len(selection),
            pairs=known(found.ranking.pair_scores),
            pooled_pairs=known(found.ranking.coarse_scores),
            seconds=dict(stages.seconds | found.seconds),
            notice=self._notice,
            exact=found.exact,
        )

    @np.errstate(all="ignore")
    def descriptor(self, image: ImageLike | GalleryImage, bbox: Box | None = None) -> Array:
        """Return the global descriptor (2048,) float32, L2-normalised; the dot product of two is their similarity.

        Raises:
            ImageError, GalleryError, CvnetError: see `search`.
        """
        _, features, _ = self._described(image, bbox)
        return features.descriptor

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._searcher.close()
            self._engines.close()

    def _described(
        self, image: ImageLike | GalleryImage, bbox: Box | None
    ) -> tuple[Path | Array, Features, int | None]:
        """Return the query's file or pixels (H, W, 3), its features, and its row if it is a gallery image."""
        if self._closed:
            raise CvnetError("the retriever is closed; open another one")
        if isinstance(image, GalleryImage):
            if bbox is not None:
                raise CvnetError(f"{image.path}: stored features cover the whole image; to crop it, give its file")
            (row,) = self._rows([image.path])
            return self._gallery.paths[row], self._gallery.features(row), row
        query = Path(image) if isinstance(image, str | os.PathLike) else load(image)
        return query, self._engines.extract_from(query, bbox, self._gallery.info.max_side_px), None

    def _selection(self, where: Filter, shortlist: Sequence[int] | None) -> Array | None:
        """Return the rows to search (n,) int64, ascending; None for all."""
        if not isinstance(where, Filter):
            raise CvnetError(f"where is {type(where).__name__}; expected a Filter, such as Filter(folder='abbey')")
        if where.folder:  # resolved as the gallery's paths are
            where = replace(where, folder=str(absolute(Path(where.folder))))
        rows = where.rows(lambda: self._texts, lambda: self._gallery.taken)
        if shortlist is None:
            return rows
        listed = np.unique(np.array(shortlist, np.int64))
        return listed if rows is None else np.intersect1d(listed, rows)

    def _rows(self, paths: Iterable[str | os.PathLike[str]]) -> list[int]:
        """Return the rows of gallery images, without duplicates.

        Raises:
            GalleryError: `paths` is empty, or one of them is not in the gallery.
            CvnetError: `paths` is a single path instead of several.
        """
        if isinstance(paths, str | os.PathLike):
            raise CvnetError(f"candidates is the path {paths}; expected a list of paths")
        listed = dict.fromkeys(absolute(Path(path)) for path in paths)
        unknown = [path for path in listed if path not in self._row_of]
        if unknown:
            count = f", the first of {len(unknown)} such" if len(unknown) > 1 else ""
            raise GalleryError(f"{unknown[0]}: not in {self._gallery.path}{count}; index it, or leave it out")
        if not listed:
            raise GalleryError("no candidates; expected paths of gallery images")
        return [self._row_of[path] for path in listed]

    @cached_property
    def _row_of(self) -> dict[Path, int]:
        return {path: row for row, path in enumerate(self._gallery.paths)}

    @cached_property
    def _texts(self) -> list[str]:
        return [str(path) for path in self._gallery.paths]


def known(scores: Array) -> int:
    return int(np.isfinite(scores).sum())
