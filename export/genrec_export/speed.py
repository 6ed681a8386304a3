"""How fast a written bundle answers, for its card: ratios, by two that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from genrec_export.histories import History, Reads, keywords
from genrec_export.product import Reference
from genrec_runtime import Recommender
from genrec_runtime.device import processor
from genrec_runtime.engine import Engine

BATCHES = (1, 32)  # timed
RUNS = 25
LEAST, SECONDS = 3, 2.0  # after so long there are fewer runs, but never fewer than these
WARM = 3  # runs before them


def against_torch(
    engine: Engine, reference: Reference, histories: Sequence[History], reads: Reads, k: int
) -> dict[str, float]:
    """By batch, how many times as fast as the trainer's own path a bundle answers, raw ids in and raw ids out.

    torch gets as many threads as the bundle meanwhile.

    Args:
        engine: on the written bundle.
        reference: the trainer's own path.
        histories: raw; the longest are asked about, those of 32 at most.
        reads: what the model reads beside their items.
        k: how many items to ask for, at most; no more than ``reference`` gives.
    """
    recommender, found = Recommender(engine.bundle, engine), {}
    longest = sorted(histories, key=lambda history: -len(history.items))
    with _torch_threads(engine.report.threads):
        for batch in BATCHES:
            asked = [longest[i % len(longest)] for i in range(batch)]
            items, further = [history.items for history in asked], keywords(reads, asked)
            given = max(1, min(k, len(reference(items, **further)[0][0])))
            found[str(batch)] = times_as_fast(
                partial(reference, items, **further),
                partial(recommender.recommend, items, k=given, **further),  # type: ignore[arg-type]  # the further are others
            )
    return found


def times_as_fast(one: Callable[[], object], other: Callable[[], object]) -> float:
    """How many times as fast the other is: the ratio of the medians of runs that take turns."""
    times: tuple[list[float], list[float]] = [], []
    end = np.inf
    for run in range(WARM + RUNS):
        if run == WARM:
            end = time.perf_counter() + SECONDS
        elif run >= WARM + LEAST and time.perf_counter() > end:
            break
        for kept, call in zip(times, (one, other), strict=True):
            begin = time.perf_counter()
            call()
            kept.append(time.perf_counter() - begin)
    return round(statistics.median(times[0][WARM:]) / statistics.median(times[1][WARM:]), 2)


def machine(engine: Engine) -> str:
    """What the speed was measured on: the processor, threads and versions."""
    report, version = engine.report, torch.__version__.split("+")[0]
    return f"{processor()}, {report.threads} threads, onnxruntime {report.onnxruntime}, torch {version}"


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    """Gives torch so many threads within an operator."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
