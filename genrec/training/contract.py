"""What training asks of a model, checked in one place before any work is done."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from genrec.histories import Ragged
from genrec.modules import reads

INPUTS = ("timestamps", "request_time", "users", "exclude")  # that a model may read beside the items of histories


class Recommender(Protocol):
    """What every model has."""

    num_items: int
    max_seq_length: int
    config: Any


class TrainedModel(Recommender, Protocol):
    """A model that is fitted by gradients. One with ``prepare`` is first given the users' training events, a ``Ragged``; what
    one with ``facts`` says of itself when it is trained is kept beside its metrics."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``item_ids`` and ``targets``, both (B, L), and what the model reads beside them -> ``loss``, a scalar."""


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
    unknown = set(reads(model)) - set(INPUTS)
    if unknown:
        raise TypeError(
            f"{type(model).__name__}.reads names {', '.join(sorted(unknown))}; there are {', '.join(INPUTS)}"
        )
    return cast(Recommender, model)


def is_counted(model: nn.Module) -> bool:
    """Whether a model is fitted by ``fit_events`` instead of by ``loss``.

    Raises:
        TypeError: naming what is missing for either.
    """
    recommender(model)
    counted = hasattr(model, "fit_events")
    _require(model, ("scores",) if counted else ("loss",), "methods")
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
