"""What tells a near-duplicate from another photo of the same thing: `python -m benchmarks.accuracy.near_duplicates`.

Generated scenes, each photographed from several places; one photograph of each is altered as photos are when they are
shared and edited. The table has the similarities and pair scores of an original with what was made of it, with the
other photographs of its scene, and with the photograph of another scene that is most like it.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.progress import track

from cvnet_engine.benchmarks import commands, tables
from cvnet_engine.benchmarks.commands import OutOption, ThreadsOption
from cvnet_engine.benchmarks.tables import Table
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.contract import Array
from cvnet_engine.engine.features import Features
from cvnet_engine.engine.gallery.duplicates import LEAST_SCORE, LEAST_SIMILARITY
from cvnet_engine.engine.images import limit_side, read
from cvnet_engine.engine.retrieval.retriever import Retriever
from scenes import SceneSet, build_scene, choose_view, render

SCENES = SceneSet("near-duplicates", seed=505, scenes=30, views=4, distractors=0, size=(720, 960))
MAX_SIDE_PX = 480  # as if indexed with that --max-side
OTHER_VIEWS, OTHER_SCENES = "another photograph of the scene", "the most similar of another scene"


def compressed(image: Array, quality: int) -> Array:
    """The image (H, W, 3) uint8 after JPEG at that quality."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def cropped(image: Array, kept: float) -> Array:
    """The middle of the image, that share of each side."""
    height, width = image.shape[:2]
    top, left = (round(side * (1 - kept) / 2) for side in (height, width))
    return image[top : height - top, left : width - left]


def shrunk(image: Array, scale: float) -> Array:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


ALTERATIONS: dict[str, Callable[[Array], Array]] = {
    "JPEG at quality 40": lambda image: compressed(image, 40),
    "half its size": lambda image: shrunk(image, 0.5),
    "a third of its size": lambda image: shrunk(image, 1 / 3),
    "brighter by a fifth": lambda image: compressed(cv2.convertScaleAbs(image, alpha=1.2), 85),
    "grey": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
    "cropped to 0.95 of each side": lambda image: compressed(cropped(image, 0.95), 85),
    "cropped to 0.9": lambda image: compressed(cropped(image, 0.9), 85),
    "cropped to 0.8": lambda image: compressed(cropped(image, 0.8), 85),
}


@dataclass(frozen=True)
class Pair:
    """What a pair of images comes to."""

    similarity: float
    score: float

    @property
    def is_taken(self) -> bool:
        """Whether `gallery duplicates` would group them."""
        return self.similarity >= LEAST_SIMILARITY and self.score >= LEAST_SCORE


Pairs = dict[str, list[Pair]]


def measure(retriever: Retriever) -> Pairs:
    """Pairs by kind, over all scenes."""
    originals: list[Features] = []
    pairs: Pairs = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for scene in track(range(SCENES.scenes), "scenes", transient=True):
            image, *views = (stored(scene, view, Path(folder)) for view in range(SCENES.views))
            original = described(retriever, image)
            for kind, alter in ALTERATIONS.items():
                pairs[kind].append(pair(retriever, original, described(retriever, alter(image))))
            pairs[OTHER_VIEWS] += [pair(retriever, original, described(retriever, view)) for view in views]
            originals.append(original)
    descriptors = np.stack([original.descriptor for original in originals])
    products = descriptors @ descriptors.T - 2 * np.eye(len(originals))  # (n, n), an image is not like itself
    for row, other in enumerate(products.argmax(axis=1)):
        pairs[OTHER_SCENES].append(pair(retriever, originals[row], originals[other]))
    return pairs


def stored(scene: int, view: int, folder: Path) -> Array:
    """A photograph as it is read from its JPEG."""
    building, shot = build_scene(SCENES.seed, scene), choose_view(SCENES.seed, scene, view, SCENES.size)
    file = folder / "photograph.jpg"
    cv2.imwrite(str(file), render(building, shot), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return read(file)


def described(retriever: Retriever, image: Array) -> Features:
    return retriever.extract(limit_side(image, MAX_SIDE_PX))


def pair(retriever: Retriever, one: Features, other: Features) -> Pair:
    return Pair(float(one.descriptor @ other.descriptor), float(retriever.score(one, [other])[0]))


def markdown(report: dict[str, Any]) -> str:
    spread = ("lowest", "median", "highest")
    columns = ("", "pairs", *(f"{what}, {which}" for what in ("similarity", "score") for which in spread), "taken")
    rows = tuple(row(kind, [Pair(*pair) for pair in pairs]) for kind, pairs in report["pairs"].items())
    note = (
        f"{report['machine']['cpu']}; {report['date']}; {report['model']}; `{report['command']}`. Taken: similarity "
        f"at least {LEAST_SIMILARITY} and pair score at least {LEAST_SCORE}."
    )
    return f"{note}\n\n{tables.markdown(Table('', columns, rows), text_columns=1)}"


def row(kind: str, pairs: list[Pair]) -> tuple[str, ...]:
    spreads = [
        f"{statistic([getattr(pair, what) for pair in pairs]):.3f}"
        for what in ("similarity", "score")
        for statistic in (np.min, np.median, np.max)
    ]
    return kind, str(len(pairs)), *spreads, f"{np.mean([pair.is_taken for pair in pairs]):.0%}"


def main(
    bundle: Annotated[Path, typer.Option(help="Folder written by 'build', for instance with --weights demo.")],
    out: OutOption,
    threads: ThreadsOption = 2,
) -> None:
    """Similarities and pair scores of near-duplicates, beside those of other pairs."""
    opened = Bundle(bundle)
    with Retriever.open(opened, threads) as retriever:
        pairs = measure(retriever)
    report = {
        **commands.head("benchmarks.accuracy.near_duplicates"),
        "model": opened.manifest.model,
        "pairs": {kind: [(pair.similarity, pair.score) for pair in found] for kind, found in pairs.items()},
    }
    commands.write(out, report, markdown(report))
    sys.stdout.write(markdown(report))


if __name__ == "__main__":
    with commands.told_in_a_line():
        typer.run(main)
