"""Image retrieval with CVNet, for Python programs: see docs/python.md. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvnet_engine.image_like import ImageLike
    from cvnet_engine.indexing import index
    from cvnet_engine.results import Results
    from cvnet_engine.retriever import GalleryImage, Retriever
    from engine.bundle import Bundle
    from engine.errors import CvnetError
    from engine.gallery.filter import Filter
    from engine.gallery.indexing import IndexReport
    from engine.gallery.reader import Gallery
    from engine.retrieval.hits import Hit

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
    "Bundle": "engine.bundle",
    "CvnetError": "engine.errors",
    "Filter": "engine.gallery.filter",
    "Gallery": "engine.gallery.reader",
    "GalleryImage": "cvnet_engine.retriever",
    "Hit": "engine.retrieval.hits",
    "ImageLike": "cvnet_engine.image_like",
    "IndexReport": "engine.gallery.indexing",
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
