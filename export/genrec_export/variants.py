"""Cheaper forms of a recommender's graphs: how each is made, what it must reach, what it costs and gains."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from genrec_export.assemble import Say
from genrec_export.draft import VariantDraft
from genrec_export.graphs import Serving
from genrec_export.half import add_half, rounding
from genrec_export.histories import Requests
from genrec_export.quantised import add_quantised
from genrec_export.report import Arrays, Report
from genrec_export.speed import BATCHES, times_as_fast
from genrec_export.tracing import OPSETS, Graph
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Tolerance
from genrec_runtime.options import Options

VariantName = Literal["fp16", "int8"]
Opset = Literal[20, 23]
K = 10  # length of the lists compared
GATES = {"fp16": 0.999, "int8": 0.995}  # share of them in common
# Of a score after some thirty operations, each rounded to 11 bits: 30 ** 0.5 / 2 ** 11 is 0.003. The int8 variant's scores are
# exact; but an item that it misses lets the next one up, whose score is lower.
TOLERANCE = Tolerance(atol=3e-3, rtol=3e-3)
ROWS = 32  # compared at once


def check_options(variants: Sequence[str], opset: int, *, by_table: bool, searches: bool = False) -> None:
    """Refuses what cannot be made.

    Raises:
        ValueError: if a variant is unknown, given twice, needs a table of item vectors or is of a model that searches, or the
            opset is not offered.
    """
    offered = get_args(VariantName)
    if isinstance(variants, str) or not set(variants) <= set(offered) or len(set(variants)) != len(variants):
        raise ValueError(f"variants ({variants!r}) must be some of {', '.join(map(repr, offered))}, each once")
    if variants and searches:
        raise ValueError(
            f"variants ({', '.join(variants)}) of a model that searches are not offered: where a score is rounded, a search may "
            "give up a whole prefix, and with it all items under it, so its answers are held to those of float32"
        )
    if "int8" in variants and not by_table:
        raise ValueError("the int8 variant searches a table of item vectors; a model that has score instead has none")
    if opset not in OPSETS:
        raise ValueError(f"opset ({opset}) must be one of {', '.join(map(str, OPSETS))}")


def drafts_of(
    variants: Sequence[VariantName], serving: Serving, graphs: Mapping[str, Graph], example: Mapping[str, Tensor]
) -> dict[str, VariantDraft]:
    """What to make of a traced ``Serving``, by name."""
    encoding = {name: graph for name, graph in graphs.items() if graph.inputs[0].name == "item_ids"}
    ways = {
        "fp16": (functools.partial(add_half, graphs=encoding), tuple(encoding)),
        "int8": (functools.partial(add_quantised, graphs=graphs, serving=serving, example=example), ("recommend",)),
    }
    k = min(K, serving.k)
    return {name: VariantDraft(*ways[name], TOLERANCE, GATES[name], k) for name in variants}


def check_variants(report: Report, engine: Engine, histories: Requests, say: Say) -> dict[str, Any]:
    """Holds every variant to its gate, on real histories, and measures what it costs and gains.

    What "fp16" gives is computed with every result rounded to half precision, as GPUs do and this CPU would not.

    Args:
        report: where the comparison is recorded.
        engine: the bundle in "fp32".
        histories: as item indices, with what else the model reads.
        say: told what is being done.

    Returns:
        By variant: ``overlap`` with "fp32", on how many ``histories``, further ``bytes``, and ``speed`` against "fp32" by batch.
    """
    manifest = engine.bundle.manifest
    measured: dict[str, Any] = {}
    for name, variant in manifest.variants.items():
        say(f"comparing {name} with fp32")
        other = Engine(engine.bundle, Options("cpu", variant=name), trusting=True)
        judged = _rounding(engine.bundle, name) if name == "fp16" else other
        shared = overlaps(engine, judged, histories, variant.k)
        lost, allowed = 1 - float(shared.mean()), 1 - variant.gate
        worst = int(shared.argmin())
        difference = Difference(lost, lost / allowed, worst)
        case = f"overlap@{variant.k} {1 - lost:.5f} of {len(histories)} histories, needed {variant.gate}"
        failing = requests(engine, histories.take(np.array([worst])))
        report.add("variant", f"recommend.{name}", case, difference, failing)
        measured[name] = {
            "overlap": 1 - lost,
            "histories": len(histories),
            "bytes": sum(manifest.files[file].size for file in variant.files),
            "speed": {str(batch): speed(engine, other, histories, batch) for batch in BATCHES},
        }
    return measured


def _rounding(bundle: Bundle, variant: str) -> Engine:
    """An engine whose "recommend" rounds every result to half precision."""
    file = bundle.manifest.graphs["recommend"][variant]
    model = rounding(onnx.load_from_string(bundle.bytes(file)))
    content = np.frombuffer(model.SerializeToString(), np.uint8)
    return Engine(
        replace(bundle, files={**bundle.files, file: content}), Options("cpu", variant=variant), trusting=True
    )


def overlaps(engine: Engine, other: Engine, histories: Requests, k: int) -> NDArray[np.float64]:
    """For each history the share of the first engine's ``k`` best items that are among the other's."""
    shares = []
    for begin in range(0, len(histories), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(histories)))
        inputs = requests(engine, histories.take(rows))
        one, two = (running.run("recommend", inputs) for running in (engine, other))
        for row in range(len(rows)):
            wanted = set(one["items"][row, :k][one["scores"][row, :k] > -np.inf].tolist())
            found = set(two["items"][row, :k][two["scores"][row, :k] > -np.inf].tolist())
            shares.append(len(wanted & found) / len(wanted) if wanted else float(not found))
    return np.array(shares)


def speed(engine: Engine, other: Engine, histories: Requests, batch: int) -> float:
    """How many times as fast the other answers, on the longest histories."""
    longest = np.argsort(-histories.items.lengths, kind="stable")[np.arange(batch) % len(histories)]
    inputs = requests(engine, histories.take(longest))
    return times_as_fast(lambda: engine.run("recommend", inputs), lambda: other.run("recommend", inputs))


def requests(engine: Engine, histories: Requests) -> Arrays:
    """Inputs of "recommend" as the runtime makes them: the whole history excluded, everything else available."""
    semantics = engine.bundle.manifest.semantics
    assert semantics is not None
    longest = min(semantics.max_seq_length, max(1, int(histories.items.lengths.max())))
    length = semantics.max_seq_length if semantics.window == "fixed" else longest
    return histories.inputs(length, semantics.padding) | {
        "exclude": histories.items.pad(),
        "available": np.ones(semantics.num_items + 1, np.bool_),
    }
