"""Image retrieval with CVNet, for Python programs: see docs/python.md. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvnet_engine.engine.bundle import Bundle
    from cvnet_engine.engine.errors import CvnetError
    from cvnet_engine.engine.gallery.filter import Filter
    from cvnet_engine.engine.gallery.indexing import IndexReport
    from cvnet_engine.engine.gallery.reader import Gallery
    from cvnet_engine.engine.images import ImageLike
    from cvnet_engine.engine.retrieval.ranking import Hit
    from cvnet_engine.indexing import index
    from cvnet_engine.results import Results
    from cvnet_engine.retriever import GalleryImage, Retriever

__all__ = [
    "Bundle",
    "CvnetError",
    "Filter",
    "Gallery",
    "GalleryImage",
    "Hit",
    "ImageLike",
    "IndexReport",
    "Results",
    "Retriever",
    "index",
]
PLACES = {
    "Bundle": "cvnet_engine.engine.bundle",
    "CvnetError": "cvnet_engine.engine.errors",
    "Filter": "cvnet_engine.engine.gallery.filter",
    "Gallery": "cvnet_engine.engine.gallery.reader",
    "GalleryImage": "cvnet_engine.retriever",
    "Hit": "cvnet_engine.engine.retrieval.ranking",
    "ImageLike": "cvnet_engine.engine.images",
    "IndexReport": "cvnet_engine.engine.gallery.indexing",
    "Results": "cvnet_engine.results",
    "Retriever": "cvnet_engine.retriever",
    "index": "cvnet_engine.indexing",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
