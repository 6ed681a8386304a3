"""SASRec (Kang and McAuley 2018): a causal transformer over the history, scored against the table of the items it reads.

Built on our ``TransformerEncoder``: norms before attention and feed-forward network, a final norm, learned positions counted from
the newest event. The loss is taken at every real position, over the whole catalogue or a sample of it; both measure far
better than the paper's one negative.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from torch import Tensor, nn

from genrec.histories import PAD, Ragged
from genrec.modules import LearnedPositions, ModelUtils, NextItemLoss, TransformerEncoder
from genrec.modules.catalogue_losses import ItemLoss, Negatives


@dataclass(frozen=True)
class SASRecConfig:
    """Settings of ``SASRec``.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        num_heads: attention heads H, which share the width.
        num_layers: transformer layers.
        dropout: rate on embeddings, attention weights and both parts of each layer; sparse data want more.
        max_seq_length: how many of the newest events are looked at.
        loss: "cross_entropy" over the whole catalogue, or "sampled_softmax" or "gbce", cheaper for catalogues of more than a few
            thousand.
        num_negatives: size of the sample that the cheaper losses draw each step and share over the batch.
        negatives: what "sampled_softmax" draws by, "uniform" or "popularity"; the latter needs ``prepare``.
        popularity_power: an item of n events is drawn in proportion to ``(n + 1) ** popularity_power``.
        gbce_t: calibration of "gbce", 0 (none) to 1 (full).
    """

    num_items: int
    embedding_dim: int = 64
    num_heads: int = 2
    num_layers: int = 2
    dropout: float = 0.2
    max_seq_length: int = 50
    loss: ItemLoss = "cross_entropy"
    num_negatives: int = 1024
    negatives: Negatives = "uniform"
    popularity_power: float = 0.75
    gbce_t: float = 0.75


class SASRec(nn.Module):
    """Predicts the next item from the history by causal self-attention.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        num_heads: attention heads H, which share the width.
        num_layers: transformer layers.
        dropout: rate on embeddings, attention weights and both parts of each layer; sparse data want more.
        max_seq_length: how many of the newest events are looked at.
        loss: "cross_entropy" over the whole catalogue, or "sampled_softmax" or "gbce", cheaper for catalogues of more than a few
            thousand.
        num_negatives: size of the sample that the cheaper losses draw each step and share over the batch.
        negatives: what "sampled_softmax" draws by, "uniform" or "popularity"; the latter needs ``prepare``.
        popularity_power: an item of n events is drawn in proportion to ``(n + 1) ** popularity_power``.
        gbce_t: calibration of "gbce", 0 (none) to 1 (full).

    Raises:
        ValueError: if a size is below 1, the heads do not divide the width, or a setting of the loss is wrong or does not go
            with ``loss``.

    >>> import torch
    >>> model = SASRec(num_items=7, embedding_dim=8, num_layers=1)
    >>> model.user_state(torch.tensor([[0, 3, 5]])).shape, model.item_vectors().shape
    (torch.Size([1, 8]), torch.Size([8, 8]))
    """

    zoo_name: ClassVar[str] = "sasrec"

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 64,
        num_heads: int = 2,
        num_layers: int = 2,
        dropout: float = 0.2,
        max_seq_length: int = 50,
        loss: ItemLoss = "cross_entropy",
        num_negatives: int = 1024,
        negatives: Negatives = "uniform",
        popularity_power: float = 0.75,
        gbce_t: float = 0.75,
    ) -> None:
        super().__init__()
        self.config = SASRecConfig(
            num_items,
            embedding_dim,
            num_heads,
            num_layers,
            dropout,
            max_seq_length,
            loss,
            num_negatives,
            negatives,
            popularity_power,
            gbce_t,
        )
        self.arguments = asdict(self.config)
        self.num_items = num_items
        self.max_seq_length = max_seq_length
        self.objective = NextItemLoss(
            num_items,
            loss,
            num_negatives=num_negatives,
            negatives=negatives,
            popularity_power=popularity_power,
            gbce_t=gbce_t,
        )
        self.encoder = TransformerEncoder(
            vocab_size=num_items + 1,
            embedding_dim=embedding_dim,
            num_heads=num_heads,
            num_layers=num_layers,
            attn_dim=4 * embedding_dim,
            dropout=dropout,
            max_seq_length=max_seq_length,
            causal=True,
            padding_idx=PAD,
            activation="gelu",
            norm_first=True,
            final_norm=True,
            pos_encoding=LearnedPositions(embedding_dim, max_seq_length),
        )
        ModelUtils.initialize_weights(self, "normal")

    def prepare(self, histories: Ragged) -> None:
        """Takes what the loss needs to know of the users' training events; to be called once before a training."""
        self.objective.prepare(histories)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss over all positions that have a target.

        Args:
            batch: ``item_ids`` int64 (B, L), left-padded with 0; ``targets`` int64 (B, L), the event after each slot, 0 where
                there is none.

        Returns:
            ``loss``, a scalar.

        Raises:
            RuntimeError: if negatives are drawn by popularity and ``prepare`` was not called.
        """
        item_ids, targets = batch["item_ids"], batch["targets"]
        wanted = targets != PAD  # (B, L)
        states = self.encoder(item_ids, item_ids != PAD)[wanted]  # (N, D)
        targets = targets[wanted]  # (N,)
        return {"loss": self.objective(states, self.item_vectors(), targets)}

    def user_state(self, item_ids: Tensor) -> Tensor:
        """What is known of each user after the newest event.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.

        Returns:
            (B, D); its dot product with an item's vector is that item's score.
        """
        return self.encoder.newest(item_ids, item_ids != PAD)

    def item_vectors(self) -> Tensor:
        """(V + 1, D), row 0 is padding's: the embedding table itself."""
        return self.encoder.embedding.weight
