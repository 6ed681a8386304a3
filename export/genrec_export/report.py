"""The report of an export: every comparison that was made, and the smallest input that failed."""

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
        cells = [{key: _plain(value) for key, value in asdict(cell).items()} for cell in self.cells]
        content = {"passed": self.passed, "tolerance": asdict(self.tolerance), "cells": cells}
        return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"

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


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of an ``.npz`` file: the same arrays, the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _size(inputs: Arrays) -> int:
    return sum(array.size for array in inputs.values())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
