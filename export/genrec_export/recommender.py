"""The one way in for recommenders, ours and yours: ``export_recommender``."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from genrec.histories import Catalogue, Ragged, RawId, Side
from genrec_export.assemble import (
    TOLERANCE,
    Exported,
    Say,
    as_json,
    blank_manifest,
    export_draft,
    refusal,
    silent,
)
from genrec_export.cases import histories_of_every_length, recommender_cases
from genrec_export.checks import check_finite, check_weights
from genrec_export.draft import Draft
from genrec_export.foreign import catalogue_of, module_of, serving_of
from genrec_export.graphs import Serving
from genrec_export.interface import example_of, goldens_of, graphs_of
from genrec_export.parity import BUCKETS, check_graph, check_padding
from genrec_export.product import Reference, check_product
from genrec_export.report import Report
from genrec_export.tracing import evaluating
from genrec_export.variants import Opset, VariantName, check_options, check_variants, drafts_of
from genrec_export.writer import check_store, leaving_evidence
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import FP32, Defaults, Manifest, Semantics
from genrec_runtime.options import Options

Window = Literal["auto", "fixed", "bucketed"]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is known of a recommender before it is traced.

    Attributes:
        histories: raw histories to prove it on, some of every length.
        numbered: the same as item indices.
    """

    serving: Serving
    catalogue: Catalogue
    semantics: Semantics
    histories: list[list[RawId]]
    numbered: Ragged
    reference: Reference
    say: Say


def export_recommender(
    *,
    encode: Any,
    item_vectors: Tensor | None = None,
    score: Any = None,
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
    variants: Sequence[VariantName] = (),
    opset: Opset = 20,
    promote: bool = False,
    say: Say | None = None,
) -> Exported:
    """Exports a recommender to a store as one self-checking bundle, after proving that it answers as torch does.

    Args:
        encode: a module, or a method of one: item numbers int64 (B, L), ``pad_index`` where there is padding, to states
            float32 (B, D). What it gives for a row of nothing but padding does not matter.
        item_vectors: float32 (rows, D); an item's score is its vector times the state. Row ``first_item + i`` is
            ``item_ids[i]``; where there are exactly as many rows as items, row ``i`` is.
        score: instead of ``item_vectors``, where the head is no dot product, a module, or a method of one, from states (B, D)
            to scores float32 (B, columns); its columns stand as the rows of ``item_vectors``.
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
        variants: cheaper forms beside "fp32", each held to give nearly the same items on ``histories``: "fp16" computes the
            encoder in half precision, for GPUs; "int8" searches a table of small integers and ranks the candidates exactly,
            for CPUs, and needs ``item_vectors``. Meant for a trained model: scores of random weights lie too close together.
        opset: version of ONNX's operators, 20 or 23; the latter has attention as one operator.
        promote: make ``current`` point to this version even if it points to another.
        say: told what is being done, a few words at a time.

    Raises:
        ExportError: if the model cannot be traced, or any comparison fails; nothing is published then, and
            ``OUT.failed/`` holds the report, the smallest input that failed, and the error in full.
        ValueError: if arguments contradict each other, or an id occurs twice.
        TypeError: if raw ids are neither ints nor strings.
    """
    if min(max_seq_length, k_max) < 1:
        raise ValueError(f"max_seq_length ({max_seq_length}) and k_max ({k_max}) must be at least 1")
    if padding not in ("left", "right"):
        raise ValueError(f"padding ({padding!r}) must be 'left' or 'right'")
    check_options(variants, opset, by_table=score is None)
    if window not in ("auto", "fixed", "bucketed"):
        raise ValueError(f"window ({window!r}) must be 'auto', 'fixed' or 'bucketed'")
    store, report, say = Path(out), Report(TOLERANCE), say or silent
    owners = [module_of(encode, "encode"), *([] if score is None else [module_of(score, "score")])]
    rows = [_raw(history) for history in histories]
    catalogue = catalogue_of(item_ids, rows, cold_start, titles)
    tried = histories_of_every_length(catalogue.items, rows, 2 * max_seq_length)
    numbered = Ragged.from_rows([ids[ids > 0] for ids in map(catalogue.items.index, tried)])
    for owner in owners:
        check_weights(owner)
    if item_vectors is not None:
        check_finite("item_vectors", item_vectors)
    check_store(store)  # before the long work
    with leaving_evidence(store, report), evaluating(*owners):
        serving = serving_of(
            encode,
            item_vectors,
            score,
            item_ids,
            catalogue.items,
            first_item=first_item,
            pad_index=pad_index,
            max_seq_length=max_seq_length,
            k_max=k_max,
        )
        say("trying whether padding moves the scores")
        semantics = Semantics(
            pad_id=0,
            num_items=len(catalogue.items),
            max_seq_length=max_seq_length,
            padding=padding,
            truncation="keep_newest",
            window=_decide_window(report, serving, numbered, max_seq_length, padding, window),
            k_max=serving.k,
            tie_break="lowest_index",
            score="logit",
            time_unit=None,
        )
        plan = _Plan(serving, catalogue, semantics, tried, numbered, reference, say)
        graphs = graphs_of(serving, semantics)
        example = example_of(semantics, graphs)
        draft = Draft(
            module=serving,
            graphs=graphs,
            example=example,
            goldens=goldens_of(serving, semantics, numbered),
            manifest=_manifest(graphs, semantics, name, config or {}, exclude_seen, opset),
            files=catalogue.files(),
            facts=as_json("facts", facts or {}),
            variants=drafts_of(variants, serving, graphs, example),
        )
        return export_draft(draft, store, report, functools.partial(_prove, plan), promote=promote, say=say)


def _prove(plan: _Plan, folder: Path, engine: Engine, report: Report) -> dict[str, Any]:
    """Both levels: every graph over its grid, then raw histories through the written bundle; and every variant."""
    semantics = plan.semantics
    longest = semantics.max_seq_length
    lengths = [longest] if semantics.window == "fixed" else sorted({1, min(2, longest), max(1, longest - 1), longest})
    graphs = graphs_of(plan.serving, semantics)
    for variant in (FP32, *engine.bundle.manifest.variants):
        running = engine if variant == FP32 else Engine(engine.bundle, Options("cpu", variant=variant), trusting=True)
        for name, graph in graphs.items():
            if variant in engine.bundle.manifest.graphs[name]:
                cases = recommender_cases(name, semantics.num_items, lengths, semantics.padding, plan.numbered)
                label = running.file(name).removesuffix(".onnx")
                tolerance = engine.bundle.manifest.tolerance_of(variant)
                check_graph(report, name, graph, running, cases, label=label, tolerance=tolerance)
    plan.say("serving in a process without torch")
    check_product(report, folder, plan.catalogue.items, plan.histories, plan.reference, semantics.k_max)
    return check_variants(report, engine, plan.numbered, plan.say)


def _manifest(
    graphs: Iterable[str], semantics: Semantics, name: str, config: Mapping[str, Any], exclude_seen: bool, opset: int
) -> Manifest:
    return Manifest(
        **blank_manifest("recommender", name, config, opset),
        capabilities=(*graphs, "exclude", "available", "candidates"),
        semantics=semantics,
        defaults=Defaults(k=min(10, semantics.k_max), exclude_seen=exclude_seen),
    )


def _decide_window(
    report: Report, serving: Serving, histories: Ragged, longest: int, side: Side, window: Window
) -> Literal["fixed", "bucketed"]:
    """Measures in torch whether padding moves the scores; "bucketed" only where it does not."""
    if window == "fixed" or longest == 1:
        return "fixed"
    difference, inputs = check_padding(serving, histories, longest, side, TOLERANCE)
    if not difference.same and window == "auto":
        return "fixed"
    case = f"own length against buckets from {BUCKETS[0]} up and {longest}"
    report.add("padding", "torch scores", case, difference, inputs)
    if not difference.same:
        raise refusal(report)
    return "bucketed"


def _raw(history: Any) -> list[RawId]:
    """A history with the ids of arrays as Python's own, as JSON and references know them."""
    return [raw.item() if isinstance(raw, np.generic) else raw for raw in history]
