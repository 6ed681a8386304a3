"""BERT4Rec (Sun et al. 2019): a bidirectional transformer that learns to fill in masked events, the next one among them.

Built on our ``TransformerEncoder`` with learned positions counted from the newest slot. Scores are dot products with the table of
the items that it reads, as the paper's, without its bias an item.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.histories import PAD
from genrec.modules import LearnedPositions, ModelUtils, TransformerEncoder, next_item_cross_entropy
from genrec.modules._checks import check_length


@dataclass(frozen=True)
class BERT4RecConfig:
    """Settings of ``BERT4Rec``.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        num_heads: attention heads H, which share the width.
        num_layers: transformer layers.
        dropout: rate on embeddings, attention weights and both parts of each layer.
        max_seq_length: how many of the newest events are looked at.
        mask_rate: share of a history's events that are masked in training; sparse data want more (the paper: .2 to .6).
        last_rate: share of histories in which the newest event alone is masked, as in serving.
    """

    num_items: int
    embedding_dim: int = 64
    num_heads: int = 2
    num_layers: int = 2
    dropout: float = 0.2
    max_seq_length: int = 50
    mask_rate: float = 0.3
    last_rate: float = 0.1


class BERT4Rec(nn.Module):
    """Predicts the item that a mask after the history stands for, looking at all of the history from both sides.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        num_heads: attention heads H, which share the width.
        num_layers: transformer layers.
        dropout: rate on embeddings, attention weights and both parts of each layer.
        max_seq_length: how many of the newest events are looked at.
        mask_rate: share of a history's events that are masked in training; sparse data want more (the paper: .2 to .6).
        last_rate: share of histories in which the newest event alone is masked, as in serving.

    Raises:
        ValueError: if a size is below 1, the heads do not divide the width, or a rate lies outside its range.

    >>> model = BERT4Rec(num_items=7, embedding_dim=8, num_layers=1)
    >>> model.user_state(torch.tensor([[0, 3, 5]])).shape, model.item_vectors().shape
    (torch.Size([1, 8]), torch.Size([8, 8]))
    """

    zoo_name: ClassVar[str] = "bert4rec"

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 64,
        num_heads: int = 2,
        num_layers: int = 2,
        dropout: float = 0.2,
        max_seq_length: int = 50,
        mask_rate: float = 0.3,
        last_rate: float = 0.1,
    ) -> None:
        super().__init__()
        if num_items < 1:
            raise ValueError(f"num_items ({num_items}) must be at least 1")
        if not 0 < mask_rate <= 1 or not 0 <= last_rate <= 1:
            raise ValueError(f"mask_rate ({mask_rate}) must lie in (0, 1], last_rate ({last_rate}) in [0, 1]")
        self.config = BERT4RecConfig(
            num_items, embedding_dim, num_heads, num_layers, dropout, max_seq_length, mask_rate, last_rate
        )
        self.arguments = asdict(self.config)
        self.num_items = num_items
        self.max_seq_length = max_seq_length
        self.mask = num_items + 1  # the id of what is to be filled in
        self.encoder = TransformerEncoder(
            vocab_size=num_items + 2,
            embedding_dim=embedding_dim,
            num_heads=num_heads,
            num_layers=num_layers,
            attn_dim=4 * embedding_dim,
            dropout=dropout,
            max_seq_length=max_seq_length + 1,
            padding_idx=PAD,
            activation="gelu",
            norm_first=True,
            final_norm=True,
            pos_encoding=LearnedPositions(embedding_dim, max_seq_length + 1),
        )
        self.head = nn.Linear(embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)
        ModelUtils.initialize_weights(self, "normal")

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss over all masked events.

        Args:
            batch: ``item_ids`` int64 (B, L), left-padded with 0; ``targets`` int64 (B, L), of which the last column, the event
                after the newest, is the end of the history that is masked here.

        Returns:
            ``loss``, a scalar.
        """
        events = torch.cat([batch["item_ids"], batch["targets"][:, -1:]], dim=1)  # (B, L + 1)
        masked = self._draw(events != PAD)
        states = self.encoder(events.masked_fill(masked, self.mask), events != PAD)[masked]  # (N, D)
        return {"loss": next_item_cross_entropy(self._transform(states), self.item_vectors(), events[masked])}

    def user_state(self, item_ids: Tensor) -> Tensor:
        """What is known of the event after the newest.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.

        Returns:
            (B, D); its dot product with an item's vector is that item's score.

        Raises:
            ValueError: if L exceeds ``max_seq_length``.
        """
        check_length(item_ids, self.max_seq_length)
        masks = torch.full_like(item_ids[:, :1], self.mask)
        events = torch.cat([item_ids, masks], dim=1)  # (B, L + 1)
        return self._transform(self.encoder.newest(events, events != PAD))

    def item_vectors(self) -> Tensor:
        """(V + 1, D), row 0 is padding's: the embedding table without the mask's row, which is its last."""
        return self.encoder.embedding.weight[:-1]

    def _draw(self, real: Tensor) -> Tensor:
        """Which events are masked, bool (B, L): some of a row's, or its newest alone: at times, and where chance took none."""
        drawn = (torch.rand(real.shape, device=real.device) < self.config.mask_rate) & real
        newest = torch.zeros_like(real)
        newest[:, -1] = real[:, -1]
        alone = torch.rand(len(real), 1, device=real.device) < self.config.last_rate  # (B, 1)
        return torch.where(alone | ~drawn.any(dim=1, keepdim=True), newest, drawn)

    def _transform(self, states: Tensor) -> Tensor:
        transformed: Tensor = self.norm(F.gelu(self.head(states)))
        return transformed
