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
        users: int64 (U,), each user's token; None where it reads no ``users``.
    """

    timed: bool = False
    users: Ints | None = None

    @classmethod
    def of(cls, model: nn.Module, split: Split) -> FurtherInputs:
        """What the model reads, made ready.

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
        return cls("timestamps" in names, user_indices(split.data.user_ids.tolist(), size))

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
        times = split.history_times(cases) if self.timed else None
        if times is not None:
            inputs["timestamps"] = times.pad(length)
        if self.users is not None:
            inputs["users"] = self.users[cases.users]
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}


NOTHING = FurtherInputs()
