"""Level two of the proof: the trainer's own path against the written bundle, raw ids in and out, in a process without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ints, ItemIds, RawId
from genrec_export.errors import ExportError
from genrec_export.histories import History, Reads, keywords
from genrec_export.report import Arrays, Report
from genrec_runtime.compare import Difference, compare_lists

Reference = Callable[
    ..., Sequence[tuple[Sequence[RawId], Sequence[float]]]
]  # of histories, and by keyword what is read
CHILD = "import sys; sys.modules['torch'] = None; from genrec_runtime.cli import main; main()"
ROWS = 128  # histories a call of the reference, and a cell of the report
LEAST = 10  # a reference may give shorter lists than the bundle, but not shorter than this

Row = tuple[Ints, NDArray[np.float64]]  # item indices and scores, best first


def check_product(
    report: Report,
    folder: Path,
    items: ItemIds,
    histories: list[History],
    reads: Reads,
    reference: Reference,
    k: int,
) -> None:
    """Compares ``reference`` with the written bundle.

    Args:
        report: where the comparison is recorded.
        folder: the written bundle.
        items: the catalogue.
        histories: raw histories, none empty.
        reads: what the model reads beside their items.
        reference: raw histories, and by keyword what is read, to lists of (raw ids, scores), best first.
        k: how many items to compare at most.

    Raises:
        ExportError: if the answers of ``reference`` are no ranked lists, or the bundle cannot be served.
    """
    served = [
        _ranked(items, answer["items"], answer["scores"])
        for answer in _serve(folder, [history.line(reads) for history in histories], k)
    ]
    for begin in range(0, len(histories), ROWS):
        rows = range(begin, min(begin + ROWS, len(histories)))
        expected = _ask(reference, items, histories[rows.start : rows.stop], reads)
        differences = {}
        for row, theirs in zip(rows, expected, strict=True):
            length = min(k, len(theirs[0]))
            if length < min(LEAST, k, len(served[row][0])):
                raise ExportError(
                    f"reference gave {length} items after {_show(histories[row].items)}, too few to compare with the bundle's "
                    f"{len(served[row][0])}: give at least {min(LEAST, k)}, or all that may be recommended"
                )
            lists = (*_filled(served[row], length), *_filled(theirs, length))
            differences[row] = compare_lists(*lists, report.tolerance)
            report.sample("product", lists[3], lists[1])
        _record(report, histories, reads, differences)


def _record(report: Report, histories: list[History], reads: Reads, differences: dict[int, Difference]) -> None:
    """One cell for several histories, and the shortest of those that failed."""
    row, worst = max(differences.items(), key=lambda pair: pair[1].excess)
    failed = [histories[i] for i, difference in differences.items() if not difference.same]
    inputs = _evidence(min(failed, key=lambda history: len(history.items)), reads) if failed else None
    longest = max(len(histories[i].items) for i in differences)
    case = f"histories {min(differences)}..{max(differences)}, longest {longest}"
    report.add("product", "recommend", case, Difference(worst.error, worst.excess, row), inputs)


def _evidence(history: History, reads: Reads) -> Arrays:
    """A raw history as arrays: ``history``, and what is read of it; a user whom nobody knows is left out."""
    told = {name: values[0] for name, values in keywords(reads, [history]).items()}
    return {"history": np.array(history.items)} | {
        name: np.array(value) for name, value in told.items() if value is not None
    }


def _ask(reference: Reference, items: ItemIds, histories: list[History], reads: Reads) -> list[Row]:
    """The reference's answers, each a ranked list."""
    answers = reference([history.items for history in histories], **keywords(reads, histories))
    if len(answers) != len(histories):
        raise ExportError(f"reference gave {len(answers)} answers for {len(histories)} histories")
    rows = []
    for history, answer in zip(histories, answers, strict=True):
        try:
            ids, scores = answer
            rows.append(_ranked(items, ids, scores))
        except (TypeError, ValueError) as error:
            raise ExportError(
                f"reference must answer with (raw ids, scores), best first; its answer to {_show(history.items)}: {error}"
            ) from error
    return rows


def _ranked(items: ItemIds, ids: Sequence[RawId], scores: Sequence[float]) -> Row:
    """One list without what is scored -inf, which is no answer.

    Raises:
        TypeError, ValueError: if it is no ranked list of items.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(ids),):
        raise ValueError(f"{len(ids)} ids with scores of shape {values.shape}")
    real = values != -np.inf
    kept, values = [raw for raw, keep in zip(ids, real, strict=True) if keep], values[real]
    indices = items.index(kept)
    if 0 in indices:
        raise ValueError(f"{kept[int(indices.argmin())]!r} is not in item_ids")
    if len(set(kept)) != len(kept):
        raise ValueError("an item occurs twice")
    if np.isnan(values).any():
        raise ValueError("a score is NaN")
    if (np.diff(values) > 0).any():
        raise ValueError("the scores rise")
    return indices, values


def _filled(row: Row, length: int) -> Row:
    """The first ``length`` places as matrices of one row, -inf where there are fewer."""
    indices, scores = np.zeros((1, length), np.int64), np.full((1, length), -np.inf)
    given = min(length, len(row[0]))
    indices[0, :given], scores[0, :given] = row[0][:given], row[1][:given]
    return indices, scores


def _serve(folder: Path, lines: list[str], k: int) -> list[dict[str, Any]]:
    """The bundle's answers to lines of JSON, by ``genrec-runtime recommend`` in a process where torch cannot be imported."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "histories.jsonl"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        arguments = ["recommend", str(folder), "--file", str(file), "--json", "--k", str(k), "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, env=environment
        )
    answers = [json.loads(line) for line in child.stdout.splitlines()] if child.returncode == 0 else []
    if len(answers) != len(lines):
        complaint = (child.stderr.strip() or "it answered nothing").splitlines()[-1]
        raise ExportError(f"the bundle could not be served in a process without torch: {complaint}")
    return answers


def _show(history: list[RawId]) -> str:
    shown = ", ".join(repr(item) for item in history[-4:])
    return f"[{'..., ' if len(history) > 4 else ''}{shown}]"
