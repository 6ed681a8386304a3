"""Recommenders that are counted, not trained: popularity, item-kNN, Markov and sequential rules.

They have the interface of the trained models and stand beside them in every table: on sparse data sequential rules are as good as
many a neural model, and take a second. All but popularity weigh the newest items of a history by age and add up their
rules (``RuleRecommender``); what differs is how the rules are counted.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from genrec.histories import Ragged

_SLOTS_AT_ONCE = 1 << 21  # history slots times rules that are looked up in one go; bounds the memory


@dataclass(frozen=True)
class PopularityConfig:
    """Settings of ``Popularity``.

    Args:
        num_items: items V of the catalogue.
    """

    num_items: int


class Popularity(nn.Module):
    """Scores every item by how often it occurs in training, whatever the history.

    Args:
        num_items: items V of the catalogue.
    """

    zoo_name: ClassVar[str] = "popularity"
    max_seq_length = 1
    counts: Tensor

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.config = PopularityConfig(num_items)
        self.num_items = num_items
        self.register_buffer("counts", torch.zeros(num_items + 1))

    def fit_events(self, histories: Ragged) -> None:
        """Counts the events of training; each history is one user's, oldest first."""
        self.counts = _popularity(histories, self.num_items)

    def scores(self, item_ids: Tensor) -> Tensor:
        """(B, L) item indices, which play no part -> (B, V + 1) counts."""
        return self.counts.expand(item_ids.shape[0], -1)


class RuleRecommender(nn.Module, ABC):
    """Adds up the rules "after i comes j" of the newest items, those of older items weighing less.

    The score of j is the sum over k = 0, 1, ... of ``decay ** k * R[h_k, j]``, where h_0 is the newest item and R the matrix of
    rules, kept sparse by rows. Items that no rule names follow behind all others by popularity: they get the negative score
    ``count - (highest count + 1)``, which is exact in float32 and below every sum of rules.

    Args:
        num_items: items V of the catalogue.
        max_seq_length: how many of the newest items are looked at.
        decay: weight of an item as against the one after it, in (0, 1].

    Raises:
        ValueError: if ``decay`` lies outside (0, 1] or a size is below 1.
    """

    starts: Tensor  # int64 (V + 2,): the rules of item i stand at starts[i]..starts[i + 1] of the two below
    columns: Tensor  # int32 (R + 1,): the item that a rule recommends; the last entry stands for "no rule"
    weights: Tensor  # float32 (R + 1,)
    fallback: Tensor  # float32 (V + 1,)

    def __init__(self, num_items: int, max_seq_length: int, decay: float) -> None:
        super().__init__()
        if not 0 < decay <= 1:
            raise ValueError(f"decay ({decay}) must be above 0 and at most 1")
        if num_items < 1 or max_seq_length < 1:
            raise ValueError(f"num_items ({num_items}) and max_seq_length ({max_seq_length}) must be at least 1")
        self.num_items = num_items
        self.max_seq_length = max_seq_length
        self.decay = decay
        self.register_buffer("starts", torch.zeros(num_items + 2, dtype=torch.int64))
        self.register_buffer("columns", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(1))
        self.register_buffer("fallback", torch.full((num_items + 1,), -1.0))
        self.most_rules = 0  # of any one item: a whole number, so that an exported graph has fixed shapes

    @abstractmethod
    def rules(self, histories: Ragged) -> Tensor:
        """Counts the matrix R, sparse float64 (V + 1, V + 1), from the histories of training."""

    def fit_events(self, histories: Ragged) -> None:
        """Counts the rules and the popularity of training; each history is one user's, oldest first."""
        rules = self.rules(histories).coalesce()
        rows, columns = rules.indices()
        lengths = torch.bincount(rows, minlength=self.num_items + 1)
        self.starts = nn.functional.pad(lengths.cumsum(0), (1, 0))
        self.columns = nn.functional.pad(columns.to(torch.int32), (0, 1))
        self.weights = nn.functional.pad(rules.values().to(torch.float32), (0, 1))
        popularity = _popularity(histories, self.num_items)
        self.fallback = popularity - (popularity.max() + 1)
        self.most_rules = int(lengths.max())

    def scores(self, item_ids: Tensor) -> Tensor:
        """Scores every item.

        Args:
            item_ids: int64 (B, L), left-padded with 0; only the newest ``max_seq_length`` count.

        Returns:
            (B, V + 1).
        """
        recent = item_ids[:, -self.max_seq_length :]
        if torch.compiler.is_exporting():
            return self._scores(recent)
        rows = max(1, _SLOTS_AT_ONCE // max(1, recent.shape[1] * self.most_rules))
        return torch.cat([self._scores(part) for part in torch.split(recent, rows)])

    def _scores(self, item_ids: Tensor) -> Tensor:
        age = torch.arange(item_ids.shape[1], device=item_ids.device).flip(0)  # (L,)
        first, end = self.starts[item_ids], self.starts[item_ids + 1]  # (B, L)
        places = first.unsqueeze(-1) + torch.arange(self.most_rules, device=item_ids.device)  # (B, L, M)
        places = torch.where(places < end.unsqueeze(-1), places, len(self.weights) - 1)
        weights = self.weights[places] * (self.decay**age).unsqueeze(-1)  # (B, L, M)
        scores = weights.new_zeros(item_ids.shape[0], self.num_items + 1)
        scores = scores.scatter_add(1, self.columns[places].long().flatten(1), weights.flatten(1))  # (B, V + 1)
        return torch.where(scores > 0, scores, self.fallback)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes as many rules as were saved, whatever this instance holds."""
        for name in ("columns", "weights"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.starts.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.most_rules = int(self.starts.diff().max())


@dataclass(frozen=True)
class MarkovConfig:
    """Settings of ``Markov``.

    Args:
        num_items: items V of the catalogue.
    """

    num_items: int


class Markov(RuleRecommender):
    """Scores an item by how often it came right after the history's newest item; of equal counts the more popular item leads.

    Args:
        num_items: items V of the catalogue.
    """

    zoo_name: ClassVar[str] = "markov"

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items, max_seq_length=1, decay=1.0)
        self.config = MarkovConfig(num_items)

    def rules(self, histories: Ragged) -> Tensor:
        """R[i, j]: how often j came right after i, and a fraction below 1/2 that rises with the popularity of j.

        Most counts are small and tie. Float32 adds the fraction without ever making up for a count.
        """
        followed = _followers(histories, self.num_items, max_distance=1).coalesce()
        popularity = _popularity(histories, self.num_items).to(torch.float64)
        share = popularity / (2 * (popularity.max() + 1))
        return torch.sparse_coo_tensor(
            followed.indices(), followed.values() + share[followed.indices()[1]], followed.shape, check_invariants=False
        )


@dataclass(frozen=True)
class SequentialRulesConfig:
    """Settings of ``SequentialRules``.

    Args:
        num_items: items V of the catalogue.
        max_seq_length: how many of the newest items are looked at.
        decay: weight of an item as against the one after it, in (0, 1].
        max_distance: how many steps later an item still counts as following, when the rules are counted.
    """

    num_items: int
    max_seq_length: int = 5
    decay: float = 0.8
    max_distance: int = 10


class SequentialRules(RuleRecommender):
    """Scores an item by how often, and how soon, it came after each of the newest items (Kamehkhosh et al. 2017).

    Args:
        num_items: items V of the catalogue.
        max_seq_length: how many of the newest items are looked at.
        decay: weight of an item as against the one after it, in (0, 1].
        max_distance: how many steps later an item still counts as following, when the rules are counted.
    """

    zoo_name: ClassVar[str] = "sequential-rules"

    def __init__(self, num_items: int, *, max_seq_length: int = 5, decay: float = 0.8, max_distance: int = 10) -> None:
        super().__init__(num_items, max_seq_length, decay)
        if max_distance < 1:
            raise ValueError(f"max_distance ({max_distance}) must be at least 1")
        self.config = SequentialRulesConfig(num_items, max_seq_length, decay, max_distance)

    def rules(self, histories: Ragged) -> Tensor:
        """R[i, j]: the sum of 1 / distance over all places where j came after i."""
        return _followers(histories, self.num_items, self.config.max_distance)


@dataclass(frozen=True)
class ItemKNNConfig:
    """Settings of ``ItemKNN``.

    Args:
        num_items: items V of the catalogue.
        max_seq_length: how many of the newest items are looked at; with the default decay the 51st would weigh 1e-5.
        decay: weight of an item as against the one after it, in (0, 1].
    """

    num_items: int
    max_seq_length: int = 50
    decay: float = 0.8


class ItemKNN(RuleRecommender):
    """Scores an item by its cosine, over users, with the items of the history (Sarwar et al. 2001); all neighbours count.

    Args:
        num_items: items V of the catalogue.
        max_seq_length: how many of the newest items are looked at; with the default decay the 51st would weigh 1e-5.
        decay: weight of an item as against the one after it, in (0, 1].
    """

    zoo_name: ClassVar[str] = "item-knn"

    def __init__(self, num_items: int, *, max_seq_length: int = 50, decay: float = 0.8) -> None:
        super().__init__(num_items, max_seq_length, decay)
        self.config = ItemKNNConfig(num_items, max_seq_length, decay)

    def rules(self, histories: Ragged) -> Tensor:
        """R[i, j]: users of both i and j, over the root of the product of the users of each; no item is its own neighbour."""
        owners = np.repeat(np.arange(len(histories)), histories.lengths)
        pairs = np.unique(np.stack([owners, histories.values]), axis=1)
        chosen = torch.sparse_coo_tensor(
            torch.from_numpy(pairs),
            torch.ones(pairs.shape[1], dtype=torch.float64),
            (len(histories), self.num_items + 1),
            check_invariants=False,
        ).coalesce()  # (U, V + 1), binary
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            both = torch.sparse.mm(chosen.t(), chosen).coalesce()
        users = torch.bincount(chosen.indices()[1], minlength=self.num_items + 1).to(torch.float64)
        rows, columns = both.indices()
        cosine = both.values() * (users[rows] * users[columns]).rsqrt()
        others = rows != columns
        return torch.sparse_coo_tensor(both.indices()[:, others], cosine[others], both.shape, check_invariants=False)


def _followers(histories: Ragged, num_items: int, max_distance: int) -> Tensor:
    """Sparse float64 (V + 1, V + 1): over all places where j comes d <= max_distance steps after i, the sum of 1 / d."""
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    indices, weights = [], []
    for distance in range(1, max_distance + 1):
        same = owners[:-distance] == owners[distance:]
        pairs = np.stack([histories.values[:-distance][same], histories.values[distance:][same]])  # (2, N)
        indices.append(torch.from_numpy(pairs))
        weights.append(torch.full((pairs.shape[1],), 1 / distance, dtype=torch.float64))
    size = (num_items + 1, num_items + 1)
    return torch.sparse_coo_tensor(torch.cat(indices, dim=1), torch.cat(weights), size, check_invariants=False)


def _popularity(histories: Ragged, num_items: int) -> Tensor:
    """float32 (V + 1,): how often each item occurs; exact below 2**24."""
    return torch.from_numpy(np.bincount(histories.values, minlength=num_items + 1)).to(torch.float32)
