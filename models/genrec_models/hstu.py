"""HSTU (Zhai et al. 2024): a stack of gated units that attend by distance and by time, scored by cosine.

Row i of the official code reads the time of the event that it is to predict. Here the time of a request is that of the newest
event unless the caller names it, in training as in serving: no model knows more than another when they are compared.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from genrec.histories import PAD
from genrec.modules import ModelUtils, NextItemLoss
from genrec.modules.catalogue_losses import ItemLoss
from genrec.modules.hstu import HSTUEncoder


@dataclass(frozen=True)
class HSTUConfig:
    """Settings of ``HSTU``.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        num_heads: heads H.
        head_dim: width of a head's queries, keys, values and gates.
        num_layers: units.
        dropout: rate on embeddings and in each unit.
        max_seq_length: how many of the newest events are looked at.
        use_time: look at the times of the events; needs data that have them.
        temperature: divides the cosines.
        loss: "cross_entropy" over the whole catalogue, or "sampled_softmax" or "gbce", cheaper for catalogues of more than a few
            thousand; see ``NextItemLoss``.
        num_negatives: size of the sample that the cheaper losses draw each step and share over the batch.
    """

    num_items: int
    embedding_dim: int = 64
    num_heads: int = 1
    head_dim: int = 64
    num_layers: int = 2
    dropout: float = 0.2
    max_seq_length: int = 50
    use_time: bool = True
    temperature: float = 0.05
    loss: ItemLoss = "cross_entropy"
    num_negatives: int = 1024


class HSTU(nn.Module):
    """Predicts the next item from the history and its times.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        num_heads: heads H.
        head_dim: width of a head's queries, keys, values and gates.
        num_layers: units.
        dropout: rate on embeddings and in each unit.
        max_seq_length: how many of the newest events are looked at.
        use_time: look at the times of the events; needs data that have them.
        temperature: divides the cosines.
        loss: "cross_entropy" over the whole catalogue, or "sampled_softmax" or "gbce", cheaper for catalogues of more than a few
            thousand; see ``NextItemLoss``.
        num_negatives: size of the sample that the cheaper losses draw each step and share over the batch.

    Raises:
        ValueError: if a size is below 1, ``temperature`` is not above 0, or ``loss`` is unknown.

    >>> import torch
    >>> model = HSTU(num_items=7, embedding_dim=8, head_dim=4)
    >>> model.user_state(torch.tensor([[0, 3, 5]]), torch.tensor([[0, 60, 86_400]])).shape, model.item_vectors().shape
    (torch.Size([1, 8]), torch.Size([8, 8]))
    """

    zoo_name: ClassVar[str] = "hstu"
    presets: ClassVar[dict[str, dict[str, Any]]] = {  # of the official code, for MovieLens-1M
        "base": {"embedding_dim": 50, "num_heads": 1, "head_dim": 50, "num_layers": 2},
        "large": {"embedding_dim": 50, "num_heads": 2, "head_dim": 25, "num_layers": 8},
    }

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 64,
        num_heads: int = 1,
        head_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.2,
        max_seq_length: int = 50,
        use_time: bool = True,
        temperature: float = 0.05,
        loss: ItemLoss = "cross_entropy",
        num_negatives: int = 1024,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature ({temperature}) must be above 0")
        self.config = HSTUConfig(
            num_items,
            embedding_dim,
            num_heads,
            head_dim,
            num_layers,
            dropout,
            max_seq_length,
            use_time,
            temperature,
            loss,
            num_negatives,
        )
        self.arguments = asdict(self.config)
        self.num_items = num_items
        self.max_seq_length = max_seq_length
        self.objective = NextItemLoss(num_items, loss, num_negatives=num_negatives)
        self.encoder = HSTUEncoder(
            num_items + 1, embedding_dim, num_heads, num_layers, head_dim, dropout, max_seq_length, timed=use_time
        )
        ModelUtils.initialize_weights(self, "normal")

    @property
    def reads(self) -> tuple[str, ...]:
        """What the model reads beside the items of a history."""
        return ("timestamps", "request_time") if self.config.use_time else ()

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss over all positions that have a target.

        Args:
            batch: ``item_ids`` int64 (B, L), left-padded with 0; ``targets`` int64 (B, L), the event after each slot, 0 where
                there is none; ``timestamps`` int64 (B, L), seconds.

        Returns:
            ``loss``, a scalar.
        """
        item_ids, targets = batch["item_ids"], batch["targets"]
        wanted = targets != PAD  # (B, L)
        states = self._scaled(self.encoder(item_ids, batch.get("timestamps"))[wanted])  # (N, D)
        targets = targets[wanted]  # (N,)
        return {"loss": self.objective(states, self.item_vectors(), targets)}

    def user_state(
        self, item_ids: Tensor, timestamps: Tensor | None = None, request_time: Tensor | None = None
    ) -> Tensor:
        """What is known of each user when the answer is wanted.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.
            timestamps: int64 (B, L), seconds, of padding any; needed with ``use_time``.
            request_time: int64 (B,), seconds; the newest event's time when None.

        Returns:
            (B, D), of length 1 / ``temperature``; its dot product with an item's vector is that item's score.
        """
        return self._scaled(self.encoder.newest(item_ids, timestamps, request_time))

    def item_vectors(self) -> Tensor:
        """(V + 1, D), each of length 1; row 0 is padding's."""
        return F.normalize(self.encoder.embedding.weight, dim=1)

    def _scaled(self, states: Tensor) -> Tensor:
        return F.normalize(states, dim=-1) / self.config.temperature
