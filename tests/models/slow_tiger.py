"""TIGER once more, slowly and by itself: float64 numpy from the saved weights, one history at a time, no cache, a trie of dicts.

Nothing of ``genrec`` is imported: what is shared with the model are the names of its weights.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tree = dict[int, Any]  # code -> what may follow; the last code -> the item


class SlowTIGER:
    """The model's answers, written as the paper tells it.

    Args:
        weights: the model's state, as numpy arrays.
        config: its settings.
    """

    def __init__(self, weights: dict[str, NDArray[Any]], config: Any) -> None:
        self.weights = weights
        self.config = config
        self.codes: list[list[int]] = weights["codes"].tolist()

    def recommend(
        self, history: Sequence[int], k: int, beam: int, exclude: Iterable[int] = (), user: int = 0
    ) -> list[tuple[int, float]]:
        """The best items and their scores by beam search, best first; equals by the lowest item."""
        banned = set(exclude)
        tree = self._tree([item for item in range(1, len(self.codes)) if item not in banned])
        encoded = self._encode(history, user)
        beams: list[tuple[list[int], Tree, float]] = [([], tree, 0.0)]
        for level in range(self.config.levels):
            grown = []
            for written, below, score in beams:
                chances = self._chances(encoded, written)[level]
                grown += [([*written, code], below[code], score + float(chances[code])) for code in below]
            grown.sort(key=lambda beam: (-beam[2], self._lowest(beam[0])))
            beams = grown[: k if level == self.config.levels - 1 else beam]
        return [(item, score) for _, item, score in beams]  # type: ignore[misc]  # at the end of the tree stand items

    def score(self, history: Sequence[int], item: int, user: int = 0) -> float:
        """The log probability of an item's codes."""
        codes = self.codes[item]
        chances = self._chances(self._encode(history, user), codes[:-1])
        return float(sum(chances[level][code] for level, code in enumerate(codes)))

    def _tree(self, items: list[int]) -> Tree:
        tree: Tree = {}
        for item in items:
            *path, last = self.codes[item]
            node = tree
            for code in path:
                node = node.setdefault(code, {})
            node[last] = item
        return tree

    def _lowest(self, prefix: list[int]) -> int:
        return next(item for item, codes in enumerate(self.codes) if item and codes[: len(prefix)] == prefix)

    def _encode(self, history: Sequence[int], user: int) -> Array:
        size, levels = self.config.codebook_size, self.config.levels
        tokens = [code + level * size for item in history for level, code in enumerate(self.codes[item])]
        x: Array = self.weights["embedding.weight"][[*tokens, levels * size + user]].astype(np.float64)
        distances = self._bias("encoder", len(x), bidirectional=True)
        for i in range(self.config.num_layers):
            name = f"encoder.layers.{i}"
            seen = self._norm(x, f"{name}.norm1")
            x = x + self._attend(seen, seen, f"{name}.self_attn", distances)
            x = x + self._feed_forward(self._norm(x, f"{name}.norm2"), f"{name}.feed_forward")
        return self._norm(x, "encoder.norm")

    def _chances(self, encoded: Array, written: Sequence[int]) -> list[Array]:
        """The log probabilities of the codes at each level up to the one after ``written``."""
        size = self.config.codebook_size
        tokens = [self.weights["embedding.weight"][code + level * size] for level, code in enumerate(written)]
        x: Array = np.stack([self.weights["first_token"], *tokens]).astype(np.float64)
        distances = self._bias("decoder", len(x), bidirectional=False)
        distances += np.where(np.tri(len(x)) == 1, 0, -np.inf)
        for i in range(self.config.num_layers):
            name = f"decoder.layers.{i}"
            seen = self._norm(x, f"{name}.norm1")
            x = x + self._attend(seen, seen, f"{name}.self_attn", distances)
            x = x + self._attend(self._norm(x, f"{name}.norm2"), encoded, f"{name}.cross_attn", np.zeros(1))
            x = x + self._feed_forward(self._norm(x, f"{name}.norm3"), f"{name}.feed_forward")
        states = self._norm(x, "decoder.norm")
        heads = self.weights["head.weight"].reshape(self.config.levels, size, -1)
        logits = [heads[level] @ state for level, state in enumerate(states)]
        return [row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in logits]

    def _norm(self, x: Array, name: str) -> Array:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * self.weights[f"{name}.weight"]

    def _feed_forward(self, x: Array, name: str) -> Array:
        middle = np.maximum(x @ self.weights[f"{name}.linear1.weight"].T, 0)
        return middle @ self.weights[f"{name}.linear2.weight"].T

    def _attend(self, x: Array, looked_at: Array, name: str, bias: Array) -> Array:
        q, k, v = (
            self._heads(source @ self.weights[f"{name}.{part}.weight"].T)
            for source, part in ((x, "w_q"), (looked_at, "w_k"), (looked_at, "w_v"))
        )
        weights = np.exp(q @ k.transpose(0, 2, 1) + bias)
        gathered = weights / weights.sum(axis=-1, keepdims=True) @ v  # (H, Q, head_dim)
        return gathered.transpose(1, 0, 2).reshape(len(x), -1) @ self.weights[f"{name}.w_o.weight"].T

    def _heads(self, x: Array) -> Array:
        return x.reshape(len(x), self.config.num_heads, self.config.head_dim).transpose(1, 0, 2)

    def _bias(self, stack: str, length: int, *, bidirectional: bool) -> Array:
        table = self.weights[f"{stack}.position_bias.table.weight"]  # (32, H)
        rows = [[bucket(j - i, bidirectional) for j in range(length)] for i in range(length)]
        return table[np.array(rows)].transpose(2, 0, 1).astype(np.float64)


def bucket(relative: int, bidirectional: bool, buckets: int = 32, farthest: int = 128) -> int:
    """T5's bucket of the key's position less the query's, with logarithms as in the paper's code."""
    offset = 0
    if bidirectional:
        buckets //= 2
        offset = buckets if relative > 0 else 0
        distance = abs(relative)
    else:
        distance = max(-relative, 0)
    exact = buckets // 2
    if distance < exact:
        return offset + distance
    steps = math.log(distance / exact) / math.log(farthest / exact) * (buckets - exact)
    return offset + min(exact + math.floor(steps + 1e-9), buckets - 1)  # 1e-9: the logarithms of exact limits
