"""The one way in for recommenders, ours and yours: ``export_recommender``."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genrec.histories import Catalogue, ItemIds, Ragged, RawId, Side
from genrec_export.assemble import TOLERANCE, Draft, Exported, blank_manifest, export_draft, refusal
from genrec_export.graphs import Serving
from genrec_export.parity import (
    BUCKETS,
    Arrays,
    Reference,
    Report,
    check_graph,
    check_product,
    histories_of_every_length,
    padding_difference,
    recommender_cases,
    run_torch,
)
from genrec_export.tracing import Graph, evaluating
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Defaults, Manifest, Semantics, TensorSpec

Window = Literal["auto", "fixed", "bucketed"]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is known of a recommender before it is traced."""

    serving: Serving
    catalogue: Catalogue
    semantics: Semantics
    histories: list[list[RawId]]
    numbered: Ragged
    reference: Reference


def export_recommender(
    *,
    encode: Any,
    item_vectors: Tensor | None = None,
    score: nn.Module | None = None,
    item_ids: Sequence[RawId],
    max_seq_length: int,
    reference: Reference,
    histories: Sequence[Sequence[RawId]],
    out: str | os.PathLike[str],
    first_item: int = 1,
    pad_index: int = 0,
    padding: Side = "left",
    window: Window = "auto",
    k_max: int = 100,
    exclude_seen: bool = True,
    cold_start: Sequence[RawId] | None = None,
    titles: Mapping[RawId, str] | None = None,
    name: str = "custom",
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    promote: bool = False,
) -> Exported:
    """Exports a recommender to a store as one self-checking bundle, after proving that it answers as torch does.

    Args:
        encode: a module, or a method of one: item numbers int64 (B, L), ``pad_index`` where there is padding, to states (B, D).
        item_vectors: (rows, D); an item's score is its vector times the state. Row ``first_item + i`` is ``item_ids[i]``.
        score: instead of ``item_vectors`` a module from states (B, D) to scores (B, rows), where the head is no dot product.
        item_ids: the raw ids of the catalogue, all ints or all strings, in the order of the model's rows.
        max_seq_length: the newest so many items of a history are used.
        reference: the trainer's own path: raw histories to, for each, (raw ids, scores), best first, without the items of the
            whole history if ``exclude_seen``. The bundle is held to this.
        histories: a few hundred real raw histories, of all lengths; the proof is run on them.
        out: the store, a folder.
        first_item: the model's number of ``item_ids[0]``.
        pad_index: the model's number of padding.
        padding: the side on which the model was trained to find it.
        window: "fixed" always pads to ``max_seq_length``; "bucketed" pads to the longest of a batch, and is refused if the
            torch model's scores depend on the padding; "auto" takes "bucketed" where they do not.
        k_max: longest list that can be asked for, cut to the catalogue's size.
        exclude_seen: whether items of the history are left out by default.
        cold_start: raw ids, the most popular first, for users without a history; counted in ``histories`` if not given.
        titles: readable names of raw ids.
        name: the model's name, for people.
        config: its settings, JSON values, for people.
        facts: further JSON values for the card: data, metrics.
        promote: make ``current`` point to this version even if it points to another.

    Raises:
        ExportError: if the model cannot be traced, or any comparison fails; nothing is published then, and
            ``OUT.failed/`` holds the report and the smallest input that failed.
        ValueError: if arguments contradict each other.
    """
    store = Path(out)
    rows = [list(history) for history in histories]
    report = Report(TOLERANCE)
    with evaluating(_module_of(encode)), evaluating(score or nn.Identity()):
        catalogue = _catalogue(item_ids, rows, cold_start, titles)
        numbered = Ragged.from_rows([ids[ids > 0] for ids in map(catalogue.items.index, rows)])
        serving = _serving(encode, item_vectors, score, item_ids, catalogue.items, first_item, pad_index, k_max)
        semantics = Semantics(
            pad_id=0,
            num_items=len(catalogue.items),
            max_seq_length=max_seq_length,
            padding=padding,
            truncation="keep_newest",
            window=_decide_window(report, serving, numbered, max_seq_length, padding, window, store),
            k_max=serving.k,
            tie_break="lowest_index",
            score="logit",
            time_unit=None,
        )
        plan = _Plan(serving, catalogue, semantics, rows, numbered, reference)
        graphs = _graphs(plan)
        draft = Draft(
            module=serving,
            graphs=graphs,
            example=_example(semantics),
            goldens={graph: _goldens(graph, graphs[graph], plan) for graph in graphs},
            manifest=_manifest(plan, name, config or {}, exclude_seen),
            files=catalogue.files(),
            facts=facts or {},
        )
        return export_draft(draft, store, report, functools.partial(_prove, plan, graphs), promote=promote)


def _prove(plan: _Plan, graphs: Mapping[str, Graph], folder: Path, engine: Engine, report: Report) -> None:
    """Both levels: every graph over its grid, then raw histories through the written bundle."""
    semantics = plan.semantics
    for name, graph in graphs.items():
        cases = recommender_cases(name, semantics.num_items, _lengths(semantics), semantics.padding, plan.numbered)
        check_graph(report, name, graph, engine, cases)
    made = histories_of_every_length(plan.histories, 2 * semantics.max_seq_length)
    check_product(report, folder, plan.catalogue.items, made, plan.reference, semantics.k_max)


def _graphs(plan: _Plan) -> dict[str, Graph]:
    """The graphs of a recommender, in the order of ``Serving.forward``'s outputs."""
    semantics, serving = plan.semantics, plan.serving
    items = semantics.num_items
    length = "length" if semantics.window == "bucketed" else semantics.max_seq_length
    limits = {"length": semantics.max_seq_length}
    with torch.no_grad():
        width = serving.encode(_example(semantics)["item_ids"]).shape[-1]
    item_ids = TensorSpec("item_ids", "int64", ("batch", length), 0, items)
    exclude = TensorSpec("exclude", "int64", ("batch", "excluded"), 0, items)
    available = TensorSpec("available", "bool", (items + 1,))
    candidates = TensorSpec("candidates", "int64", ("batch", "candidates"), 0, items)
    lists = tuple(
        TensorSpec(name, dtype, ("batch", serving.k)) for name, dtype in (("items", "int64"), ("scores", "float32"))
    )
    scores = TensorSpec("scores", "float32", ("batch", "candidates"))
    states = TensorSpec("states", "float32", ("batch", width))
    return {
        "recommend": Graph(serving.recommend, (item_ids, exclude, available), lists, limits),
        "score": Graph(serving.score, (item_ids, candidates), (scores,), limits),
        "encode": Graph(serving.encode, (item_ids,), (states,), limits),
    }


def _example(semantics: Semantics) -> dict[str, Tensor]:
    """Inputs to trace on: every free axis has a size of its own, and at least 2."""
    random = torch.Generator().manual_seed(0)

    def indices(*shape: int) -> Tensor:
        return torch.randint(1, semantics.num_items + 1, shape, generator=random)

    longest = semantics.max_seq_length
    return {
        "item_ids": indices(2, min(3, longest) if semantics.window == "bucketed" else longest),
        "exclude": indices(2, 4),
        "available": torch.ones(semantics.num_items + 1, dtype=torch.bool),
        "candidates": indices(2, 5),
    }


def _goldens(name: str, graph: Graph, plan: _Plan) -> Arrays:
    """Recorded requests: real histories, the shortest, the longest, one all padding, one repeated; torch's answers."""
    random = np.random.default_rng(1)
    semantics = plan.semantics
    by_length = np.argsort(plan.numbered.lengths, kind="stable")
    spread = by_length[np.linspace(0, len(by_length) - 1, min(24, len(by_length))).astype(np.int64)]
    real = plan.numbered.slices(spread, np.zeros(len(spread), np.int64), plan.numbered.lengths[spread])
    most = semantics.max_seq_length
    first: list[Any] = [random.integers(1, semantics.num_items + 1, most + 3), [], [1] * most, [semantics.num_items]]
    arrays: Arrays = {}
    for case, histories in enumerate((Ragged.from_rows(first), real)):
        longest = max(1, min(most, int(histories.lengths.max(initial=0))))
        item_ids = histories.pad(longest if semantics.window == "bucketed" else most, semantics.padding)
        inputs: Arrays = {"item_ids": item_ids}
        if name == "recommend":
            inputs |= {"exclude": histories.pad(), "available": np.ones(semantics.num_items + 1, np.bool_)}
        elif name == "score":
            inputs["candidates"] = random.integers(1, semantics.num_items + 1, (len(item_ids), 7))
        arrays |= {f"{case}.in.{key}": value for key, value in inputs.items()}
        arrays |= {f"{case}.out.{key}": value for key, value in run_torch(graph, inputs).items()}
    return arrays


def _manifest(plan: _Plan, name: str, config: Mapping[str, Any], exclude_seen: bool) -> Manifest:
    return Manifest(
        **blank_manifest("recommender", name, config),
        capabilities=("recommend", "exclude", "available", "candidates", "score", "encode"),
        semantics=plan.semantics,
        defaults=Defaults(k=min(10, plan.semantics.k_max), exclude_seen=exclude_seen),
    )


def _decide_window(
    report: Report, serving: Serving, histories: Ragged, longest: int, side: Side, window: Window, store: Path
) -> Literal["fixed", "bucketed"]:
    """Measures in torch whether padding moves the scores; "bucketed" only where it does not."""
    if window == "fixed":
        return "fixed"
    if window not in ("auto", "bucketed"):
        raise ValueError(f"window ({window!r}) must be 'auto', 'fixed' or 'bucketed'")
    difference = padding_difference(serving, histories, longest, side, TOLERANCE)
    if difference.same or window == "bucketed":
        report.add("padding", "torch scores", f"own length, buckets of {BUCKETS[0]} and up, {longest}", difference)
    if not difference.same and window == "bucketed":
        raise refusal(report, store)
    return "bucketed" if difference.same else "fixed"


def _lengths(semantics: Semantics) -> list[int]:
    longest = semantics.max_seq_length
    if semantics.window == "fixed":
        return [longest]
    return sorted({length for length in (1, 2, longest - 1, longest) if 1 <= length <= longest})


def _module_of(encode: Any) -> nn.Module:
    owner = encode if isinstance(encode, nn.Module) else getattr(encode, "__self__", None)
    if not isinstance(owner, nn.Module):
        raise ValueError(
            f"encode must be a torch module or a method of one, got {type(encode).__name__}; wrap it in a module"
        )
    return owner


class _Method(nn.Module):
    """A method of a module as a module, so that its weights are found when it is traced."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.owner = owner
        self.name = name

    def forward(self, item_ids: Tensor) -> Tensor:
        """(B, L) -> (B, D)."""
        states: Tensor = getattr(self.owner, self.name)(item_ids)
        return states


def _serving(
    encode: Any,
    item_vectors: Tensor | None,
    head: nn.Module | None,
    item_ids: Sequence[RawId],
    items: ItemIds,
    first_item: int,
    pad_index: int,
    k_max: int,
) -> Serving:
    if (item_vectors is None) == (head is None):
        raise ValueError("give item_vectors or score, one of them")
    rows = torch.from_numpy(items.index(list(item_ids)))  # the catalogue's number of each of the model's items
    to_model = torch.empty(len(items) + 1, dtype=torch.int64)
    to_model[rows] = torch.arange(first_item, first_item + len(items))
    to_model[0] = pad_index
    if item_vectors is not None and item_vectors.shape[0] < first_item + len(items):
        raise ValueError(
            f"item_vectors has {item_vectors.shape[0]} rows, too few for {len(items)} items from row {first_item} on"
        )
    module = encode if isinstance(encode, nn.Module) else _Method(_module_of(encode), encode.__name__)
    agrees = torch.equal(to_model, torch.arange(len(items) + 1))
    if item_vectors is not None and not (agrees and item_vectors.shape[0] == len(items) + 1):
        item_vectors = item_vectors.detach()[to_model]
    return Serving(module, item_vectors, head, None if agrees else to_model, min(k_max, len(items))).eval()


def _catalogue(
    item_ids: Sequence[RawId],
    histories: Sequence[Sequence[RawId]],
    cold_start: Sequence[RawId] | None,
    titles: Mapping[RawId, str] | None,
) -> Catalogue:
    items = ItemIds(item_ids)
    if cold_start is None:
        seen = np.concatenate([items.index(list(history)) for history in histories] or [np.zeros(0, np.int64)])
        counts = np.bincount(seen, minlength=len(items) + 1)[1:]
        order = np.argsort(-counts, kind="stable") + 1
    else:
        order = items.index(list(cold_start))
        if len(order) != len(items) or 0 in order:
            raise ValueError(f"cold_start must hold each of the {len(items)} items once")
    names = None if titles is None else tuple(str(titles.get(raw, raw)) for raw in items.all())
    return Catalogue(items, order.astype(np.int64), names)
