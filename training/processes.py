"""Data-parallel training in several processes of one thread each, which average their gradients.

Two processes of one thread get further than one of two threads on a machine that has other work to do.
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

MEETING = ".meeting"  # the file through which the processes find each other


def one_thread() -> None:
    """To be called before any work: threads that exist by then would not survive the forks to come."""
    keep_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def start(train: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `train(rank, *arguments)` in each process; forked, so that pictures in memory are shared."""
    start_processes(train, arguments, processes, start_method="fork")  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def together(rank: int, processes: int, folder: Path) -> Iterator[None]:
    """What a process does in this block it does as one of several, which meet in `folder`."""
    meeting = folder.absolute() / MEETING
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()
        meeting.unlink(missing_ok=True)


def average_gradients(module: nn.Module) -> None:
    """The mean over all processes, in each of them: weights stay equal. Statistics of norms are each one's own."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
