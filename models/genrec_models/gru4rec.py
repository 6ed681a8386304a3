"""GRU4Rec (Hidasi et al. 2016): a recurrent network over the history, scored against the table of the items it reads.

The loss is cross-entropy over the catalogue or a sample of it, at every real position, where the paper has pairwise losses (TOP1,
BPR) over the other items of a batch: the authors' later version found it better (Hidasi and Karatzoglou 2018).
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from genrec.histories import PAD
from genrec.modules import ModelUtils, NextItemLoss
from genrec.modules._checks import check_dropout, check_length, check_sizes
from genrec.modules.catalogue_losses import ItemLoss


@dataclass(frozen=True)
class GRU4RecConfig:
    """Settings of ``GRU4Rec``.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        hidden_dim: width of the recurrent state.
        num_layers: recurrent layers.
        dropout: rate on embeddings and between layers.
        max_seq_length: how many of the newest events are looked at.
        loss: "cross_entropy" over the whole catalogue, or "sampled_softmax" or "gbce", cheaper for catalogues of more than a few
            thousand; see ``NextItemLoss``.
        num_negatives: size of the sample that the cheaper losses draw each step and share over the batch.
    """

    num_items: int
    embedding_dim: int = 64
    hidden_dim: int = 128
    num_layers: int = 1
    dropout: float = 0.2
    max_seq_length: int = 50
    loss: ItemLoss = "cross_entropy"
    num_negatives: int = 1024


class GRU4Rec(nn.Module):
    """Predicts the next item from the history by a gated recurrent network.

    Args:
        num_items: items V of the catalogue.
        embedding_dim: width D of item and user vectors.
        hidden_dim: width of the recurrent state.
        num_layers: recurrent layers.
        dropout: rate on embeddings and between layers.
        max_seq_length: how many of the newest events are looked at.
        loss: "cross_entropy" over the whole catalogue, or "sampled_softmax" or "gbce", cheaper for catalogues of more than a few
            thousand; see ``NextItemLoss``.
        num_negatives: size of the sample that the cheaper losses draw each step and share over the batch.

    Raises:
        ValueError: if a size is below 1, ``dropout`` lies outside [0, 1), or ``loss`` is unknown.

    >>> model = GRU4Rec(num_items=7, embedding_dim=8, hidden_dim=5)
    >>> model.user_state(torch.tensor([[0, 3, 5]])).shape, model.item_vectors().shape
    (torch.Size([1, 8]), torch.Size([8, 8]))
    """

    zoo_name: ClassVar[str] = "gru4rec"

    def __init__(
        self,
        num_items: int,
        *,
        embedding_dim: int = 64,
        hidden_dim: int = 128,
        num_layers: int = 1,
        dropout: float = 0.2,
        max_seq_length: int = 50,
        loss: ItemLoss = "cross_entropy",
        num_negatives: int = 1024,
    ) -> None:
        super().__init__()
        check_sizes(
            num_items=num_items,
            embedding_dim=embedding_dim,
            hidden_dim=hidden_dim,
            num_layers=num_layers,
            max_seq_length=max_seq_length,
        )
        check_dropout(dropout)
        self.config = GRU4RecConfig(
            num_items, embedding_dim, hidden_dim, num_layers, dropout, max_seq_length, loss, num_negatives
        )
        self.arguments = asdict(self.config)
        self.num_items = num_items
        self.max_seq_length = max_seq_length
        self.objective = NextItemLoss(num_items, loss, num_negatives=num_negatives)
        self.embedding = nn.Embedding(num_items + 1, embedding_dim, PAD)
        self.dropout = nn.Dropout(dropout)
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(embedding_dim, hidden_dim, num_layers, batch_first=True, dropout=between)
        self.output = nn.Linear(hidden_dim, embedding_dim)
        ModelUtils.initialize_weights(self.embedding, "normal")

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss over all positions that have a target.

        Args:
            batch: ``item_ids`` int64 (B, L), left-padded with 0; ``targets`` int64 (B, L), the event after each slot, 0 where
                there is none.

        Returns:
            ``loss``, a scalar.
        """
        item_ids, targets = batch["item_ids"], batch["targets"]
        targets = targets.gather(1, _to_the_left(item_ids))  # (B, L), as the states stand
        wanted = targets != PAD
        states, targets = self._states(item_ids)[wanted], targets[wanted]  # (N, D), (N,)
        return {"loss": self.objective(states, self.item_vectors(), targets)}

    def user_state(self, item_ids: Tensor) -> Tensor:
        """What is known of each user after the newest event.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.

        Returns:
            (B, D); its dot product with an item's vector is that item's score.

        Raises:
            ValueError: if L exceeds ``max_seq_length``.
        """
        check_length(item_ids, self.max_seq_length)
        newest = (item_ids != PAD).sum(dim=1).clamp(min=1) - 1  # (B,), where the newest event stands at the left
        hidden, _ = self.gru(self._embed(item_ids))  # (B, L, hidden)
        last = hidden.gather(1, newest[:, None, None].expand(-1, 1, hidden.shape[2]))  # (B, 1, hidden)
        state: Tensor = self.output(last.squeeze(1))
        return state

    def item_vectors(self) -> Tensor:
        """(V + 1, D), row 0 is padding's: the embedding table itself."""
        return self.embedding.weight

    def _states(self, item_ids: Tensor) -> Tensor:
        """The state after every event, histories moved to the left: (B, L) -> (B, L, D)."""
        hidden, _ = self.gru(self._embed(item_ids))
        states: Tensor = self.output(self.dropout(hidden))
        return states

    def _embed(self, item_ids: Tensor) -> Tensor:
        """Embeddings of the histories moved to the left: a recurrent network reads padding first or never."""
        embedded: Tensor = self.dropout(self.embedding(item_ids.gather(1, _to_the_left(item_ids))))
        return embedded


def _to_the_left(item_ids: Tensor) -> Tensor:
    """For each slot where its event stood before padding moved from the left to the right: int64 (B, L).

    >>> _to_the_left(torch.tensor([[0, 0, 7, 9]])).tolist()
    [[2, 3, 0, 1]]
    """
    length = item_ids.shape[1]
    padded = (item_ids == PAD).sum(dim=1, keepdim=True)  # (B, 1)
    slots = torch.arange(length, device=item_ids.device)
    shifted = slots + padded  # (B, L)
    return torch.where(shifted < length, shifted, shifted - length)
