"""Checkpoints of a training stage, from which an interrupted stage resumes."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cvnet_engine.engine.errors import WeightsError
from cvnet_engine.engine.files import write_atomically


class Progress:
    """State of a stage in FOLDER/NAME.pt, with its log in FOLDER/NAME.jsonl.

    Args:
        recipe: parameters of the stage; a checkpoint with other parameters is refused.
    """

    def __init__(self, folder: Path, name: str, recipe: str, model: nn.Module, optimizer: Optimizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.log = folder / f"{name}.pt", folder / f"{name}.jsonl"
        self.recipe, self.model, self.optimizer = recipe, model, optimizer
        self.step, self.seconds = 0, 0.0
        self._started = time.perf_counter()

    def resume(self) -> None:
        """Load the checkpoint, if there is one.

        Raises:
            WeightsError: it was saved with another recipe.
        """
        if not self.file.is_file():
            return
        saved = torch.load(self.file, weights_only=True)
        if saved["recipe"] != self.recipe:
            raise WeightsError(
                f"{self.file}: made by another recipe ({saved['recipe']}); expected {self.recipe}: use a new folder"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        write(self.file, {"recipe": self.recipe, "step": self.step, "seconds": self.spent(), **state})

    def note(self, **facts: Any) -> None:
        """Append a line to the log."""
        with self.log.open("a") as stream:
            stream.write(json.dumps({"step": self.step, "seconds": round(self.spent()), **facts}) + "\n")

    def spent(self) -> float:
        """Return the seconds of training, including those before an interruption."""
        return self.seconds + time.perf_counter() - self._started


def write(file: Path, state: dict[str, Any]) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(file, content.getvalue())


def read(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Read the weights of a finished or interrupted stage.

    Raises:
        WeightsError: the stage has not been run.
    """
    file = folder / f"{name}.pt"
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; run python -m training.{name} first")
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["model"]
    return state
