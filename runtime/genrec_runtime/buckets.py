"""Sizes that requests are padded up to, so that few shapes occur: buffers are used again, and GPUs need no new plans."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints
from genrec_runtime.manifest import Signature

Arrays = dict[str, NDArray[np.generic]]

LENGTHS = (8, *range(16, 129, 16), *(quarter << power for power in range(5, 10) for quarter in (5, 6, 7, 8)))
GROWING = {"batch": 1, "excluded": 16, "candidates": 16}  # axes that zeros may be added to, and their smallest bucket
# A slot is what is done for one place of a short history: the measure of work (on a CPU, two layers of width 64).
PAIRS_A_SLOT = 100  # attention between so many pairs of places is one slot more,
SLOTS_A_RUN = 1_000  # every run costs as much as so many slots,
ITEMS_A_SLOT = 60  # and one more for so many items of the table that it reads


def length_bucket(longest: int, limit: int) -> int:
    """The window for histories of which the longest has ``longest`` items: at most 15 or a quarter more, never above ``limit``.

    >>> [length_bucket(n, 50) for n in (0, 8, 9, 33, 49)], length_bucket(130, 200), length_bucket(5000, 9000)
    ([8, 8, 16, 48, 50], 160, 5000)
    """
    place = bisect.bisect_left(LENGTHS, longest)
    return min(limit, LENGTHS[place] if place < len(LENGTHS) else longest)


def by_length(lengths: Ints, limit: int, num_items: int) -> list[Ints]:
    """Places of histories that are best run together, those with the longest first: what they cost, summed up, is least.

    Args:
        lengths: int64 (B,), how many items of each history are used, at most ``limit``.
        limit: the longest window.
        num_items: how many items of the table every run reads.

    Returns:
        Rising places; each of 0..B - 1 stands in one group.

    >>> [group.tolist() for group in by_length(np.array([200, 3, 180, 3, 3]), 200, 10_000)]
    [[0, 2], [1, 3, 4]]
    >>> [group.tolist() for group in by_length(np.array([200, 3, 180, 3, 3]), 200, 1_000_000)]
    [[0, 1, 2, 3, 4]]
    """
    windows, run = _windows(limit)[lengths], SLOTS_A_RUN + num_items / ITEMS_A_SLOT
    extremes = windows.max(initial=0), windows.min(initial=limit)
    if len(lengths) * (slots(extremes[0]) - slots(extremes[1])) <= run:  # more than every cut together could save
        return [np.arange(len(lengths))]
    order = np.argsort(-windows, kind="stable")
    sizes, first = np.unique(-windows[order], return_index=True)
    costs, bounds = [slots(-size) for size in sizes.tolist()], [*first.tolist(), len(order)]
    least, begins = [0.0], [0]  # for the first n sizes: the least cost, and the size that their last group begins with
    for end in range(1, len(bounds)):
        totals = [least[i] + run + costs[i] * (bounds[end] - bounds[i]) for i in range(end)]
        begins.append(int(np.argmin(totals)))
        least.append(totals[begins[end]])
    cuts, end = [], begins[-1]
    while end:
        cuts.append(bounds[end])
        end = begins[end]
    return [np.sort(group) for group in np.split(order, cuts[::-1])]


def slots(window: int) -> float:
    """What a row of a window costs: attention looks at every pair of its places.

    >>> slots(8), slots(200)
    (8.64, 600.0)
    """
    return window + window**2 / PAIRS_A_SLOT


@functools.lru_cache(maxsize=16)
def _windows(limit: int) -> Ints:
    """The bucket of every length from 0 to ``limit``."""
    return np.array([length_bucket(length, limit) for length in range(limit + 1)])


def pad_up(signature: Signature, inputs: Mapping[str, NDArray[np.generic]]) -> tuple[Arrays, dict[str, int]]:
    """Pads a recommender's inputs with zeros to the next power of two along its free axes but the length.

    Rows of nothing but padding change no other row, and zeros among exclusions and candidates are nobody.

    Returns:
        The arrays, and the sizes along the padded axes that ``cut_down`` restores.
    """
    sizes: dict[str, int] = {}
    padded: Arrays = {}
    for spec in signature.inputs:
        array, widths = inputs[spec.name], []
        for axis, size in zip(spec.axes, array.shape, strict=True):
            least = GROWING.get(str(axis))
            if least is not None:
                sizes[str(axis)] = size
            widths.append((0, 0 if least is None else max(least, 1 << (size - 1).bit_length() if size else 0) - size))
        padded[spec.name] = np.pad(array, widths) if any(after for _, after in widths) else array
    return padded, sizes


def cut_down(signature: Signature, outputs: Mapping[str, NDArray[np.generic]], sizes: Mapping[str, int]) -> Arrays:
    """The outputs without what ``pad_up`` added."""
    kept: Arrays = {}
    for spec in signature.outputs:
        kept[spec.name] = outputs[spec.name][tuple(slice(sizes.get(str(axis))) for axis in spec.axes)]
    return kept
