"""From a model of any make, with a numbering of its own, to a module that serves the catalogue's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.histories import Catalogue, ItemIds, Ragged, RawId
from genrec_export.errors import ExportError, root_cause
from genrec_export.graphs import Serving
from genrec_export.histories import NOTHING, Reads
from genrec_export.tracing import plain_torch


class Method(nn.Module):
    """A method of a module as a module, so that its weights are found when it is traced."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.owner = owner
        self.name = name

    def forward(self, *inputs: Tensor, **read: Tensor) -> Any:
        """What the method gives."""
        return getattr(self.owner, self.name)(*inputs, **read)


def module_of(value: Any, name: str) -> nn.Module:
    """The module that ``value`` is, or is a method of.

    Raises:
        ValueError: if it is neither: the weights that a function uses are not found when it is traced.
    """
    owner = value if isinstance(value, nn.Module) else getattr(value, "__self__", None)
    if not isinstance(owner, nn.Module):
        kind = getattr(value, "__qualname__", type(value).__name__)
        raise ValueError(f"{name} must be a torch module or a method of one, got {kind}; wrap it in a module")
    return owner


def as_module(value: Any, name: str) -> nn.Module:
    """A module, or a method of one, as a module.

    Raises:
        ValueError: if it is neither, or lies on another device than the CPU.
    """
    owner = module_of(value, name)
    device = next((part.device for part in (*owner.parameters(), *owner.buffers()) if part.device.type != "cpu"), None)
    if device is not None:
        raise ValueError(f"{name} lies on {device}; move the model to the CPU first: model.cpu()")
    return owner if value is owner else Method(owner, value.__name__)


def reads_of(value: Any, name: str, *, timed: bool, num_users: int | None) -> Reads:
    """What a module, or a method of one, reads of what the caller gave; the time of requests if it has a parameter for it.

    Args:
        value: takes what it reads by keyword.
        name: the argument's name, for errors.
        timed: whether times of events are given.
        num_users: how many tokens users have; None where no users are given.

    Raises:
        ValueError: if it has no parameter for what is given.
    """
    owner = module_of(value, name)
    parameters = inspect.signature(owner.forward if value is owner else value).parameters
    names = [*(["timestamps"] if timed else []), *(["users"] if num_users is not None else [])]
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    missing = [] if any_name else [given for given in names if given not in parameters]
    if missing:
        raise ValueError(
            f"{name} has no parameter {missing[0]}: it is called with {missing[0]}=..., as they are given; "
            f"it has {', '.join(parameters)}"
        )
    if timed and (any_name or "request_time" in parameters):
        names.insert(1, "request_time")
    return Reads(tuple(names), num_users or 0)


def serving_of(
    encode: Any,
    item_vectors: Tensor | None,
    score: Any,
    item_ids: Sequence[RawId],
    items: ItemIds,
    *,
    first_item: int,
    pad_index: int,
    max_seq_length: int,
    k_max: int,
    reads: Reads = NOTHING,
) -> Serving:
    """The serving module, tried once; arguments as those of ``export_recommender``, and what the encoder ``reads``.

    Raises:
        ValueError: if the arguments contradict each other, or the model gives something else than they say.
        ExportError: if the model fails.
    """
    if (item_vectors is None) == (score is None):
        raise ValueError("give item_vectors or score, one of them")
    count, k = len(items), min(k_max, len(items))
    if min(first_item, pad_index) < 0:
        raise ValueError(f"first_item ({first_item}) and pad_index ({pad_index}) must not be negative")
    if first_item <= pad_index < first_item + count:
        raise ValueError(
            f"pad_index ({pad_index}) is an item's number: items have {first_item}..{first_item + count - 1}"
        )
    places = torch.from_numpy(items.index(list(item_ids)))  # (V,), the catalogue's number of each of the model's items
    to_model = _lookup(places, first_item, pad_index)
    trial = torch.tensor([[first_item], [first_item + count - 1]]).expand(2, max_seq_length).contiguous()
    encoder = as_module(encode, "encode")
    states = _run(encoder, trial, "encode", reads.named(_alike(reads, max_seq_length)))
    if count > 1 and torch.equal(states[0], states[1]):
        raise ExportError("encode ignores its input: histories of the first and of the last item have the same state")
    if item_vectors is not None:
        table = _table(item_vectors, places, first_item, states)
        return Serving(encoder, table, None, _unless_same(to_model), None, k, reads).eval()
    head = as_module(score, "score")
    columns = _run(head, states, "score").shape[1]
    to_column = _lookup(places, _start("score", columns, count, first_item), 0)
    same = columns == count + 1 and _unless_same(to_column) is None
    return Serving(encoder, None, head, _unless_same(to_model), None if same else to_column, k, reads).eval()


def catalogue_of(
    item_ids: Sequence[RawId],
    histories: Sequence[Sequence[RawId]],
    cold_start: Sequence[RawId] | None,
    titles: Mapping[RawId, str] | None,
) -> Catalogue:
    """The catalogue to be served; arguments as those of ``export_recommender``.

    Raises:
        TypeError: if ids are neither ints nor strings, or both kinds occur.
        ValueError: if an id occurs twice, or ``cold_start`` does not hold every item once.
    """
    items = ItemIds(item_ids)
    if cold_start is None:
        seen = np.concatenate([np.zeros(0, np.int64), *(items.index(list(history)) for history in histories)])
        counts = np.bincount(seen, minlength=len(items) + 1)[1:]
        order = np.argsort(-counts, kind="stable") + 1
    else:
        order = items.index(list(cold_start))
        if len(order) != len(items) or 0 in order:
            raise ValueError(f"cold_start must hold each of the {len(items)} items once")
    names = None if titles is None else tuple(str(titles.get(raw, raw)) for raw in items.all())
    return Catalogue(items, order.astype(np.int64), names)


def _alike(reads: Reads, length: int) -> list[Tensor]:
    """What else may be read of two histories, the same of both."""
    row = reads.imagine(Ragged.from_rows([[1] * length]), np.random.default_rng(0))
    twice = row.take(np.zeros(2, np.int64)).inputs(length, "left")
    return [torch.from_numpy(twice[name]) for name in reads.names]


def _run(module: nn.Module, x: Tensor, name: str, read: Mapping[str, Tensor] | None = None) -> Tensor:
    """What a module gives for two rows: float32 of two axes."""
    try:
        with plain_torch():
            result = module(x, **(read or {}))
    except Exception as error:  # the model is the caller's: it may raise anything
        raise ExportError(f"{name} fails on a tensor of shape {tuple(x.shape)}: {root_cause(error)}") from error
    if not isinstance(result, Tensor):
        raise ValueError(f"{name} must give a tensor, got {type(result).__name__}")
    if result.dim() != 2 or len(result) != len(x) or result.dtype != torch.float32:
        raise ValueError(
            f"{name} must give float32 of two axes, one row for each of {len(x)} rows; "
            f"got {result.dtype} of shape {tuple(result.shape)}"
        )
    return result


def _table(item_vectors: Tensor, places: Tensor, first_item: int, states: Tensor) -> Tensor:
    """(V + 1, D) in the order of the catalogue; the given tensor itself where it is that already."""
    if item_vectors.dim() != 2 or item_vectors.shape[1] != states.shape[1] or item_vectors.dtype != states.dtype:
        raise ValueError(
            f"item_vectors must be float32 of shape (rows, {states.shape[1]}), as wide as the states of encode; "
            f"got {item_vectors.dtype} of shape {tuple(item_vectors.shape)}"
        )
    count = len(places)
    rows = _lookup(places, _start("item_vectors", len(item_vectors), count, first_item), 0)
    if len(item_vectors) == count + 1 and _unless_same(rows) is None:
        return _whole(item_vectors)
    return item_vectors.detach()[rows]


def _whole(vectors: Tensor) -> Tensor:
    """The parameter that vectors are the first rows of: it is looked up in, too, and a copy would be a second table."""
    owner = vectors if vectors._base is None else vectors._base
    same = owner.shape[1:] == vectors.shape[1:] and owner.data_ptr() == vectors.data_ptr()
    return owner if isinstance(owner, nn.Parameter) and same else vectors.detach()


def _start(name: str, rows: int, count: int, first_item: int) -> int:
    """Where the first item stands among the rows that score: at 0 where there is a row for each item and no other."""
    if rows == count:
        return 0
    if rows < first_item + count:
        raise ValueError(f"{name} has {rows} rows, too few for {count} items from row {first_item} on")
    return first_item


def _lookup(places: Tensor, start: int, padding: int) -> Tensor:
    """int64 (V + 1,): ``start + i`` at the i-th item's place in the catalogue, ``padding`` at 0."""
    numbers = torch.empty(len(places) + 1, dtype=torch.int64)
    numbers[0] = padding
    numbers[places] = torch.arange(start, start + len(places))
    return numbers


def _unless_same(numbers: Tensor) -> Tensor | None:
    """None for 0, 1, 2, ...: nothing to look up then."""
    return None if torch.equal(numbers, torch.arange(len(numbers))) else numbers
