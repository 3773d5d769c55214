"""What can go wrong, in one family: the command line catches `CvnetError` and prints its one line.

A message says what was got, what was expected and what to do, in that order and on one line.
"""

from __future__ import annotations

import re

OUT_OF_MEMORY = "out of memory; smaller images and a smaller --rerank need less, as do fewer programs beside this one"
MEMORY_RAN_OUT = re.compile(r"bad_alloc|allocate .*memory|allocate .* bytes|failed to map segment", re.IGNORECASE)


class CvnetError(Exception):
    """Base of every error that is the input's or the machine's fault rather than ours."""


class WeightsError(CvnetError):
    """A checkpoint that is missing, damaged, or not the model that was asked for."""


class ExportError(CvnetError):
    """A graph that could not be exported, or does not agree with PyTorch."""


class BundleError(CvnetError):
    """A bundle that is missing, damaged, or of another format or machine."""


class BackendError(CvnetError):
    """A backend or device that was asked for and is not there, or refuses the graph or its inputs."""


class OutOfMemoryError(BackendError, MemoryError):
    """A backend for which the memory does not suffice: nothing is wrong with its graph."""


class ImageError(CvnetError):
    """A picture that cannot be decoded, is out of bounds, or a crop that misses it."""


class GalleryError(CvnetError):
    """A gallery that is missing, damaged, locked by another writer, or made by another model."""


class GalleryInUseError(GalleryError):
    """A gallery that another process is writing to."""


class RemovedError(GalleryError):
    """An image that is no longer in the gallery as it was when that was opened."""


class ShardsLostError(CvnetError):
    """A part of a collection that does not answer, or is no longer what it was."""


class DatasetError(CvnetError):
    """A benchmark data set whose ground truth or images are missing or malformed."""


class CvnetWarning(UserWarning):
    """Something is done in another way than was asked for; one line that says how, and how to have it as asked."""


def backend_failure(error: Exception, message: str) -> BackendError:
    """What to raise for a library's error: a BackendError with the message, or an OutOfMemoryError.

    ONNX Runtime and OpenVINO have no type for the latter; only their messages say so.
    """
    return OutOfMemoryError(OUT_OF_MEMORY) if MEMORY_RAN_OUT.search(str(error)) else BackendError(message)


def install_hint(*extras: str) -> str:
    """The commands that install extras. The project is in no package index, so they run in its checkout."""
    uv = " ".join(f"--extra {extra}" for extra in extras)
    return f"run pip install '.[{','.join(extras)}]' or uv sync --inexact {uv} in the checkout"


def one_line(error: object) -> str:
    """The first line of a foreign error's message, of a length that fits a terminal."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
