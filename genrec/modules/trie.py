"""A trie over the codes of items, as flat tables: which codes may follow a prefix, and which items lie under it."""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class Trie(nn.Module):
    """All items' codes as a tree of prefixes, breadth first, in compressed sparse rows.

    Nodes of a depth are numbered from 0, so that a node's children are neighbours; the root is node 0 of depth 0, leaves are
    at depth ``levels``, one an item. Siblings stand in the order of the lowest item under them. Memory is of the order of V.

    Args:
        codes: int64 (V + 1, levels), not negative; row 0 is padding's and is not looked at.

    Raises:
        ValueError: if there is no item, a code is negative, or two items have the same codes.

    >>> trie = Trie(torch.tensor([[0, 0], [5, 1], [3, 1], [5, 0]]))
    >>> everything = trie.offered(torch.zeros(1, 0, dtype=torch.int64), torch.ones(4, dtype=torch.bool))
    >>> nodes, tokens, live = trie.branches(0, torch.tensor([[0]]), everything)
    >>> tokens.tolist(), live.tolist()
    ([[[5, 3]]], [[[True, True]]])
    """

    items: Tensor  # int64 (V,), the item of each leaf

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        table = codes[1:].cpu().numpy()  # (V, levels)
        if not table.size or table.min() < 0:
            raise ValueError(f"codes {tuple(codes.shape)} must hold a row for padding and one an item, none negative")
        lowest = _lowest_by_prefix(table)  # (levels + 1, V)
        _check_distinct(lowest[-1], table)
        order = np.lexsort(lowest[::-1])  # the items by leaf, from 0
        leaves = [_starts(row[order]) for row in lowest]  # of each depth's nodes the first leaf, and V at the end
        self.levels = table.shape[1]
        self.widths: list[int] = []
        self.register_buffer("items", torch.from_numpy(order + 1), persistent=False)
        for level, (above, below) in enumerate(itertools.pairwise(leaves)):
            first_child = np.searchsorted(below, above)  # (nodes + 1,)
            self.widths.append(int(np.diff(first_child).max()))
            self._keep(f"first_child_{level}", first_child)
            self._keep(f"first_leaf_{level}", below)
            self._keep(f"tokens_{level}", table[order[below[:-1]], level])
            self._keep(f"lowest_{level}", lowest[level + 1][order[below[:-1]]] + 1)

    def offered(self, exclude: Tensor, available: Tensor) -> Tensor:
        """How many of the leaves before each leaf may be recommended, from which follows whether any under a node may.

        Args:
            exclude: int64 (B, E), items that a row leaves out, 0 where it has fewer; E may be 0.
            available: bool (V + 1,), False for items that nobody may be recommended; entry 0 is ignored.

        Returns:
            int64 (B, V + 1), from 0 to the number of such leaves.
        """
        allowed = available.expand(exclude.shape[0], -1).scatter(1, exclude, False)  # (B, V + 1)
        return F.pad(allowed.index_select(1, self.items).long().cumsum(dim=1), (1, 0))

    def branches(self, level: int, nodes: Tensor, offered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All children of some nodes.

        Args:
            level: depth of the nodes, 0..levels - 1.
            nodes: int64 (B, K).
            offered: from ``offered``.

        Returns:
            The children's nodes and their codes, int64 (B, K, W), W being the most that any node of the depth has; and bool
            (B, K, W), True where there is such a child with an item under it that may be recommended.
        """
        first = self._look_up(f"first_child_{level}", nodes).unsqueeze(2)  # (B, K, 1)
        end = self._look_up(f"first_child_{level}", nodes + 1).unsqueeze(2)
        child = first + torch.arange(self.widths[level], device=nodes.device)  # (B, K, W)
        real = child < end
        child = torch.where(real, child, first)
        begin = self._look_up(f"first_leaf_{level}", child).flatten(1)  # (B, K * W)
        stop = self._look_up(f"first_leaf_{level}", child + 1).flatten(1)
        wanted = (offered.gather(1, begin) < offered.gather(1, stop)).view_as(child)
        return child, self._look_up(f"tokens_{level}", child), real & wanted

    def lowest(self, level: int, children: Tensor) -> Tensor:
        """The lowest item under each child of depth ``level`` + 1, by which ties are broken; any shape."""
        return self._look_up(f"lowest_{level}", children)

    def items_of(self, leaves: Tensor) -> Tensor:
        """The item of each leaf; any shape."""
        return self._look_up("items", leaves)

    def _keep(self, name: str, values: NDArray[np.int64]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)), persistent=False)

    def _look_up(self, name: str, index: Tensor) -> Tensor:
        """A table's entries at ``index``; as an embedding, which exports to Gather, where indexing gives GatherND."""
        return F.embedding(index, self.get_buffer(name).unsqueeze(1)).squeeze(-1)


def _lowest_by_prefix(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(V, levels) codes -> (levels + 1, V): the first item, from 0, with the same codes up to each depth."""
    lowest = np.zeros((codes.shape[1] + 1, len(codes)), dtype=np.int64)
    for depth, column in enumerate(codes.T):
        key = lowest[depth] * (int(column.max()) + 1) + column
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        lowest[depth + 1] = first[inverse]
    return lowest


def _check_distinct(lowest: NDArray[np.int64], codes: NDArray[np.int64]) -> None:
    """Raises ValueError unless every item is the first with its codes."""
    again = np.flatnonzero(lowest != np.arange(len(lowest)))
    if len(again):
        item, other = int(again[0]) + 1, int(lowest[again[0]]) + 1
        raise ValueError(
            f"{len(again)} items have the codes of another, first item {item} those of item {other}: "
            f"{codes[item - 1].tolist()}; a further code must tell them apart"
        )


def _starts(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of equal values starts, and the length at the end."""
    changes = np.flatnonzero(np.diff(values)) + 1
    return np.concatenate([[0], changes, [len(values)]])
