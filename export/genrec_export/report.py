"""The report of an export: every comparison that was made, the smallest input that failed, and where inside the model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.compare import Difference
from genrec_runtime.manifest import Tolerance

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

PAIRS_A_CELL = 16  # pairs of values that are kept of one comparison, at most
PAIRS = 2000  # pairs of values in a picture, at most


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        level: "graph" (equal tensors), "padding" (one history, several widths), "product" (raw ids, a process of its own) or
            "variant" (lists of a cheaper form against those of fp32).
        what: the graph, or what was compared.
        case: batch, length and filling.
        error: the largest difference of a score.
        excess: that over the tolerance; more than 1 fails.
        row: the row where it was found.
        sizes: the size of each free axis of the inputs, such as "batch" and "length"; empty at other levels.
    """

    level: str
    what: str
    case: str
    error: float
    excess: float
    row: int
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the two answers are the same within the tolerance."""
        return self.excess <= 1.0


@dataclass(frozen=True)
class Parting:
    """Where torch and onnxruntime part inside a model, or that they do not before its end.

    Attributes:
        path: the first submodule whose output differs; "" where all that could be compared agree.
        kind: its class.
        error: the largest difference of its output.
        after: the submodule that finished last among those that agree before it; "" where there is none.
        end_agrees: even the graph's own outputs agree while onnxruntime has to keep those of its parts.
    """

    path: str
    kind: str
    error: float
    after: str
    end_agrees: bool = False

    @property
    def text(self) -> str:
        """One line for people."""
        if self.path:
            before = f"; {self.after}, before it, agrees" if self.after else ""
            return f"the first part to differ is {self.path} ({self.kind}): error {self.error:.3g}{before}"
        if self.end_agrees:
            return "every part agrees, and so does the end while parts are watched: suspect onnxruntime's fusing across them"
        return f"every part agrees; the difference arises after {self.after}"


@dataclass
class Report:
    """All comparisons of one export.

    Attributes:
        tolerance: how far scores may differ.
        cells: the comparisons, in order.
        failing: the smallest input that failed, by name, of a graph before a raw history; empty where none did.
        failing_graph: the graph that ``failing`` is the input of; "" where it is none of a graph.
        parting: where inside the model the two part on ``failing``, once somebody has looked.
        pairs: by graph, and "product", a few values of each comparison, (N, 2): torch's and onnxruntime's. For pictures only.
    """

    tolerance: Tolerance
    cells: list[Cell] = field(default_factory=list)
    failing: Arrays = field(default_factory=dict)
    failing_graph: str = ""
    parting: Parting | None = None
    pairs: dict[str, list[Floats]] = field(default_factory=dict)

    def add(
        self,
        level: str,
        what: str,
        case: str,
        difference: Difference,
        inputs: Arrays | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Records one comparison, and its input if it fails and is simpler than the one kept."""
        cell = Cell(level, what, case, difference.error, difference.excess, difference.row, sizes or {})
        self.cells.append(cell)
        graph = what if level == "graph" else ""
        if inputs and not cell.passed and (not self.failing or self._simpler(inputs, graph)):
            self.failing, self.failing_graph = inputs, graph

    def sample(self, what: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Keeps a few of the values that were compared, those of the largest difference among them; none that is not finite.

        Args:
            what: the graph, or "product".
            expected: torch's values.
            found: onnxruntime's, of the same shape.
        """
        pairs = np.stack([expected.ravel(), found.ravel()], axis=1).astype(np.float64)  # (N, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if len(pairs):
            self.pairs.setdefault(what, []).append(_thinned(pairs, PAIRS_A_CELL))

    def sampled(self) -> dict[str, Floats]:
        """The values kept, thinned to at most 2,000 in all: by graph, and "product", (N, 2), torch's and onnxruntime's."""
        return {what: _thinned(np.concatenate(kept), PAIRS // len(self.pairs)) for what, kept in self.pairs.items()}

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

    def to_json(self, refused: str = "") -> bytes:
        """All cells, one a line, for ``report.json``; an infinite difference is written as a string.

        Args:
            refused: why nothing was published; it may be another reason than a comparison.
        """
        parting = self.parting and {**_plain(self.parting), "text": self.parting.text}
        head = {
            "passed": self.passed and not refused,
            "refused": refused,
            "tolerance": asdict(self.tolerance),
            "first_parting": parting,
        }
        cells = ",\n".join(json.dumps(_plain(cell), separators=(",", ":"), allow_nan=False) for cell in self.cells)
        return f'{json.dumps(head, allow_nan=False)[:-1]}, "cells": [\n{cells}\n]}}\n'.encode()

    def table(self) -> str:
        """The worst of each level and graph, for a terminal."""
        rows = [("level", "compared", "cells", "largest error", "of tolerance", "worst case")]
        for cell, count in self.worst():
            excess = f"{cell.excess:.1%}" + ("" if cell.passed else "  FAILED")
            rows.append((cell.level, cell.what, str(count), f"{cell.error:.2e}", excess, cell.case))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _simpler(self, inputs: Arrays, graph: str) -> bool:
        """Whether an input says more than the one kept: one of a graph before a raw history, then the smaller."""
        return (not graph, _size(inputs)) < (not self.failing_graph, _size(self.failing))


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of an ``.npz`` file: the same arrays, the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _size(inputs: Arrays) -> int:
    return sum(array.size for array in inputs.values())


def _plain(record: Cell | Parting) -> dict[str, Any]:
    """The fields as strict JSON has them; floats with the six digits that mean something."""
    return {
        key: (float(f"{value:.6g}") if np.isfinite(value) else str(value)) if isinstance(value, float) else value
        for key, value in asdict(record).items()
    }


def _thinned(pairs: Floats, count: int) -> Floats:
    """At most ``count`` rows, spread evenly, among them the one whose two values differ most."""
    spread = np.linspace(0, len(pairs) - 1, min(count - 1, len(pairs))).astype(np.int64)
    widest = int(np.abs(pairs[:, 0] - pairs[:, 1]).argmax())
    chosen: Floats = pairs[np.union1d(spread, [widest])]
    return chosen
