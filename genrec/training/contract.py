"""What training asks of a model, checked in one place before any work is done."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from genrec.histories import Ragged

TRAINED = ("loss", "user_state", "item_vectors")
COUNTED = ("fit_events", "scores")


class Recommender(Protocol):
    """What every model has."""

    num_items: int
    max_seq_length: int
    config: Any


class TrainedModel(Recommender, Protocol):
    """A model that is fitted by gradients. One with ``prepare`` is first given the users' training events, a ``Ragged``."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``item_ids`` and ``targets``, both (B, L) -> ``loss``, a scalar."""


class CountedModel(Recommender, Protocol):
    """A model that is fitted in one pass over the histories."""

    def fit_events(self, histories: Ragged) -> None:
        """Learns from the users' training events."""


def recommender(model: nn.Module) -> Recommender:
    """The model, known to have what every model has.

    Raises:
        TypeError: naming what is missing.
    """
    _require(model, ("num_items", "max_seq_length", "config"), "attributes")
    if not hasattr(model, "scores"):
        _require(model, ("user_state", "item_vectors"), "methods (or scores)")
    return cast(Recommender, model)


def is_counted(model: nn.Module) -> bool:
    """Whether a model is fitted by ``fit_events`` instead of by ``loss``.

    Raises:
        TypeError: naming what is missing for either.
    """
    recommender(model)
    counted = hasattr(model, "fit_events")
    _require(model, COUNTED if counted else TRAINED, "methods")
    return counted


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first tensor lies; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _require(model: nn.Module, names: tuple[str, ...], what: str) -> None:
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        raise TypeError(f"{type(model).__name__} lacks the {what} {', '.join(missing)} that training needs")
