"""Devices and processes: Lightning's Fabric as one process or as one of those that torchrun started."""

from __future__ import annotations

import atexit
import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.logger import Logger
from torch import distributed

from genrec.histories import Ints
from genrec.training.config import Precision

_SPEAKERS = ("fabric.utilities.distributed", "fabric.utilities.rank_zero", "pytorch.utilities.rank_zero")
_CHATTER = ("Initializing distributed: GLOBAL_RANK", "All distributed processes registered")


def start_fabric(device: str = "auto", precision: Precision = "32", loggers: list[Logger] | None = None) -> Fabric:
    """Launches Fabric on one device, or as this process's part of a torchrun group (DistributedDataParallel).

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: of training.
        loggers: where ``Fabric.log_dict`` writes.

    Raises:
        ValueError: if the device is unknown or not there, or cannot do the precision.
    """
    accelerator, devices = _accelerator(device)
    if precision == "16-mixed" and accelerator == "cpu":
        raise ValueError("precision '16-mixed' needs a GPU; on a CPU take 'bf16-mixed' or '32'")
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    group = world > 1
    with quiet():
        fabric = Fabric(
            accelerator=accelerator,
            devices=local if group else devices,
            num_nodes=world // local if group else 1,
            strategy="ddp" if group else "auto",
            precision="32-true" if precision == "32" else precision,
            loggers=loggers,
        )
        fabric.launch()
    if group:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Ends the group's threads before the interpreter does: one that is still at work then aborts the process."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _accelerator(device: str) -> tuple[str, int | list[int]]:
    kind, _, number = device.partition(":")
    if device == "auto":
        return ("cuda" if torch.cuda.is_available() else "cpu"), 1
    if device == "cpu":
        return "cpu", 1
    if kind != "cuda" or (number and not number.isdecimal()):
        raise ValueError(f"device ({device!r}) must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= found:
        raise ValueError(f"asked for device {device!r} but torch finds {found} CUDA devices; pass 'cpu' or 'auto'")
    return "cuda", [int(number)] if number else 1


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what Lightning says about itself on every start, and nothing else."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in _SPEAKERS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        for logger in loggers:
            logger.addFilter(_is_news)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _CHATTER)


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) outside a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_processes(counts: Ints, device: torch.device) -> Ints:
    """The elementwise sum of int64 counts of all processes, in every one of them."""
    if rank_and_world()[1] == 1:
        return counts
    total = torch.from_numpy(counts).to(device)
    distributed.all_reduce(total)
    summed: Ints = total.cpu().numpy()
    return summed


def random_states() -> list[dict[str, Any]]:
    """The states of all processes' random generators, by rank, as tensors and plain numbers."""
    kind, keys, *numbers = np.random.get_state(legacy=True)  # noqa: NPY002  (models may draw from it)
    own = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *numbers],
        "python": random.getstate(),
    }
    world = rank_and_world()[1]
    states: list[Any] = [own] * world
    if world > 1:
        distributed.all_gather_object(states, own)
    return states


def restore_random_states(states: list[dict[str, Any]]) -> None:
    """Sets this process's generators to what ``random_states`` found.

    Raises:
        ValueError: if the states are of another number of processes.
    """
    rank, world = rank_and_world()
    if len(states) != world:
        raise ValueError(
            f"the run was started with {len(states)} processes and must be resumed with as many, not {world}"
        )
    own = states[rank]
    torch.set_rng_state(own["torch"])
    if own["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(own["cuda"])
    kind, keys, *numbers = own["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *numbers))  # noqa: NPY002  # models may draw from it
    random.setstate(own["python"])


def seed_everything(seed: int) -> None:
    """Seeds torch, numpy and Python for this process; each of a group draws other numbers."""
    own = seed + rank_and_world()[0]
    torch.manual_seed(own)
    np.random.seed(own % 2**32)  # noqa: NPY002  # models may draw from it
    random.seed(own)
