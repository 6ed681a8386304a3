"""From a model's scores to ranks and lists. Ties: the higher score first, then the lower item index."""

from typing import Any

import torch
from torch import Tensor, nn


def reads(model: nn.Module) -> tuple[str, ...]:
    """What a recommender reads beside the items of histories, by its attribute ``reads``; nothing where it has none.

    The names are ``timestamps`` int64 (B, L), seconds, ``request_time`` int64 (B,), seconds, ``users`` int64 (B,), tokens of
    ``genrec.histories.user_index``, and ``exclude`` int64 (B, E), the items that are not to be recommended.
    """
    names: tuple[str, ...] = tuple(getattr(model, "reads", ()))
    return names


def catalogue_scores(model: nn.Module, item_ids: Tensor, **given: Tensor) -> Tensor:
    """A recommender's score of every item, by its ``scores``, or else ``user_state`` against ``item_vectors``.

    Args:
        model: has ``scores(item_ids) -> (B, V + 1)``, or ``user_state(item_ids) -> (B, D)`` and
            ``item_vectors() -> (V + 1, D)``; it is handed by keyword what it ``reads`` of what is given.
        item_ids: int64 (B, L), left-padded with 0.
        given: whatever is known of ``timestamps``, ``request_time``, ``users`` and ``exclude``; see ``reads``.

    Returns:
        (B, V + 1); column 0 is padding's and means nothing: ``mask_scores`` removes it.
    """
    recommender: Any = model
    read = {name: given[name] for name in reads(model) if name in given}
    scores: Tensor
    if hasattr(recommender, "scores"):
        scores = recommender.scores(item_ids, **read)
    else:
        scores = recommender.user_state(item_ids, **read) @ recommender.item_vectors().T
    return scores


def mask_scores(scores: Tensor, exclude: Tensor) -> Tensor:
    """The scores with -inf at padding and at excluded items, in a new tensor.

    Args:
        scores: (B, V + 1).
        exclude: int64 (B, E) item indices, 0 where a row has fewer; E may be 0.

    Returns:
        (B, V + 1).

    >>> mask_scores(torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([[2]])).tolist()
    [[-inf, 1.0, -inf]]
    """
    padding = torch.zeros_like(scores[:, :1], dtype=exclude.dtype)
    return scores.scatter(1, torch.cat([padding, exclude], dim=1), float("-inf"))


def target_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Each target's place in the whole catalogue's order, from 1.

    Args:
        scores: (B, V + 1), masked by ``mask_scores``.
        targets: int64 (B,), one item index a row.

    Returns:
        int64 (B,): 1 + how many score higher + how many score the same at a lower index; V + 1, the worst, for a
        target whose own score is -inf or NaN. Items that score NaN count as higher.

    >>> target_ranks(torch.tensor([[-torch.inf, 3.0, 5.0, 3.0]]), torch.tensor([3]))
    tensor([3])
    """
    own = scores.gather(1, targets.unsqueeze(1))  # (B, 1)
    lower_index = torch.arange(scores.shape[1], device=scores.device) < targets.unsqueeze(1)  # (B, V + 1)
    before = ~(scores <= own) | ((scores == own) & lower_index)
    absent = own.isnan() | (own == float("-inf"))
    return torch.where(absent.squeeze(1), scores.shape[1], 1 + before.sum(dim=1))


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row, exactly: the higher score first, then the lower index.

    torch.topk leaves the order of ties open, and which of those that tie at the end are kept. Its k-th value is well
    defined, so all above it are taken, and of its equals the first by index; only k are sorted.

    Args:
        scores: (B, V + 1), -inf allowed.
        k: how many, 1..V + 1.

    Returns:
        Indices int64 (B, k) and their scores (B, k).

    Raises:
        ValueError: if ``k`` is outside 1..V + 1, or one of the best scores is NaN.

    >>> top_k(torch.tensor([[0.0, 7.0, 9.0, 7.0, 7.0]]), k=3)
    (tensor([[2, 1, 3]]), tensor([[9., 7., 7.]]))
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k ({k}) must lie in 1..{scores.shape[1]}, the scores of a row")
    best = scores.topk(k, dim=1).values  # (B, k)
    if best.isnan().any():
        raise ValueError("scores hold NaN, which has no place in an order: the model has diverged")
    last = best[:, -1:]
    equal = scores == last
    wanted = (best == last).sum(dim=1, keepdim=True)  # of the equals, the first so many
    chosen = (scores > last) | (equal & (equal.cumsum(dim=1) <= wanted))  # k in each row
    indices = chosen.nonzero()[:, 1].view(-1, k)  # rising in each row, so a stable sort keeps ties by index
    values, order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return indices.gather(1, order), values
