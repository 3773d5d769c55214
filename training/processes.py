"""Data-parallel training in several single-threaded processes, which average their gradients.

On a machine with other load, two processes of one thread are faster than one process of two threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes

from cvnet_engine.benchmarks.methods.kept_memory import keep_memory

MEETING = ".meeting"  # file through which the processes find each other


def one_thread() -> None:
    """Limit this process to one thread. Call it before any work, because existing threads would not survive a fork."""
    keep_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def start(train: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `train(rank, *arguments)` in each process. Processes are forked, so images in memory are shared."""
    start_processes(train, arguments, processes, start_method="fork")  # type: ignore[no-untyped-call]


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
