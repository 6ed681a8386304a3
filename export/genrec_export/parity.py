"""Level one of the proof: torch against the graph, and torch against itself under other padding, on equal tensors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from genrec.histories import Ints, Side
from genrec_export.errors import ExportError, root_cause
from genrec_export.histories import Requests
from genrec_export.report import Arrays, Report
from genrec_export.searching import AnyServing
from genrec_export.tracing import Graph, plain_torch
from genrec_runtime.compare import Difference, compare_outputs, compare_values
from genrec_runtime.engine import Engine
from genrec_runtime.errors import GenrecError
from genrec_runtime.manifest import Tolerance

BUCKETS = (16, 32, 64, 128, 256, 512)
PADDED_LENGTHS = 32  # lengths whose padding is tried, at most
PADDED_ROWS = 8  # histories of each
DIFFERENT = float("inf")


def check_graph(
    report: Report,
    name: str,
    graph: Graph,
    engine: Engine,
    cases: Iterable[tuple[str, Arrays]],
    *,
    label: str | None = None,
    tolerance: Tolerance | None = None,
) -> None:
    """Compares the traced module in torch and the graph in onnxruntime, case by case.

    Args:
        report: where each comparison is recorded.
        name: the graph's name in the bundle.
        graph: the same in torch.
        engine: runs the bundle, in the variant to be compared.
        cases: inputs, each with its name.
        label: what the report calls it; its name if not given.
        tolerance: how far scores may differ; the report's if not given.
    """
    label = label or name
    for case, inputs in cases:
        expected = run_torch(graph, inputs)
        try:
            found = engine.run(name, inputs)
            difference = compare_outputs(name, found, expected, tolerance or report.tolerance)
        except (GenrecError, ValueError) as error:  # onnxruntime failed, or gave another shape
            case = f"{case}: {str(error)[:500]}"
            difference = Difference(DIFFERENT, DIFFERENT, 0)
        else:
            for key in expected:
                if np.issubdtype(expected[key].dtype, np.floating):
                    report.sample(label, expected[key], found[key])
        report.add("graph", label, case, difference, inputs, _sizes(graph, inputs))


def run_torch(graph: Graph, inputs: Arrays) -> Arrays:
    """What a graph answers in torch.

    Raises:
        ExportError: if the model fails on these inputs, or gives another number of outputs than stated.
    """
    tensors = [
        torch.from_numpy(inputs[spec.name].copy()) for spec in graph.inputs
    ]  # a module may write into its inputs
    try:
        with plain_torch():
            outputs = graph.run(*tensors)
    except Exception as error:  # the model is the caller's: it may raise anything
        shapes = ", ".join(f"{spec.name} {tuple(inputs[spec.name].shape)}" for spec in graph.inputs)
        raise ExportError(f"the model itself fails in torch on {shapes}: {root_cause(error)}") from error
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if len(outputs) != len(graph.outputs) or not all(isinstance(output, torch.Tensor) for output in outputs):
        names = ", ".join(spec.name for spec in graph.outputs)
        given = ", ".join(type(output).__name__ for output in outputs)
        raise ExportError(f"the model must give the tensors {names}; it gave {given}")
    return {spec.name: output.detach().numpy() for spec, output in zip(graph.outputs, outputs, strict=True)}


def _sizes(graph: Graph, inputs: Arrays) -> dict[str, int]:
    """The size of each free axis of a graph's inputs."""
    return {
        axis: inputs[spec.name].shape[place]
        for spec in graph.inputs
        for place, axis in enumerate(spec.axes)
        if isinstance(axis, str)
    }


def check_padding(
    serving: AnyServing, histories: Requests, max_seq_length: int, side: Side, tolerance: Tolerance
) -> tuple[Difference, Arrays]:
    """How far the torch model's scores move when a history is padded to a bucket or to the maximum instead of its own length.

    Returns:
        The largest difference, and the history where it was found.
    """
    worst, where = Difference(0.0, 0.0, -1), {}
    lengths = np.minimum(histories.items.lengths, max_seq_length)
    for length in _spread(np.unique(lengths[lengths > 0])):
        chosen = histories.take(np.flatnonzero(lengths == length)[:PADDED_ROWS])
        bucket = next((size for size in BUCKETS if size >= length), max_seq_length)
        for width in sorted({min(bucket, max_seq_length), max_seq_length} - {length}):
            own, padded = (chosen.inputs(size, side) for size in (length, width))
            difference = _moved(serving, own, padded, tolerance)
            if difference.excess > worst.excess:
                row = slice(difference.row, difference.row + 1)
                worst, where = difference, {name: values[row] for name, values in own.items()}
    return worst, where


def _moved(serving: AnyServing, own: Arrays, padded: Arrays, tolerance: Tolerance) -> Difference:
    """How far the scores at one width are from those at another; infinitely where the model takes one of them only."""
    try:
        with plain_torch():
            before, after = (
                serving.sample_scores(*map(torch.from_numpy, inputs.values())).numpy() for inputs in (own, padded)
            )
    except Exception:  # the model is the caller's: it may raise anything
        return Difference(DIFFERENT, DIFFERENT, 0)
    return compare_values(after, before, tolerance)


def _spread(lengths: Ints) -> list[int]:
    """At most 32 of the lengths, the shortest two and the longest two among them."""
    if len(lengths) <= PADDED_LENGTHS:
        return [int(length) for length in lengths]
    inner = np.linspace(1, len(lengths) - 2, PADDED_LENGTHS - 2).astype(np.int64)
    return [int(length) for length in lengths[[0, *inner, -1]]]
