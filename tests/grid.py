"""The sizes, masks and tolerance of the promise that serving gives what torch gives, for the tests that walk them."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genrec_runtime.compare import compare_values
from genrec_runtime.manifest import Tolerance

Array = NDArray[Any]

BATCHES = (1, 2, 5, 32)
TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)  # float32 sums in another order; the product's own promise


def assert_same(served: Array, torchs: Tensor, case: str) -> None:
    """No NaN on either side, dead rows included, and the same answer."""
    expected = torchs.numpy()
    assert np.isfinite(served).all(), case
    assert np.isfinite(expected).all(), case
    difference = compare_values(served, expected, TOLERANCE)
    assert difference.same, f"{case}: {difference}"


def masks(rows: int, slots: int) -> dict[str, Array]:
    """Bool (rows, slots), True where a slot is real, by name."""
    slot, row = np.arange(slots), np.arange(rows)[:, None]
    count = 1 + row % slots  # every length in turn
    dead = np.ones((rows, slots), bool)
    dead[-1] = False
    return {
        "full": np.ones((rows, slots), bool),
        "ragged left": slot >= slots - count,
        "ragged right": slot < count,
        "one real": slot == row % slots,
        "one dead row": dead,
        "all dead": np.zeros((rows, slots), bool),
    }


def padded_ids(highest: int, longest: int) -> Iterator[tuple[str, Array, Array]]:
    """The grid for what reads ids: each case with ids 1..highest (B, L), drawn or one repeated, and which are real (B, L)."""
    random = np.random.default_rng(0)
    for batch, length in itertools.product(BATCHES, (1, 2, longest - 1, longest)):
        ids = random.integers(1, highest + 1, (batch, length))
        for filling, chosen in {"random": ids, "repeated": np.repeat(ids[:, :1], length, axis=1)}.items():
            for name, mask in masks(batch, length).items():
                yield f"B={batch} L={length} {filling} {name}", chosen, mask
