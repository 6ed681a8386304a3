"""What a recommender answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, RawId

Status = Literal["model", "cold_start", "all_unknown"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recommendations:
    """The answer to one call, row by row; a row may be shorter than ``k`` where nothing more may be recommended.

    Attributes:
        items: per row the raw ids, best first, as they were in training.
        scores: per row float32 scores; 1 / place in rows that the model did not answer.
        status: per row "model", "cold_start" (empty history) or "all_unknown" (no id of the history is known).
        unknown_items: how many ids of the histories the catalogue lacks.
    """

    items: list[list[RawId]]
    scores: list[Floats]
    status: list[Status]
    unknown_items: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> Ints:
        """int64 (B,): how many items each row has."""
        return np.fromiter(map(len, self.items), dtype=np.int64, count=len(self.items))

    def to_list(self) -> list[list[tuple[RawId, float]]]:
        """Per row (raw id, score) pairs, best first."""
        return [list(zip(i, s.tolist(), strict=True)) for i, s in zip(self.items, self.scores, strict=True)]

    def to_padded(self, fill: RawId) -> tuple[NDArray[Any], Floats]:
        """Two matrices (B, longest row): ids filled up with ``fill``, scores filled up with -inf.

        Args:
            fill: an id that no item has, an int or a string as the items' ids are.

        Returns:
            The ids, int64 or fixed-width text, and their float32 scores.

        Raises:
            TypeError: if ``fill`` is of another kind than the ids; numpy would turn all of them into text.
        """
        example = next((item for row in self.items for item in row), fill)
        if isinstance(fill, bool) or type(fill) is not type(example):
            raise TypeError(f"fill ({fill!r}) must be {type(example).__name__}, as the item ids are")
        shape = (len(self), int(self.lengths.max(initial=0)))
        dtype = np.dtype(np.int64) if isinstance(fill, int) else np.dtype(np.str_)
        flat = [item for row in self.items for item in row + [fill] * (shape[1] - len(row))]
        scores = np.full(shape, -np.inf, dtype=np.float32)
        for padded, row_scores in zip(scores, self.scores, strict=True):
            padded[: len(row_scores)] = row_scores
        return np.array(flat, dtype=dtype).reshape(shape), scores
