"""What a model reads beside the items of histories, of all events and users of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.data import Cases, Split
from genrec.histories import Ints, Ragged, user_indices
from genrec.modules import reads


@dataclass(frozen=True, eq=False)
class FurtherInputs:
    """Times and users for the batches of a model that reads them.

    Args:
        timed: whether it reads ``timestamps``.
        num_users: how many tokens it has for ``users``; None where it reads none.
    """

    timed: bool = False
    num_users: int | None = None

    @classmethod
    def of(cls, model: nn.Module, split: Split) -> FurtherInputs:
        """What the model reads of a split.

        Raises:
            ValueError: if it reads times and the data have none.
            TypeError: if it reads users and has no ``num_users``.
        """
        names, owner = reads(model), type(model).__name__
        if "timestamps" in names and split.data.times is None:
            raise ValueError(f"{owner} reads the times of events, and {split.data.source} has none; name their column")
        if "users" not in names:
            return cls("timestamps" in names)
        size: Any = getattr(model, "num_users", None)
        if not isinstance(size, int):
            raise TypeError(f"{owner} reads users and must say how many tokens it has for them: num_users")
        return cls("timestamps" in names, size)

    def tokens(self, split: Split, users: Ints) -> Ints | None:
        """The tokens of some of the split's users, int64, if they are read."""
        return None if self.num_users is None else user_indices(split.data.user_ids[users].tolist(), self.num_users)

    def train_times(self, split: Split) -> Ragged | None:
        """The seconds of the events that training sees, if they are read."""
        return split.train_times() if self.timed else None

    def of_cases(self, split: Split, cases: Cases, length: int) -> dict[str, Tensor]:
        """The inputs for histories of some cases: ``timestamps`` int64 (B, L), left-padded, and ``users`` int64 (B,), as read.

        Args:
            split: where the cases come from.
            cases: which.
            length: L, of the padded histories.
        """
        inputs: dict[str, Ints] = {}
        times, tokens = split.history_times(cases) if self.timed else None, self.tokens(split, cases.users)
        if times is not None:
            inputs["timestamps"] = times.pad(length)
        if tokens is not None:
            inputs["users"] = tokens
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}


NOTHING = FurtherInputs()
