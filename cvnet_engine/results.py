"""Results of a search, displayed with thumbnails in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2

from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.images import Box
from cvnet_engine.engine.retrieval.ranking import Hit
from cvnet_engine.pages.page import RankedQuery
from cvnet_engine.pages.rendering import render_fragment


@dataclass(frozen=True, eq=False)
class Results:
    """Database images ranked for a query.

    Attributes:
        query: the image's file, or its pixels (H, W, 3) uint8 BGR.
        bbox: the query region: x1, y1, x2, y2 in pixels; None for the whole image.
        hits: the best images in order; `before` is the rank by similarity, or in the given candidates.
        images: number of images searched.
        pairs: number of pairs scored at full resolution.
        pooled_pairs: number of pairs scored at coarse resolution; see `rerank_full` of `Retriever.search`.
        seconds: time by stage: features, global, pooled (coarse resolution), rerank.
        notice: warning about an untrained or demonstration model; None for real checkpoints.
        exact: False if an approximate index selected the images to search.
    """

    query: Path | Array
    bbox: Box | None
    hits: tuple[Hit, ...]
    images: int
    pairs: int
    pooled_pairs: int
    seconds: Mapping[str, float]
    notice: str | None
    exact: bool = True

    def on_page(self, name: str) -> RankedQuery:
        """Return the results for an HTML page, with `name` as the query's caption."""
        image = None if isinstance(self.query, Path) else cv2.imencode(".jpg", self.query)[1].tobytes()
        return RankedQuery(name, self.bbox, self.hits, image=image)

    def _repr_html_(self) -> str:
        return render_fragment(
            self.on_page(str(self.query) if isinstance(self.query, Path) else "in memory"), self.notice
        )
