"""Models that search: histories to lists of items in one graph, without a state of the user or vectors of items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.histories import Ragged
from genrec_export.errors import ExportError, root_cause
from genrec_export.foreign import as_module
from genrec_export.graphs import Serving, fill_dead
from genrec_export.histories import Reads
from genrec_export.report import Arrays, Report
from genrec_export.tracing import plain_torch
from genrec_runtime.compare import Difference, compare_values
from genrec_runtime.manifest import Tolerance

SAMPLED = 64  # items, at most, whose scores show whether padding moves them
ROWS = 5  # of each case whose lists are held to the rules, at most


class SearchServing(nn.Module):
    """A model that searches, as it is served: item indices 1..V in and out, as the model itself numbers them.

    A row of nothing but padding is searched as if it held item 1, and means nothing. Each graph takes what the model reads of
    histories, ``item_ids`` int64 (B, L), 0 where there is padding, and then what is in ``reads``.

    Args:
        search: ``item_ids``, ``exclude``, ``available``, and by keyword what else is read -> items (B, K), scores (B, K).
        score_candidates: ``item_ids``, ``candidates`` (B, C), and by keyword what else is read -> scores (B, C).
        num_items: V.
        k: K, the length of a list, at most V; constant in the graph.
        reads: what both read beside the items.
    """

    def __init__(self, search: nn.Module, score_candidates: nn.Module, num_items: int, k: int, reads: Reads) -> None:
        super().__init__()
        self.searcher = search
        self.scorer = score_candidates
        self.num_items = num_items
        self.k = k
        self.reads = reads

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Both graphs at once, for tracing: of histories, ``exclude``, ``available``, ``candidates``."""
        *read, exclude, available, candidates = inputs
        return (*self.recommend(*read, exclude, available), self.score(*read, candidates))

    def recommend(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The search.

        Args:
            inputs: of histories, then ``exclude`` int64 (B, E), items not to be recommended, 0 where a row has fewer, E may be 0;
                and ``available`` bool (V + 1,), False for items that nobody may be recommended, entry 0 ignored.

        Returns:
            items int64 (B, K) and scores (B, K), best first; -inf marks what is none.
        """
        item_ids, *read, exclude, available = inputs
        _, filled = fill_dead(item_ids)
        found: tuple[Tensor, Tensor] = self.searcher(filled, exclude, available, **self.reads.named(read))
        return found

    def score(self, *inputs: Tensor) -> Tensor:
        """The scores of given items: of histories, and ``candidates`` int64 (B, C) -> (B, C)."""
        item_ids, *read, candidates = inputs
        _, filled = fill_dead(item_ids)
        scores: Tensor = self.scorer(filled, candidates, **self.reads.named(read))
        return scores

    def sample_scores(self, *read: Tensor) -> Tensor:
        """What is compared to see whether padding moves scores, those of a few items: of histories -> (B, C)."""
        few = torch.linspace(1, self.num_items, min(SAMPLED, self.num_items)).long()
        return self.score(*read, few.expand(len(read[0]), -1))


AnyServing = Serving | SearchServing


def search_of(
    search: Any, score_candidates: Any, num_items: int, *, max_seq_length: int, k_max: int, reads: Reads
) -> SearchServing:
    """The serving module of a model that searches, tried once; arguments as those of ``export_recommender``.

    Raises:
        ValueError: if the model gives something else than the arguments say.
        ExportError: if the model fails.
    """
    k = min(k_max, num_items)
    serving = SearchServing(
        as_module(search, "search"), as_module(score_candidates, "score_candidates"), num_items, k, reads
    ).eval()
    items = Ragged.from_rows([[1] * max_seq_length, [num_items] * max_seq_length])
    asked = reads.imagine(items, np.random.default_rng(0)).inputs(max_seq_length, "left")
    read = [torch.from_numpy(values) for values in asked.values()]
    candidates = torch.tensor([[1, 0, num_items], [num_items, 1, 1]])
    everything = torch.ones(num_items + 1, dtype=torch.bool)
    try:
        with plain_torch():
            found, scores = serving.recommend(*read, candidates, everything), serving.score(*read, candidates)
    except Exception as error:  # the model is the caller's: it may raise anything
        shape = tuple(items.pad().shape)
        raise ExportError(
            f"search or score_candidates fails on item_ids of shape {shape}: {root_cause(error)}"
        ) from error
    _check_kind("search must give items and scores", found, [(torch.int64, (2, k)), (torch.float32, (2, k))])
    _check_kind("score_candidates must give scores", (scores,), [(torch.float32, (2, 3))])
    return serving


def check_search(
    report: Report, serving: SearchServing, cases: Iterable[tuple[str, Arrays]], tolerance: Tolerance
) -> None:
    """Holds the search, in torch, to the rules of lists, and its scores to those of ``score_candidates``.

    Args:
        report: where each comparison is recorded.
        serving: the model.
        cases: inputs of "recommend"; of each the first rows count that hold more than padding.
        tolerance: how far the two scores of an item may differ.
    """
    for case, inputs in cases:
        alive = np.flatnonzero(inputs["item_ids"].any(axis=1))[:ROWS]
        if not len(alive):
            continue
        arrays = {name: values if name == "available" else values[alive] for name, values in inputs.items()}
        read = [torch.from_numpy(arrays[name]) for name in ("item_ids", *serving.reads.names)]
        with plain_torch():
            items, scores = serving.recommend(
                *read, *(torch.from_numpy(arrays[name]) for name in ("exclude", "available"))
            )
            again = serving.score(*read, items)
        found = scores > -torch.inf
        kept = torch.where(found, scores, 0.0).numpy(), torch.where(found, again, 0.0).numpy()
        difference = compare_values(*kept, tolerance)
        broken = broken_rules(items.numpy(), scores.numpy(), arrays["exclude"], arrays["available"])
        if broken:
            case, difference = f"{case}: {broken}", Difference(np.inf, np.inf, 0)
        report.add("search", "recommend", case, difference, arrays)


def broken_rules(items: Any, scores: Any, exclude: Any, available: Any) -> str:
    """The first rule of lists that an answer breaks; "" where it keeps all.

    Args:
        items: int64 (B, K).
        scores: (B, K), -inf where there is no item.
        exclude: int64 (B, E).
        available: bool (V + 1,).
    """
    allowed = np.repeat(available[None], len(items), axis=0)  # (B, V + 1)
    np.put_along_axis(allowed, exclude, False, axis=1)
    allowed[:, 0] = False
    for row in range(len(items)):
        found = scores[row] > -np.inf
        listed = items[row][found]
        if np.isnan(scores[row]).any() or (np.diff(scores[row][: found.sum()]) > 0).any() or found[found.sum() :].any():
            return f"row {row}: the scores rise, or are no numbers"
        if len(set(listed.tolist())) < len(listed):
            return f"row {row}: an item occurs twice"
        if listed.min(initial=1) < 1 or listed.max(initial=1) >= len(available) or not allowed[row, listed].all():
            return f"row {row}: an item is recommended that is excluded, not available, or none"
        if len(listed) < min(items.shape[1], allowed[row].sum()):
            return f"row {row}: {len(listed)} items, and {allowed[row].sum()} may be recommended"
    return ""


def _check_kind(what: str, outputs: Any, wanted: list[tuple[torch.dtype, tuple[int, ...]]]) -> None:
    """Raises ValueError unless the outputs are tensors of these dtypes and shapes."""
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    kinds = [(x.dtype, tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in given]
    if kinds != wanted:
        raise ValueError(f"{what}, {_shown(wanted)} for two rows; got {_shown(kinds)}")


def _shown(kinds: Any) -> str:
    return ", ".join(kind if isinstance(kind, str) else f"{kind[0]} {kind[1]}" for kind in kinds)
