"""What can go wrong, in one family: the command line catches `CvnetError` and prints its one line.

A message says what was got, what was expected and what to do, in that order and on one line.
"""

from __future__ import annotations


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


class ImageError(CvnetError):
    """A picture that cannot be decoded, is out of bounds, or a crop that misses it."""


class GalleryError(CvnetError):
    """A gallery that is missing, damaged, locked by another writer, or made by another model."""


class DatasetError(CvnetError):
    """A benchmark data set whose ground truth or images are missing or malformed."""


class CvnetWarning(UserWarning):
    """Something is done in another way than was asked for; one line that says how, and how to have it as asked."""


def one_line(error: object) -> str:
    """The first line of a foreign error's message, of a length that fits a terminal."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
