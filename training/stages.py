"""Loop of a training stage: it resumes after an interruption, and runs in several single-threaded processes.

The processes average their gradients. On a machine with other load, two processes of one thread are faster than one
process of two threads.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.optim import Optimizer

from cvnet_engine.benchmarks.methods.kept_memory import keep_memory
from cvnet_engine.engine.errors import WeightsError
from cvnet_engine.engine.files import write_atomically
from training.slim import WIDTHS, Widths

SAVED_EVERY = 50  # steps
NOTED_EVERY = 10
MEETING = ".meeting"  # file through which the processes find each other


@dataclass(frozen=True)
class Recipe:
    """Parameters that both stages have."""

    seed: int
    steps: int
    rate: float
    warm_up: int  # steps
    decay: float
    widths: Widths = WIDTHS
    processes: int = 2


class Progress:
    """State of a stage in FOLDER/NAME.pt, with its log in FOLDER/NAME.jsonl.

    Args:
        recipe: parameters of the stage; a checkpoint with other parameters is refused.
    """

    def __init__(self, folder: Path, name: str, recipe: Recipe, model: nn.Module, optimizer: Optimizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.log = folder / f"{name}.pt", folder / f"{name}.jsonl"
        self.recipe, self.model, self.optimizer = repr(recipe), model, optimizer
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

    def note(self, **facts: float) -> None:
        """Append a line to the log."""
        with self.log.open("a") as stream:
            stream.write(json.dumps({"step": self.step, "seconds": round(self.spent()), **facts}) + "\n")

    def spent(self) -> float:
        """Return the seconds of training, including those before an interruption."""
        return self.seconds + time.perf_counter() - self._started


def train(
    rank: int,
    recipe: Recipe,
    progress: Progress,
    losses: Callable[[int], Iterator[dict[str, Tensor]]],
    largest_gradient: float = math.inf,
) -> None:
    """Run one of the processes of a stage, from its checkpoint to the end.

    Args:
        losses: step -> the losses of this and each later step, computed with the weights of that step.
        largest_gradient: norm to which gradients are clipped.

    Raises:
        WeightsError: see `Progress.resume`.
    """
    model, optimizer = progress.model, progress.optimizer
    progress.resume()
    with together(rank, recipe.processes, progress.file.parent):
        for parts in losses(progress.step):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * schedule(progress.step, recipe.steps, recipe.warm_up)
            optimizer.zero_grad()
            torch.autograd.backward(torch.stack(list(parts.values())).sum())
            average_gradients(model)
            if largest_gradient < math.inf:
                torch.nn.utils.clip_grad_norm_(model.parameters(), largest_gradient)
            optimizer.step()
            progress.step += 1
            if rank == 0 and progress.step % NOTED_EVERY == 0:
                progress.note(**{name: round(part.item(), 4) for name, part in parts.items()})
            if rank == 0 and (progress.step % SAVED_EVERY == 0 or progress.step == recipe.steps):
                progress.save()


def schedule(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def one_thread() -> None:
    """Limit this process to one thread. Call it before any work, because existing threads would not survive a fork."""
    keep_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def start(stage: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `stage(rank, *arguments)` in each process. Processes are forked, so images in memory are shared."""
    start_processes(stage, arguments, processes, start_method="fork")  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def together(rank: int, processes: int, folder: Path) -> Iterator[None]:
    """Join the process group of this stage, which meets in `folder`, for the duration of the block."""
    meeting = folder.absolute() / MEETING
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()
        meeting.unlink(missing_ok=True)


def average_gradients(module: nn.Module) -> None:
    """Average the gradients over all processes, so that weights stay equal. Batch norm statistics are not averaged."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def write(file: Path, state: dict[str, Any]) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(file, content.getvalue())


def read(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the weights of a finished or interrupted stage.

    Raises:
        WeightsError: the stage has not been run.
    """
    file = folder / f"{name}.pt"
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; run python -m training.{name} first")
    state: dict[str, Tensor] = torch.load(file, weights_only=True)["model"]
    return state
