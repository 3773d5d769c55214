"""Evaluation of a model in training: mAP on generated scenes, by the published evaluation loop.

`python -m training.evaluate FOLDER DATA_DIR` generates the validation scenes in DATA_DIR if they are missing. Use the
test scenes only for the final model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import scenes
from cvnet_engine.benchmarks.accuracy.databases import Database
from cvnet_engine.benchmarks.accuracy.dataset import load as load_dataset
from cvnet_engine.benchmarks.accuracy.evaluation import GLOBAL, Task, evaluate
from cvnet_engine.benchmarks.accuracy.protocol import SETUPS
from cvnet_engine.benchmarks.methods.reference import reference
from cvnet_engine.engine.gallery.map_codecs import HalfCodec
from training.verifier import load

SHORTLIST = 20


def main(
    folder: Annotated[Path, typer.Argument(help="Where training leaves its checkpoints.")],
    data_dir: Annotated[Path, typer.Argument(help="Folder of data sets.")],
    test: Annotated[bool, typer.Option("--test", help="Use the test scenes.")] = False,
) -> None:
    """Print mAP in percent, global and reranked, in the Easy, Medium and Hard setups."""
    which = scenes.TEST if test else scenes.VALIDATION
    scenes.write(which, data_dir)
    dataset = load_dataset(data_dir, which.name)
    engines = reference(load(folder))
    described = [engines.extract_from(path) for path in dataset.images]
    shortlists = (SHORTLIST,) if (folder / "verifier.pt").is_file() else ()
    outcome = evaluate(Task(dataset, shortlists), Database.as_kept(described, HalfCodec()), lambda: engines)
    for shortlist in (GLOBAL, *shortlists):
        figures = "  ".join(f"{setup} {100 * outcome.means(shortlist, setup)['mAP']:.1f}" for setup in SETUPS)
        sys.stdout.write(f"{'global' if shortlist == GLOBAL else f'best {shortlist} reranked':<20} {figures}\n")


if __name__ == "__main__":
    typer.run(main)
