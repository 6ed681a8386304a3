"""Constrained beam search over the codes of items, as TIGER serves (Rajput et al. 2023, section 3.2), in plain tensor operations.

Deterministic: nothing is drawn. The levels are unrolled and every width is a whole number, so that the search exports as one
graph without loops; what has been decoded is cached, and what was encoded is shared by all beams of a row.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genrec.modules import top_k
from genrec.modules.t5_attention import KeysValues
from genrec.modules.trie import Trie
from genrec_models.tiger import TIGER


class BeamSearch(nn.Module):
    """TIGER as it is served: histories in, items and their log probabilities out.

    A score is the sum over the levels of the code's log probability among all codes of its level, those that lead to no item
    included, so scores of a row need not sum to 1 over the catalogue. The search is led by the trie of the codes of what may be
    recommended: a prefix takes a beam only while an item under it is left, so a list is shorter than K only where fewer than K
    items are left. With more prefixes than beams it is approximate: an item is missed if one of its prefixes falls behind
    ``beam`` others. With as many beams as items it is the ranking of the whole catalogue.

    Ties, of prefixes as of items, go to the one with the lowest item.

    Args:
        model: with its codes; they are read now, so a search made before they change knows the old ones.
        k: K, the length of a list, 1..V; constant in the graph.
        beam: prefixes kept at each level, at least ``k``.

    Raises:
        ValueError: if ``k`` or ``beam`` is out of range, or the model has no codes.
    """

    def __init__(self, model: TIGER, k: int, beam: int) -> None:
        super().__init__()
        if not 1 <= k <= model.num_items or beam < k:
            raise ValueError(f"k ({k}) must lie in 1..num_items ({model.num_items}), and beam ({beam}) be at least k")
        model.check_codes()
        self.model = model
        self.trie = Trie(model.codes)
        self.trie.to(model.codes.device)
        self.k = k
        self.beam = beam
        self.train(model.training)

    def forward(
        self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The best items of each row.

        Args:
            item_ids: int64 (B, L), left-padded with 0, L at most ``max_seq_length``.
            exclude: int64 (B, E), items not to be recommended, 0 where a row has fewer; E may be 0.
            available: bool (V + 1,), False for items that nobody may be recommended; entry 0 is ignored.
            users: int64 (B,) from ``genrec.histories.user_index``, 0 where a user is not known; None for nobody known.

        Returns:
            items int64 (B, K) and scores (B, K), best first, the lower item first among equals; where nothing is left, item 0
            with the score -inf.
        """
        memory = self.model.memory(item_ids, users)
        offered = self.trie.offered(exclude, available)  # (B, V + 1)
        nodes = torch.zeros_like(item_ids[:, :1])  # (B, 1): one beam, at the root
        scores = torch.zeros_like(nodes, dtype=torch.float32)
        tokens, past = self.model.start(nodes), None  # (B, 1, 1, D)
        for level in range(self.trie.levels):
            states, past = self.model.decoder(tokens, memory, past)  # (B, G, 1, D)
            chances = self.model.log_probs(states.squeeze(2), level)  # (B, G, C)
            children, codes, live = self.trie.branches(level, nodes, offered)  # (B, G, W)
            grown = scores.unsqueeze(2) + chances.gather(2, codes)
            grown = grown.masked_fill(~live, float("-inf")).flatten(1)  # (B, G * W)
            last = level == self.trie.levels - 1
            width = min(self.k if last else self.beam, grown.shape[1])
            scores, places = _best(grown, self.trie.lowest(level, children).flatten(1), width)  # (B, G')
            nodes = children.flatten(1).gather(1, places)
            if not last:
                tokens = self.model.tokens(codes.flatten(1).gather(1, places), level).unsqueeze(2)  # (B, G', 1, D)
                past = _follow(past, places, codes.shape[1], codes.shape[2])
        return self.trie.items_of(nodes).masked_fill(scores == float("-inf"), 0), scores


def _best(scores: Tensor, lowest: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row, of equals those with the lower number in ``lowest``: (B, M), (B, M) -> (B, k), (B, k) places."""
    order = lowest.argsort(dim=1)
    ordered = scores.gather(1, order)
    if torch.compiler.is_exporting():  # onnxruntime's TopK takes the first of equals; torch's takes any
        best, places = ordered.topk(k, dim=1)
    else:
        places, best = top_k(ordered, k)
    return best, order.gather(1, places)


def _follow(past: list[KeysValues], places: Tensor, groups: int, children: int) -> list[KeysValues]:
    """What was cached of ``groups`` beams a row, for the beams at ``places`` (B, G') among their ``children`` each."""
    parent = torch.arange(groups, device=places.device).repeat_interleave(children)  # (G * W,)
    row = torch.arange(places.shape[0], device=places.device).unsqueeze(1) * groups  # (B, 1)
    chosen = (row + F.embedding(places, parent.unsqueeze(1)).squeeze(2)).flatten()  # (B * G',)
    return [(keys.index_select(0, chosen), values.index_select(0, chosen)) for keys, values in past]
