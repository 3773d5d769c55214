"""README's picture, `docs/ranking.jpg`: a query and its first results, before and after reranking.

`python docs/ranking.py DEMO`, DEMO being what `cvnet-engine demo` wrote. It draws the query that reranking helps most.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

import scenes
from cvnet_engine.benchmarks.accuracy.databases import Selection
from cvnet_engine.benchmarks.accuracy.dataset import Dataset, load
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, QueryEvaluation, Task, evaluate
from cvnet_engine.benchmarks.accuracy.protocol import relevant
from cvnet_engine.engine.bundle import Bundle
from cvnet_engine.engine.files import write_atomically
from cvnet_engine.engine.gallery.reader import Gallery
from cvnet_engine.engine.retrieval.engines import Engines

PICTURE = Path(__file__).with_name("ranking.jpg")
SETUP, SHORTLIST, SHOWN = "M", 20, 8
HEADINGS = {GLOBAL: "Ranked by descriptor", SHORTLIST: f"Best {SHORTLIST} reranked"}
INK, MATCH, WRONG = ("#333333", "-"), ("#009e73", "-"), ("#d55e00", "--")  # colour and line of a frame
BOX = "#ff4d2e"
LEGEND = "Solid frame: same building\nDashed frame: another"
INCHES, DPI = (16.0, 4.7), 100


def main(demo: Path) -> None:
    dataset = load(demo / "data", scenes.DEMO.name)
    with Gallery(demo / "gallery") as gallery, Engines.open(Bundle(demo / "bundle")) as engines:
        database = Selection.of_gallery(gallery, dataset.images)
        queries = evaluate(Task(dataset, (SHORTLIST,)), database, lambda: engines).queries
    number = int(np.argmax([ap(query, SHORTLIST) - ap(query, GLOBAL) for query in queries]))
    stream = io.BytesIO()
    draw(dataset, number, queries[number]).savefig(stream, format="jpeg", dpi=DPI, pil_kwargs={"quality": 88})
    write_atomically(PICTURE, stream.getvalue())


def ap(query: QueryEvaluation, shortlist: int) -> float:
    result = query.results[shortlist, SETUP]
    return result.ap if result else 0.0


def draw(dataset: Dataset, number: int, query: QueryEvaluation) -> Figure:
    """The query on the left, and a line of results for each ranking."""
    truth = dataset.ground_truth[number]
    matches = relevant(truth, SETUP).tolist()
    before = query.rankings[GLOBAL, SETUP].rows.tolist()
    figure = Figure(figsize=INCHES, facecolor="white")
    grid = figure.add_gridspec(len(HEADINGS), 1 + SHOWN, width_ratios=[1.6] + [1] * SHOWN)
    grid.update(left=0.004, right=0.998, top=0.86, bottom=0.01, wspace=0.08, hspace=0.4)
    asked = figure.add_subplot(grid[:, 0])
    show(asked, dataset.queries[number], "Query: what is in the box", INK)
    assert truth.bbx
    x1, y1, x2, y2 = truth.bbx
    asked.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=BOX, linewidth=2))
    figure.text(0.004, 0.42, LEGEND, fontsize=13, va="top")
    for line, (shortlist, heading) in enumerate(HEADINGS.items()):
        top = grid[line, 1].get_position(figure)
        figure.text(top.x0, top.y1 + 0.075, f"{heading}: average precision {ap(query, shortlist):.0%}", fontsize=15)
        for rank, row in enumerate(query.rankings[shortlist, SETUP].rows[:SHOWN].tolist(), 1):
            label = f"{rank}" if shortlist == GLOBAL else f"{rank}, was {before.index(row) + 1}"
            frame = MATCH if row in matches else WRONG
            show(figure.add_subplot(grid[line, rank]), dataset.images[row], label, frame)
    return figure


def show(axes: Axes, image: Path, label: str, frame: tuple[str, str]) -> None:
    axes.imshow(imread(image))
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.set_title(label, loc="left", fontsize=13, pad=4)
    axes.spines[:].set(color=frame[0], linestyle=frame[1], linewidth=3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
