"""Whitening of the descriptor in closed form: it reduces directions in which views of one building differ.

Run `python -m training.whitening FOLDER --photographs PHOTOGRAPHS` after the first stage. It multiplies the final layer
by the inverse square root of the covariance within scenes (Mikolajczyk and Matas, ICCV 2007), estimated from whole
photographs of the training scenes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from rich.progress import track
from torch import nn
from torch.nn import functional as F

import scenes
from cvnet_engine.cvnet.backbone import Backbone
from cvnet_engine.engine.contract import Array
from training import stages
from training.pairs import normalised
from training.photographs import read_scene, scene_file
from training.slim import WIDTHS, channels_last, slim_model
from training.views import Source

SHRINKAGE = 0.05  # fraction of the mean variance, added to the variance of every direction
SIZE_FACTOR = 0.6  # photographs are resized to the expected size of later images
VIEWS = 4  # per scene


@torch.inference_mode()
def describe(backbone: Backbone, photographs: tuple[Source, ...]) -> Array:
    """Extract the descriptors of a scene's images, (n, C), L2-normalised."""
    found = []
    for photograph in photographs:
        picture = cv2.resize(photograph.picture, None, fx=SIZE_FACTOR, fy=SIZE_FACTOR, interpolation=cv2.INTER_AREA)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(backbone(normalised(torch.from_numpy(picture)[None]))[0])
    return F.normalize(torch.cat(found).float(), dim=1).numpy()


def whitening(descriptors: Array) -> Array:
    """Return the inverse square root (C, C) of the covariance within scenes, of descriptors (scenes, views, C)."""
    within = (descriptors - descriptors.mean(axis=1, keepdims=True)).reshape(-1, descriptors.shape[2])
    covariance = within.T @ within / len(within)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, directions = np.linalg.eigh(covariance)
    roots: Array = directions * variances**-0.5 @ directions.T
    return roots / float(np.linalg.norm(roots, 2))


def whiten(layer: nn.Linear, by: Array) -> None:
    """Multiply the layer's output by a matrix (C, C), by changing its weights."""
    with torch.no_grad():
        matrix = torch.from_numpy(by).to(layer.weight.dtype)
        layer.weight.copy_(matrix @ layer.weight)
        layer.bias.copy_(matrix @ layer.bias)


def main(
    folder: Annotated[Path, typer.Argument(help="Where the first stage left its checkpoint.")],
    photographs: Annotated[Path, typer.Option(help="Written by training.photographs.")],
) -> None:
    """Compute the whitening from the training scenes."""
    torch.set_num_threads(1)
    model = slim_model(WIDTHS)
    model.load_state_dict(stages.read(folder, "backbone"))
    backbone = channels_last(model.backbone.eval().requires_grad_(False))
    files = [scene_file(photographs, index) for index in range(scenes.TRAINING.scenes)]
    descriptors = [describe(backbone, read_scene(file)[:VIEWS]) for file in track(files, "describing")]
    whiten(backbone.whiten, whitening(np.stack(descriptors)))
    stages.write(folder / "whitening.pt", {"model": backbone.whiten.state_dict()})


if __name__ == "__main__":
    typer.run(main)
