"""What a benchmark asks: histories drawn from the catalogue, or a caller's own; a module's inputs made from its signature."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import RawId
from genrec_runtime.manifest import Signature, TensorSpec
from genrec_runtime.module import GRAPH, Module
from genrec_runtime.recommender import Recommender

DRAWN = 1024  # histories at most
ITEMS = 1 << 22  # in all of them, unless one alone is longer
REQUESTS = 64  # different requests of one batch size, at most
USERS = 1 << 16  # different ones that are drawn
BEGUN = 1_500_000_000, 1_700_000_000  # seconds: when drawn histories begin, in 2017 to 2023
GAPS = 0, 15  # natural logarithms of the seconds between drawn events: from one second to 38 days
FREE_AXIS = 16  # size of a module's free axis where neither the caller nor the bundle says

Call = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    """Requests to one loaded bundle.

    Attributes:
        said: what is asked, in words.
        calls: for a batch size the different requests, each to be called without arguments.
    """

    said: str
    calls: Callable[[int], list[Call]]


def make_workload(
    served: Recommender | Module,
    histories: Sequence[Sequence[Any]] | None = None,
    beside: Mapping[str, Sequence[Any]] | None = None,
    *,
    k: int | None = None,
    length: int | None = None,
    seed: int = 0,
) -> Workload:
    """The same requests for every batch size, only cut otherwise.

    Args:
        served: what will be asked.
        histories: raw histories, asked about in this order, over and over; None draws some.
        beside: ``timestamps``, ``request_time`` and ``users``, a row each for each of ``histories``; what the model reads and
            is not among them is drawn, but for the request's time.
        k: how many items a row; the bundle's default if None.
        length: of the drawn histories; None draws 1 to the longest that the model looks at. Of a module: the size of its
            free axes beside the batch.
        seed: of what is drawn.

    Raises:
        ValueError: if ``histories`` holds none, or what is ``beside`` has not as many rows; if histories or ``k`` are given for
            a module; if a module has no free axis.
    """
    random = np.random.default_rng(seed)
    if isinstance(served, Module):
        if k is not None or histories is not None:
            raise ValueError("k and histories are for recommenders, and this bundle is a module")
        return _of_module(served, length, random)
    rows = draw_histories(served, length, random) if histories is None else histories
    if not rows:
        raise ValueError("there is no history to ask about")
    columns = _completed(beside or {}, served, rows, random)
    shortest, longest = min(map(len, rows)), max(map(len, rows))
    lengths = f"{shortest} to {longest}" if shortest < longest else str(longest)
    listed = k or served.manifest.defaults.k
    said = f"{listed} of {served.semantics.num_items:,} items, histories of {lengths}"

    def request(places: Sequence[int]) -> Call:
        asked: dict[str, Any] = {name: [column[i] for i in places] for name, column in columns.items()}
        return functools.partial(served.recommend, [rows[i] for i in places], **asked, k=k)

    def calls(batch: int) -> list[Call]:
        count = min(REQUESTS, max(1, len(rows) // batch))
        return [request([i % len(rows) for i in range(n * batch, (n + 1) * batch)]) for n in range(count)]

    return Workload(said, calls)


def draw_histories(served: Recommender, length: int | None, random: np.random.Generator) -> list[list[RawId]]:
    """Histories as users have them: the item at place n of the cold-start order comes 1 / n as often as the first.

    Args:
        served: whose catalogue they are drawn from.
        length: of each; None draws 1 to ``max_seq_length``.
        random: where the numbers come from.
    """
    longest = length or served.semantics.max_seq_length
    lengths = random.integers(length or 1, longest, max(1, min(DRAWN, ITEMS // longest)), endpoint=True)
    share = 1 / np.arange(1, served.semantics.num_items + 1)
    places = random.choice(len(share), int(lengths.sum()), p=share / share.sum())
    drawn = served.catalogue.cold_start[places]
    parts = np.split(drawn, np.cumsum(lengths)[:-1])
    return [served.catalogue.items.raw(part) for part in parts]


def draw_times(lengths: Sequence[int], random: np.random.Generator) -> list[list[int]]:
    """Times of events in whole seconds: of each history some lie close together, others weeks apart.

    Args:
        lengths: how many events each history has.
        random: where the numbers come from.
    """
    times = []
    for begun, length in zip(random.integers(*BEGUN, len(lengths)), lengths, strict=True):
        gaps = np.exp(random.uniform(*GAPS, length)).astype(np.int64)
        times.append((begun + np.cumsum(gaps)).tolist())
    return times


def draw_inputs(signature: Signature, sizes: dict[str, int], random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """An array for every input of a module, its values within the range that is stated.

    Args:
        signature: of the module.
        sizes: of each free axis.
        random: where the numbers come from.
    """
    return {spec.name: _values(spec, sizes, random) for spec in signature.inputs}


def _completed(
    beside: Mapping[str, Sequence[Any]],
    served: Recommender,
    rows: Sequence[Sequence[Any]],
    random: np.random.Generator,
) -> dict[str, Sequence[Any]]:
    """What is given beside histories, and drawn what else the model reads."""
    columns = dict(beside)
    for name, column in columns.items():
        if len(column) != len(rows):
            raise ValueError(f"{name} has {len(column)} rows for {len(rows)} histories")
    reads = set(served.manifest.capabilities) - set(beside)
    if "timestamps" in reads:
        columns["timestamps"] = draw_times(list(map(len, rows)), random)
    if "users" in reads:
        columns["users"] = random.integers(USERS, size=len(rows)).tolist()
    return columns


def _of_module(served: Module, length: int | None, random: np.random.Generator) -> Workload:
    signature = served.manifest.signature[GRAPH]
    axes = list(dict.fromkeys(axis for spec in signature.inputs for axis in spec.axes if isinstance(axis, str)))
    if not axes:
        raise ValueError("the inputs of this module have fixed sizes only, so there is no batch to measure over")
    rows = "batch" if "batch" in axes else axes[0]
    sizes = {axis: length or signature.limits.get(axis, FREE_AXIS) for axis in axes if axis != rows}
    said = "random inputs" + "".join(f", {axis} {size}" for axis, size in sizes.items())

    def calls(batch: int) -> list[Call]:
        count = min(REQUESTS, max(1, DRAWN // batch))
        return [
            functools.partial(served.run, **draw_inputs(signature, {**sizes, rows: batch}, random))
            for _ in range(count)
        ]

    return Workload(said, calls)


def _values(spec: TensorSpec, sizes: dict[str, int], random: np.random.Generator) -> NDArray[Any]:
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.axes]
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f" and spec.low is None:
        return random.standard_normal(shape).astype(dtype)
    low, high = spec.low or 0, 1 if spec.high is None else spec.high
    values = random.uniform(low, high, shape) if dtype.kind == "f" else random.integers(low, high, shape, endpoint=True)
    return values.astype(dtype)
