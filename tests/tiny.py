"""A small recommender, trained by nobody, that several test files export and serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genrec.histories import RawId
from genrec_export import Exported
from genrec_models import SASRec, TorchRecommender

ITEMS = [f"item {number:02d}" for number in range(37)]
MAX_SEQ_LENGTH = 6


@dataclass(frozen=True)
class Tiny:
    """A SASRec with random weights over 37 items with string ids, its torch path, and its bundle.

    Attributes:
        model: the torch model.
        torch_path: raw histories to lists, in torch.
        exported: what the export returned.
        histories: raw histories of 1 to 14 items.
    """

    model: SASRec
    torch_path: TorchRecommender
    exported: Exported
    histories: list[list[RawId]]

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self.exported.path


def make_histories(items: Sequence[RawId], count: int, longest: int) -> list[list[RawId]]:
    """Random histories of every length from 1 to ``longest``."""
    random = np.random.default_rng(5)
    return [[items[i] for i in random.integers(0, len(items), 1 + row % longest)] for row in range(count)]
