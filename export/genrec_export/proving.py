"""The proof of a recommender: every graph over its grid, raw histories through the written bundle, every variant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genrec.histories import Catalogue, Side
from genrec_export.assemble import TOLERANCE, Say, refusal
from genrec_export.cases import recommender_cases
from genrec_export.histories import History, Requests
from genrec_export.interface import graphs_of
from genrec_export.parity import BUCKETS, check_graph, check_padding
from genrec_export.product import Reference, check_product
from genrec_export.report import Arrays, Report
from genrec_export.searching import AnyServing, SearchServing, check_search
from genrec_export.speed import against_torch, machine
from genrec_export.variants import check_variants
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import FP32, Semantics
from genrec_runtime.options import Options

Window = Literal["auto", "fixed", "bucketed"]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is known of a recommender before it is traced.

    Attributes:
        serving: the model as it is served, in torch.
        catalogue: its items.
        semantics: how its inputs are made.
        histories: raw histories to prove it on, some of every length.
        numbered: the same as item indices.
        reference: the trainer's own path.
        say: told what is being done.
    """

    serving: AnyServing
    catalogue: Catalogue
    semantics: Semantics
    histories: list[History]
    numbered: Requests
    reference: Reference
    say: Say

    def cases(self, graph: str) -> Iterator[tuple[str, Arrays]]:
        """The grid of a graph: lengths 1, 2 and the longest two, or the longest alone where the window is fixed."""
        longest = self.semantics.max_seq_length
        lengths = sorted({1, min(2, longest), max(1, longest - 1), longest})
        if self.semantics.window == "fixed":
            lengths = [longest]
        reads = self.serving.reads
        return recommender_cases(graph, self.semantics.num_items, lengths, self.semantics.padding, self.numbered, reads)


def prove(plan: Plan, folder: Path, engine: Engine, report: Report) -> dict[str, Any]:
    """Compares the written bundle with torch, and returns what was measured of it and its variants.

    Args:
        plan: the recommender.
        folder: the written bundle.
        engine: on it.
        report: where each comparison is recorded.
    """
    graphs = graphs_of(plan.serving, plan.semantics)
    for variant in (FP32, *engine.bundle.manifest.variants):
        running = engine if variant == FP32 else Engine(engine.bundle, Options("cpu", variant=variant), trusting=True)
        for name, graph in graphs.items():
            if variant in engine.bundle.manifest.graphs[name]:
                label = running.file(name).removesuffix(".onnx")
                tolerance = engine.bundle.manifest.tolerance_of(variant)
                check_graph(report, name, graph, running, plan.cases(name), label=label, tolerance=tolerance)
    if isinstance(plan.serving, SearchServing):
        plan.say("holding the search to its rules")
        check_search(report, plan.serving, plan.cases("recommend"), report.tolerance)
    plan.say("serving in a process without torch")
    reads, k = plan.serving.reads, plan.semantics.k_max
    check_product(report, folder, plan.catalogue.items, plan.histories, reads, plan.reference, k)
    measured = check_variants(report, engine, plan.numbered, plan.say)
    if not report.passed:
        return measured
    plan.say("timing the bundle and torch")
    speed = against_torch(engine, plan.reference, plan.histories, reads, k)
    return {FP32: {"speed": speed}, **measured, "on": machine(engine)}


def decide_window(
    report: Report, serving: AnyServing, histories: Requests, longest: int, side: Side, window: Window
) -> Literal["fixed", "bucketed"]:
    """Measures in torch whether padding moves the scores; "bucketed" only where it does not.

    Args:
        report: where the comparison is recorded.
        serving: the model.
        histories: tried at several widths.
        longest: the model's window.
        side: of the padding.
        window: what the caller asks for.

    Raises:
        ExportError: if "bucketed" is asked for and padding moves the scores.
    """
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
