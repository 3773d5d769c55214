"""Exceptions of the package. The command line catches `CvnetError` and prints its message.

A message is one line: what happened, what was expected and what to do.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

OUT_OF_MEMORY = "out of memory; use smaller images or a smaller --rerank, or close other programs"
MEMORY_RAN_OUT = re.compile(r"bad_alloc|allocate .*memory|allocate .* bytes|failed to map segment", re.IGNORECASE)


class CvnetError(Exception):
    """Base of every error that the input or the machine causes."""


class WeightsError(CvnetError):
    """A checkpoint that is missing, damaged, or of another model than requested."""


class ExportError(CvnetError):
    """A graph that could not be exported, or does not agree with PyTorch."""


class BundleError(CvnetError):
    """A bundle that is missing, damaged, or of another format or machine."""


class BackendError(CvnetError):
    """A requested backend or device is missing, or rejects the graph or its inputs."""


class OutOfMemoryError(BackendError, MemoryError):
    """A backend ran out of memory; its graph is valid."""


class ImageError(CvnetError):
    """An image that cannot be decoded, is too large or too small, or a box outside it."""


class GalleryError(CvnetError):
    """A gallery that is missing, damaged, locked by another writer, or made by another model."""


class GalleryInUseError(GalleryError):
    """A gallery that another process is writing to."""


class RemovedError(GalleryError):
    """An image that was removed or replaced after the gallery was opened."""


class ShardsLostError(CvnetError):
    """Shards whose worker does not answer, or that have changed since they were opened."""


class DatasetError(CvnetError):
    """A benchmark data set whose ground truth or images are missing or malformed."""


class CvnetWarning(UserWarning):
    """A request is carried out differently; the message says how, and how to get what was requested."""


def backend_failure(error: Exception, message: str) -> BackendError:
    """Make the exception for a library's error: a BackendError with the message, or an OutOfMemoryError.

    ONNX Runtime and OpenVINO report exhausted memory in the text of the message only.
    """
    return OutOfMemoryError(OUT_OF_MEMORY) if MEMORY_RAN_OUT.search(str(error)) else BackendError(message)


def install_hint(*extras: str) -> str:
    """The commands that install extras. The project is in no package index, so they run in its checkout."""
    uv = " ".join(f"--extra {extra}" for extra in extras)
    return f"run pip install '.[{','.join(extras)}]' or uv sync --inexact {uv} in the checkout"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: `1 image`, `2,000 images`, `3 queries`."""
    return f"{count:,} {noun if count == 1 else re.sub('y$', 'ie', noun) + 's'}"


def one_line(error: object) -> str:
    """The first line of a library's error message, at most 200 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def import_library(module: str, title: str, extra: str, otherwise: str = "") -> Any:
    """Import a backend's library.

    Args:
        title, extra: its name and the package extra that installs it, for the error.
        otherwise: what else to do, appended to the error.

    Raises:
        BackendError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"{title} cannot be imported ({error}); {install_hint(extra)}{otherwise}") from error
