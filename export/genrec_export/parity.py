"""The proof: torch and the served bundle give the same answers, tensor by tensor and history by history."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genrec.histories import Ints, ItemIds, Ragged, RawId, Side
from genrec_export.errors import ExportError
from genrec_export.graphs import Serving
from genrec_export.tracing import Graph, to_numpy
from genrec_runtime.compare import Difference, compare_lists, compare_values
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Tolerance

Reference = Callable[[list[list[RawId]]], Sequence[tuple[Sequence[RawId], Sequence[float]]]]
Arrays = dict[str, NDArray[Any]]
BUCKETS = (16, 32, 64, 128, 256, 512)
CHILD = "import sys; sys.modules['torch'] = None; from genrec_runtime.cli import main; main()"


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        level: "graph" (equal tensors), "padding" (one history, several widths) or "product" (raw ids, a process of its own).
        what: the graph, or what was compared.
        case: batch, length and filling.
        error: the largest difference of a score.
        excess: that over the tolerance; more than 1 fails.
        row: the row where it was found.
    """

    level: str
    what: str
    case: str
    error: float
    excess: float
    row: int

    @property
    def passed(self) -> bool:
        """Whether the two answers are the same within the tolerance."""
        return self.excess <= 1.0


@dataclass
class Report:
    """All comparisons of one export.

    Attributes:
        tolerance: how far scores may differ.
        cells: the comparisons, in order.
        failing: the smallest input that failed, by name; empty where none did.
    """

    tolerance: Tolerance
    cells: list[Cell] = field(default_factory=list)
    failing: Arrays = field(default_factory=dict)

    def add(self, level: str, what: str, case: str, difference: Difference, inputs: Arrays | None = None) -> None:
        """Records one comparison, and its input if it fails and is smaller than the one kept."""
        cell = Cell(level, what, case, difference.error, difference.excess, difference.row)
        self.cells.append(cell)
        if inputs and not cell.passed and (not self.failing or _size(inputs) < _size(self.failing)):
            self.failing = inputs

    @property
    def passed(self) -> bool:
        """Whether every comparison passed, and there were any."""
        return bool(self.cells) and all(cell.passed for cell in self.cells)

    def worst(self) -> list[tuple[Cell, int]]:
        """For each level and graph the worst cell and how many cells it stands for."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.level, cell.what), []).append(cell)
        return [(max(cells, key=lambda cell: cell.excess), len(cells)) for cells in groups.values()]

    def summary(self) -> dict[str, Any]:
        """The worst of each level and graph, for the manifest."""
        return {
            f"{cell.level}:{cell.what}": {"cells": count, "error": cell.error, "excess": round(cell.excess, 6)}
            for cell, count in self.worst()
        }

    def to_json(self) -> bytes:
        """All cells, for ``report.json``; an infinite difference is written as a string."""
        cells = [{k: _plain(v) for k, v in asdict(cell).items()} for cell in self.cells]
        content = {"passed": self.passed, "tolerance": asdict(self.tolerance), "cells": cells}
        return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"

    def table(self) -> str:
        """The worst of each level and graph, for a terminal."""
        rows = [("level", "compared", "cells", "largest error", "of tolerance", "worst case")]
        for cell, count in self.worst():
            excess = f"{cell.excess:.1%}" + ("" if cell.passed else "  FAILED")
            rows.append((cell.level, cell.what, str(count), f"{cell.error:.2e}", excess, cell.case))
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def check_graph(report: Report, name: str, graph: Graph, engine: Engine, cases: Iterator[tuple[str, Arrays]]) -> None:
    """Level one: the traced module in torch and the graph in onnxruntime, on equal tensors."""
    for case, inputs in cases:
        found = engine.run(name, inputs)
        expected = run_torch(graph, inputs)
        if name == "recommend":
            lists = (found["items"], found["scores"], expected["items"], expected["scores"])
            difference = compare_lists(*lists, report.tolerance)
        else:
            pairs = [compare_values(found[output], expected[output], report.tolerance) for output in expected]
            difference = max(pairs, key=lambda pair: pair.excess)
        report.add("graph", name, case, difference, inputs)


def run_torch(graph: Graph, inputs: Arrays) -> Arrays:
    """What a graph answers in torch."""
    with torch.no_grad():
        outputs = graph.run(*[torch.from_numpy(inputs[spec.name]) for spec in graph.inputs])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {spec.name: to_numpy(output) for spec, output in zip(graph.outputs, outputs, strict=True)}


def padding_difference(
    serving: Serving, histories: Ragged, max_seq_length: int, side: Side, tolerance: Tolerance
) -> Difference:
    """How far the torch model's scores move when a history is padded to a bucket or to the maximum instead of its own length."""
    worst = Difference(0.0, 0.0, -1)
    lengths = np.minimum(histories.lengths, max_seq_length)
    for length in sorted(set(lengths.tolist()) - {0}):
        rows = np.flatnonzero(lengths == length)[:8]
        chosen = histories.slices(rows, np.zeros(len(rows), np.int64), histories.lengths[rows])
        with torch.no_grad():
            own = _all_scores(serving, chosen.pad(length, side))
            for width in {
                min(max_seq_length, next((b for b in BUCKETS if b >= length), max_seq_length)),
                max_seq_length,
            }:
                difference = compare_values(_all_scores(serving, chosen.pad(width, side)), own, tolerance)
                worst = max(worst, difference, key=lambda difference: difference.excess)
    return worst


def _all_scores(serving: Serving, item_ids: Ints) -> NDArray[Any]:
    return to_numpy(serving.scores(serving.encode(torch.from_numpy(item_ids))))[:, 1:]


def check_product(
    report: Report, folder: Path, items: ItemIds, histories: list[list[RawId]], reference: Reference, k: int
) -> None:
    """Level two: the trainer's own path against the written bundle, raw ids in and out, in a process without torch.

    Args:
        report: where the comparison is recorded.
        folder: the written bundle.
        items: the catalogue.
        histories: raw histories, none empty.
        reference: raw histories to lists of (raw ids, scores), best first.
        k: how many items to compare at most.
    """
    expected = reference(histories)
    if len(expected) != len(histories):
        raise ExportError(f"reference gave {len(expected)} answers for {len(histories)} histories")
    served = _serve(folder, histories, k)
    for begin in range(0, len(histories), 128):
        rows = range(begin, min(begin + 128, len(histories)))
        lengths = [min(k, len(expected[row][0])) for row in rows]
        ours = _matrix(items, [(served[row]["items"], served[row]["scores"]) for row in rows], lengths, k)
        theirs = _matrix(items, [expected[row] for row in rows], lengths, k)
        difference = compare_lists(*ours, *theirs, report.tolerance)
        longest = max(len(histories[row]) for row in rows)
        row = begin + difference.row
        inputs = {"history": np.array(histories[row])} if difference.row >= 0 else None
        shown = Difference(difference.error, difference.excess, row)
        report.add("product", "recommend", f"histories {begin}..{rows[-1]}, longest {longest}", shown, inputs)


def histories_of_every_length(histories: list[list[RawId]], longest: int) -> list[list[RawId]]:
    """The given histories, and for each length from 1 to ``longest`` one cut or joined from them."""
    real = [history for history in histories if history]
    if not real:
        raise ExportError("histories holds no history with an item; give a few hundred real ones")
    made: list[list[RawId]] = []
    flat = [item for history in sorted(real, key=len, reverse=True) for item in history]
    while len(flat) < 2 * longest:
        flat = flat + flat
    for length in range(1, longest + 1):
        fitting = [history for history in real if len(history) >= length]
        begin = (length * 7) % (len(flat) - length)
        made.append(fitting[length % len(fitting)][-length:] if fitting else flat[begin : begin + length])
    return real[:512] + made


def recommender_cases(
    graph: str, num_items: int, lengths: Sequence[int], side: Side, histories: Ragged
) -> Iterator[tuple[str, Arrays]]:
    """The grid of level one for a recommender's graph: batch, length, filling, exclusions."""
    random = np.random.default_rng(0)
    for length in lengths:
        for batch in (1, 2, 5, 32):
            for filling in ("full", "ragged", "one item", "all padding", "repeated", "real"):
                item_ids = _fill(filling, batch, length, num_items, side, histories, random)
                case = f"B={batch} L={length} {filling}"
                if graph == "recommend":
                    for exclusions in ("none", "history"):
                        exclude = item_ids if exclusions == "history" else np.zeros((batch, 0), np.int64)
                        available = random.random(num_items + 1) > (0.0 if exclusions == "none" else 0.2)
                        yield (
                            f"{case}, exclude {exclusions}",
                            {"item_ids": item_ids, "exclude": exclude, "available": available},
                        )
                elif graph == "score":
                    candidates = random.integers(0, num_items + 1, (batch, 1 + length % 5))
                    yield case, {"item_ids": item_ids, "candidates": candidates}
                else:
                    yield case, {"item_ids": item_ids}


def _fill(
    filling: str, batch: int, length: int, num_items: int, side: Side, histories: Ragged, random: np.random.Generator
) -> Ints:
    if filling == "real":
        rows = np.arange(batch) % len(histories)
        return histories.slices(rows, np.zeros(batch, np.int64), histories.lengths[rows]).pad(length, side)
    ids = random.integers(1, num_items + 1, (batch, length))
    if filling == "repeated":
        return np.repeat(ids[:, :1], length, axis=1)
    kept = {"full": length, "ragged": None, "one item": 1, "all padding": 0}[filling]
    lengths = random.integers(1, length + 1, batch) if kept is None else np.full(batch, kept)
    return Ragged.from_rows([row[:n] for row, n in zip(ids, lengths, strict=True)]).pad(length, side)


def _serve(folder: Path, histories: list[list[RawId]], k: int) -> list[dict[str, Any]]:
    """The bundle's answers, by ``genrec-runtime recommend`` in a process where torch cannot be imported."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "histories.jsonl"
        file.write_text("".join(json.dumps(history) + "\n" for history in histories))
        arguments = ["recommend", str(folder), "--file", str(file), "--json", "--k", str(k), "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, env=environment
        )
    if child.returncode != 0:
        raise ExportError(f"the bundle could not be served: {child.stderr.strip().splitlines()[-1:]}")
    return [json.loads(line) for line in child.stdout.splitlines()]


def _matrix(
    items: ItemIds, rows: Sequence[tuple[Sequence[RawId], Sequence[float]]], lengths: list[int], k: int
) -> tuple[Ints, NDArray[np.float64]]:
    indices = np.zeros((len(rows), k), np.int64)
    scores = np.full((len(rows), k), -np.inf)
    for i, ((ids, values), length) in enumerate(zip(rows, lengths, strict=True)):
        indices[i, : len(ids[:length])] = items.index(list(ids[:length]))
        scores[i, : len(values[:length])] = np.asarray(values[:length], dtype=np.float64)
    return indices, scores


def _size(inputs: Arrays) -> int:
    return sum(array.size for array in inputs.values())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
