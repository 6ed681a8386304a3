"""The one way in for recommenders, ours and yours: ``export_recommender``."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genrec.histories import RawId, Side
from genrec_export.assemble import TOLERANCE, Exported, Say, as_json, blank_manifest, export_draft, silent
from genrec_export.cases import histories_of_every_length
from genrec_export.checks import check_finite, check_weights
from genrec_export.draft import Draft
from genrec_export.foreign import catalogue_of, module_of, reads_of, serving_of
from genrec_export.graphs import Serving
from genrec_export.histories import Reads, numbered, raw_histories
from genrec_export.interface import example_of, goldens_of, graphs_of
from genrec_export.product import Reference
from genrec_export.proving import Plan, Window, decide_window, prove
from genrec_export.report import Report
from genrec_export.searching import search_of
from genrec_export.tracing import evaluating
from genrec_export.variants import Opset, VariantName, check_options, drafts_of
from genrec_export.writer import check_store, leaving_evidence
from genrec_runtime.manifest import Defaults, Manifest, Semantics


def export_recommender(
    *,
    encode: Any = None,
    item_vectors: Tensor | None = None,
    score: Any = None,
    search: Any = None,
    score_candidates: Any = None,
    item_ids: Sequence[RawId],
    max_seq_length: int,
    reference: Reference,
    histories: Sequence[Sequence[RawId]],
    timestamps: Sequence[Sequence[int]] | None = None,
    users: Sequence[RawId | None] | None = None,
    num_users: int | None = None,
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

    A model has either ``encode``, with ``item_vectors`` or ``score``, or ``search``, with ``score_candidates``. It may read more
    than items, and is then called with it by keyword: ``timestamps`` int64 (B, L), of the events, of padding any;
    ``request_time`` int64 (B,), if times are given and it has a parameter of that name; ``users`` int64 (B,).

    Args:
        encode: a module, or a method of one: item numbers int64 (B, L), ``pad_index`` where there is padding, to states
            float32 (B, D). What it gives for a row of nothing but padding does not matter.
        item_vectors: float32 (rows, D); an item's score is its vector times the state. Row ``first_item + i`` is
            ``item_ids[i]``; where there are exactly as many rows as items, row ``i`` is.
        score: instead of ``item_vectors``, where the head is no dot product, a module, or a method of one, from states (B, D)
            to scores float32 (B, columns); its columns stand as the rows of ``item_vectors``.
        search: instead of ``encode``, a module, or a method of one: item numbers int64 (B, L); items not to be recommended,
            int64 (B, E), 0 where a row has fewer, E may be 0; bool (V + 1,), False for items that nobody may be recommended;
            to items int64 (B, K) and scores float32 (B, K), log probabilities, best first, the lower item first among equals,
            -inf where no item is left. K is ``min(k_max, V)``; items are numbered 1..V in the order of their sorted raw ids.
        score_candidates: a module, or a method of one, from item numbers (B, L) and items int64 (B, C) to the scores float32
            (B, C) that ``search`` gives them.
        item_ids: the raw ids of the catalogue, all ints or all strings, in the order of the model's rows.
        max_seq_length: the newest so many items of a history are used.
        reference: the trainer's own path: raw histories to, for each, (raw ids, scores), best first, without the items of the
            whole history if ``exclude_seen``. It is told by keyword what the model reads, a row an entry, as it is here:
            ``timestamps``, ``request_time`` (always a number) and ``users`` (raw ids, or None). The bundle is held to this.
        histories: a few hundred real raw histories, of all lengths; the proof is run on them.
        timestamps: for a model that reads them, the times of ``histories``, whole seconds, never falling in a row.
        users: for a model that reads them, the raw ids of the users whose ``histories`` these are, None for nobody known. The
            model sees ``genrec.histories.user_indices``: 1..``num_users``, 0 for nobody known.
        num_users: how many tokens the model has for users.
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
            A model that searches has none.
        opset: version of ONNX's operators, 20 or 23; the latter has attention as one operator.
        promote: make ``current`` point to this version even if it points to another.
        say: told what is being done, a few words at a time.

    Raises:
        ExportError: if the model cannot be traced, or any comparison fails; nothing is published then, and
            ``OUT.failed/`` holds the report, the smallest input that failed, and the error in full.
        ValueError: if arguments contradict each other, an id occurs twice, or times are no times.
        TypeError: if raw ids are neither ints nor strings.
    """
    if min(max_seq_length, k_max) < 1:
        raise ValueError(f"max_seq_length ({max_seq_length}) and k_max ({k_max}) must be at least 1")
    if padding not in ("left", "right"):
        raise ValueError(f"padding ({padding!r}) must be 'left' or 'right'")
    if window not in ("auto", "fixed", "bucketed"):
        raise ValueError(f"window ({window!r}) must be 'auto', 'fixed' or 'bucketed'")
    parts = _parts(encode, item_vectors, score, search, score_candidates)
    check_options(variants, opset, by_table=item_vectors is not None, searches=search is not None)
    reads = _reads(parts, timestamps, users, num_users)
    store, report, say = Path(out), Report(TOLERANCE), say or silent
    raw = raw_histories(histories, timestamps, users)
    catalogue = catalogue_of(item_ids, [history.items for history in raw], cold_start, titles)
    if search is not None:
        _check_numbering(list(item_ids), catalogue.items.all(), first_item, pad_index)
    tried = histories_of_every_length(catalogue.items, raw, 2 * max_seq_length, reads)
    rows = numbered(catalogue.items, tried, reads)
    owners = [module_of(part, argument) for argument, part in parts.items()]
    for owner in owners:
        check_weights(owner)
    if item_vectors is not None:
        check_finite("item_vectors", item_vectors)
    check_store(store)  # before the long work
    sizes = {"max_seq_length": max_seq_length, "k_max": k_max, "reads": reads}
    with leaving_evidence(store, report), evaluating(*owners):
        serving = (
            search_of(search, score_candidates, len(catalogue.items), **sizes)  # type: ignore[arg-type]  # of two kinds
            if search is not None
            else serving_of(
                encode,
                item_vectors,
                score,
                item_ids,
                catalogue.items,
                first_item=first_item,
                pad_index=pad_index,
                **sizes,  # type: ignore[arg-type]  # of two kinds
            )
        )
        say("trying whether padding moves the scores")
        semantics = Semantics(
            pad_id=0,
            num_items=len(catalogue.items),
            max_seq_length=max_seq_length,
            padding=padding,
            truncation="keep_newest",
            window=decide_window(report, serving, rows, max_seq_length, padding, window),
            k_max=serving.k,
            tie_break="lowest_index",
            score="logit" if search is None else "log_probability",
            time_unit="s" if "timestamps" in reads.names else None,
        )
        plan = Plan(serving, catalogue, semantics, tried, rows, reference, say)
        graphs = graphs_of(serving, semantics)
        example = example_of(semantics, graphs)
        draft = Draft(
            module=serving,
            graphs=graphs,
            example=example,
            goldens=goldens_of(serving, semantics, rows),
            manifest=_manifest(graphs, reads, semantics, name, config or {}, exclude_seen, opset),
            files=catalogue.files(),
            facts=as_json("facts", facts or {}),
            variants=drafts_of(variants, serving, graphs, example) if isinstance(serving, Serving) else {},
        )
        return export_draft(draft, store, report, functools.partial(prove, plan), promote=promote, say=say)


def _parts(encode: Any, item_vectors: Any, score: Any, search: Any, score_candidates: Any) -> dict[str, Any]:
    """The caller's models, by the name of the argument.

    Raises:
        ValueError: unless they are those of one kind of model.
    """
    given = {"encode": encode, "score": score, "search": search, "score_candidates": score_candidates}
    parts = {name: part for name, part in given.items() if part is not None}
    kinds = ({"encode"}, {"encode", "score"}, {"search", "score_candidates"})
    if set(parts) not in kinds or (search is not None and item_vectors is not None):
        also = ["item_vectors"] if item_vectors is not None else []
        raise ValueError(
            "give encode with item_vectors or score, or search with score_candidates; "
            f"got {', '.join([*parts, *also]) or 'none of them'}"
        )
    return parts


def _reads(parts: Mapping[str, Any], timestamps: Any, users: Any, num_users: int | None) -> Reads:
    """What the model reads of what is given.

    Raises:
        ValueError: if it has no parameter for that, its two parts differ in it, or users and ``num_users`` do not go together.
    """
    if (users is None) != (num_users is None):
        raise ValueError(
            f"users and num_users ({num_users}) go together: the users of histories, and the model's tokens"
        )
    if num_users is not None and num_users < 1:
        raise ValueError(f"num_users ({num_users}) must be at least 1")
    found = {
        name: reads_of(part, name, timed=timestamps is not None, num_users=num_users)
        for name, part in parts.items()
        if name != "score"  # it reads states
    }
    reads = next(iter(found.values()))
    if any(other != reads for other in found.values()):
        raise ValueError(
            "search and score_candidates must read the same, got "
            + " and ".join(f"{', '.join(other.names) or 'nothing'}" for other in found.values())
        )
    return reads


def _check_numbering(item_ids: list[Any], in_order: list[Any], first_item: int, pad_index: int) -> None:
    """Raises ValueError unless the model numbers items as the catalogue does: a search answers with its own numbers."""
    if (first_item, pad_index) != (1, 0):
        raise ValueError(
            f"a model that searches must number items from 1, and padding 0; got first_item {first_item}, pad_index {pad_index}"
        )
    place = next(
        (i for i, (given, sorted_) in enumerate(zip(item_ids, in_order, strict=True)) if given != sorted_), None
    )
    if place is not None:
        raise ValueError(
            "a model that searches must number items in the order of their sorted raw ids: item_ids has "
            f"{item_ids[place]!r} at place {place}, where {in_order[place]!r} stands in that order"
        )


def _manifest(
    graphs: Iterable[str],
    reads: Reads,
    semantics: Semantics,
    name: str,
    config: Mapping[str, Any],
    exclude_seen: bool,
    opset: int,
) -> Manifest:
    return Manifest(
        **blank_manifest("recommender", name, config, opset),
        capabilities=(*graphs, "exclude", "available", "candidates", *reads.names),
        semantics=semantics,
        defaults=Defaults(k=min(10, semantics.k_max), exclude_seen=exclude_seen),
    )
