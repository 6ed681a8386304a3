"""The proof itself: what it compares, that a wrong answer fails it, and that what may differ does not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from genrec.histories import ItemIds, Ragged, RawId
from genrec_export import ExportError, product
from genrec_export.assemble import refusal
from genrec_export.cases import BATCHES, histories_of_every_length, recommender_cases
from genrec_export.histories import NOTHING, Requests, raw_histories
from genrec_export.parity import check_graph, check_padding
from genrec_export.product import CHILD, check_product
from genrec_export.report import Parting, Report
from genrec_export.tracing import Graph
from genrec_runtime.compare import Difference, compare_lists, compare_values
from genrec_runtime.errors import InferenceError
from genrec_runtime.manifest import TensorSpec, Tolerance
from tiny import ITEMS, Tiny

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)
Arrays = dict[str, NDArray[Any]]


class Wrong:
    """An engine that answers as torch does, but for what ``spoil`` does to it."""

    def __init__(self, spoil: Callable[[Arrays], None]) -> None:
        self.spoil = spoil

    def run(self, name: str, inputs: Arrays) -> Arrays:
        states = inputs["item_ids"].astype(np.float32)
        outputs = {"states": states * 2}
        self.spoil(outputs)
        return outputs


GRAPH = Graph(
    run=lambda item_ids: item_ids.float() * 2,
    inputs=(TensorSpec("item_ids", "int64", ("batch", 3)),),
    outputs=(TensorSpec("states", "float32", ("batch", 3)),),
    limits={},
)
CASES = [(f"B={n}", {"item_ids": np.full((n, 3), 500)}) for n in (4, 2, 3)]  # states are 1000


def checked(spoil: Callable[[Arrays], None]) -> Report:
    report = Report(TOLERANCE)
    check_graph(report, "encode", GRAPH, Wrong(spoil), iter(CASES))  # type: ignore[arg-type]  # stands in for an engine
    return report


def add(amount: float) -> Callable[[Arrays], None]:
    """Moves the last entry of the last row."""

    def spoil(outputs: Arrays) -> None:
        outputs["states"][-1, -1] += amount

    return spoil


def test_equal_answers_pass_and_unequal_ones_fail() -> None:
    assert checked(add(0)).passed
    report = checked(add(1))
    assert not report.passed
    assert [cell.row for cell in report.cells] == [3, 1, 2]
    assert report.failing["item_ids"].shape == (2, 3)  # the smallest
    assert "graph  encode    3      1.00e+00       9990.0%  FAILED  B=4" in report.table()
    # 1 over 1e-5 + 1e-5 * 1000 is 99.9 times; the scale is torch's row, 1000
    assert report.cells[0].excess == pytest.approx(1 / (1e-5 + 1e-5 * 1000), rel=1e-3)


def test_the_tolerance_is_that_of_the_row() -> None:
    assert checked(add(0.9 * (1e-5 + 1e-5 * 1000))).passed
    assert not checked(add(1.1 * (1e-5 + 1e-5 * 1000))).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_on_one_side_fails(value: float) -> None:
    def spoil(outputs: Arrays) -> None:
        outputs["states"][0, 0] = value

    report = checked(spoil)
    assert not report.passed
    cells = json.loads(report.to_json())["cells"]
    assert {cell["error"] for cell in cells} == {"inf"}


def test_a_graph_that_fails_or_gives_another_shape_is_a_failed_comparison() -> None:
    def fail(outputs: Arrays) -> None:
        raise InferenceError("no kernel")

    def shorten(outputs: Arrays) -> None:
        outputs["states"] = outputs["states"][:, :2]

    for spoil, message in ((fail, "no kernel"), (shorten, "the shapes (4, 2) and (4, 3) differ")):
        report = checked(spoil)
        assert not report.passed
        assert report.cells[0].case == f"B=4: {message}"
        assert len(report.failing["item_ids"]) == 2


def test_a_model_that_fails_in_torch_is_named_with_its_shapes() -> None:
    def fail(item_ids: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of range")

    graph = Graph(fail, GRAPH.inputs, GRAPH.outputs, {})
    with pytest.raises(ExportError, match=r"fails in torch on item_ids \(4, 3\): RuntimeError: out of range"):
        check_graph(Report(TOLERANCE), "encode", graph, Wrong(add(0)), iter(CASES))  # type: ignore[arg-type]  # stands in for an engine


def test_tied_items_may_change_places_and_others_may_not() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 1.0]])
    items = np.array([[7, 4, 5, 6]])
    swapped, cut = np.array([[7, 5, 4, 6]]), np.array([[7, 4, 5, 9]])
    assert compare_lists(swapped, scores, items, scores, TOLERANCE).same
    assert compare_lists(cut, scores, items, scores, TOLERANCE).same  # 9 may tie with 6, just beyond the end
    assert not compare_lists(np.array([[4, 7, 5, 6]]), scores, items, scores, TOLERANCE).same
    assert not compare_lists(np.array([[7, 4, 9, 6]]), scores, np.array([[7, 4, 5, 6]]), scores, TOLERANCE).same
    assert compare_values(scores + 1e-5, scores, TOLERANCE).same


def test_a_report_is_strict_json_and_passes_only_if_something_was_compared() -> None:
    report = Report(TOLERANCE)
    assert not report.passed
    report.add("graph", "encode", "B=1", Difference(1e-7, 0.5, 0))
    report.add("graph", "encode", "B=2", Difference(2e-7, 0.25, 1))
    assert report.passed
    assert report.summary() == {"graph:encode": {"cells": 2, "error": 1e-7, "excess": 0.5}}
    report.add("product", "recommend", "histories", Difference(np.inf, np.inf, 3))
    content = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert [cell["excess"] for cell in content["cells"]] == [0.5, 0.25, "inf"]
    assert content["passed"] is False
    assert content["first_parting"] is None
    lines = str(refusal(report)).splitlines()
    assert lines[0] == "parity failed at product level: recommend, histories, row 3"
    assert lines[1] == "the answers differ by inf, inf times the tolerance"
    assert len(lines) == 3


def test_a_report_says_where_inside_the_model_the_two_part() -> None:
    report = Report(TOLERANCE, parting=Parting("layers.1.mix", "Linear", np.inf, "layers.1.norm"))
    assert json.loads(report.to_json(), parse_constant=pytest.fail)["first_parting"] == {
        "path": "layers.1.mix",
        "kind": "Linear",
        "error": "inf",
        "after": "layers.1.norm",
        "end_agrees": False,
        "text": "the first part to differ is layers.1.mix (Linear): error inf; layers.1.norm, before it, agrees",
    }


def test_the_failing_input_kept_is_the_smallest_of_a_graph_before_any_history() -> None:
    report = Report(TOLERANCE)
    wrong = Difference(1.0, 2.0, 0)
    assert (report.failing, report.failing_graph) == ({}, "")
    for level, what, size, kept in (
        ("product", "recommend", 2, 2),
        ("graph", "score", 9, 9),
        ("graph", "recommend", 5, 5),
        ("graph", "encode", 7, 5),
        ("product", "recommend", 1, 5),
    ):
        report.add(level, what, "", wrong, {"x": np.zeros(size)})
        assert len(report.failing["x"]) == kept
    assert report.failing_graph == "recommend"
    report.add("graph", "encode", "", Difference(0.5, 0.5, 0), {"x": np.zeros(1)})  # passes
    assert len(report.failing["x"]) == 5


def test_a_cell_knows_the_sizes_of_its_inputs(tiny: Tiny) -> None:
    sizes = {cell.what: cell.sizes for cell in tiny.exported.report.cells if cell.case.startswith("B=32 L=5 full")}
    assert sizes == {
        "recommend": {"batch": 32, "length": 5, "excluded": 5},
        "score": {"batch": 32, "length": 5, "candidates": 1},
        "encode": {"batch": 32, "length": 5},
    }


def test_the_exports_own_report_is_in_the_bundle(tiny: Tiny) -> None:
    content = json.loads((tiny.path / "report.json").read_text())
    assert content["passed"]
    assert content["tolerance"] == {"atol": 1e-5, "rtol": 1e-5}
    compared = {(cell["level"], cell["what"]) for cell in content["cells"]}
    assert compared == {
        ("padding", "torch scores"),
        ("graph", "recommend"),
        ("graph", "score"),
        ("graph", "encode"),
        ("graph", "item_vectors"),
        ("graph", "similar"),
        ("product", "recommend"),
    }
    card = (tiny.path / "README.md").read_text()
    assert tiny.exported.report.table() in card


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("graph", ["recommend", "score", "encode"])
def test_the_grid_covers_batches_lengths_and_fillings(graph: str, side: Any) -> None:
    histories = Requests(Ragged.from_rows([[1, 2, 3, 4, 5], [9]]))
    seen = {}
    for case, inputs in recommender_cases(graph, 9, [1, 2, 5], side, histories):
        ids = inputs["item_ids"]
        assert ids.min() >= 0
        assert ids.max() <= 9
        seen[case] = inputs
    shapes = {inputs["item_ids"].shape for inputs in seen.values()}
    assert shapes == {(batch, length) for batch in (1, 2, 5, 32) for length in (1, 2, 5)}
    assert BATCHES == (1, 2, 5, 32)
    dead = [inputs["item_ids"] for case, inputs in seen.items() if "all padding" in case]
    assert len(dead) == 12 * (2 if graph == "recommend" else 1)
    assert not any(ids.any() for ids in dead)
    end = -1 if side == "left" else 0
    single = [inputs["item_ids"] for case, inputs in seen.items() if "one item" in case]
    assert all((np.count_nonzero(ids, axis=1) == 1).all() and ids[:, end].all() for ids in single)
    if graph == "recommend":
        assert {inputs["exclude"].shape[1] for inputs in seen.values()} == {0, 1, 2, 5}
        assert {bool(inputs["available"].all()) for inputs in seen.values()} == {True, False}
    if graph == "score":
        assert min(inputs["candidates"].min() for inputs in seen.values()) == 0  # padding's column, too


def test_every_length_is_tried_and_real_histories_as_they_stand() -> None:
    items = ItemIds(["a", "b", "c"])

    def histories_tried(given: list[list[RawId]], longest: int) -> list[list[RawId]]:
        raw = raw_histories(given, None, None)
        return [history.items for history in histories_of_every_length(items, raw, longest, NOTHING)]

    tried = histories_tried([["a", "b", "a"], [], ["?"], ["c", "?"]], 6)
    assert tried[:2] == [["c", "?"], ["a", "b", "a"]]  # by length of what is known; none without a known item
    assert [len(history) for history in tried[2:]] == [1, 2, 3, 4, 5, 6]
    assert all(items.index(history).all() for history in tried[2:])
    tried = histories_tried([["a"] * (1 + n % 40) for n in range(2000)], 2)
    assert len(tried) == 512 + 2
    assert {len(history) for history in tried} == set(range(1, 41))


def test_padding_is_tried_at_every_length_up_to_the_window(tiny: Tiny) -> None:
    widths: list[tuple[int, int]] = []

    class Watched:
        def sample_scores(self, item_ids: torch.Tensor) -> torch.Tensor:
            widths.append((int((item_ids[0] > 0).sum()), item_ids.shape[1]))
            return item_ids.float().sum(dim=1, keepdim=True)

    histories = Requests(Ragged.from_rows([[1] * n for n in range(1, 80)]))
    difference, _ = check_padding(Watched(), histories, 40, "left", TOLERANCE)  # type: ignore[arg-type]  # stands in for a model
    assert difference.same
    lengths = {length for length, _ in widths}
    assert {1, 2, 39} <= lengths
    assert len(lengths) == 32 - 1  # of 39; at 40 there is nothing to pad
    assert {width for length, width in widths if length == 2} == {2, 16, 40}  # its own, its bucket, the window


def test_the_bundle_is_served_where_torch_cannot_be_imported(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    run = subprocess.run

    def watched(command: list[str], **options: Any) -> Any:
        ran.append(command)
        return run(command, **options)

    monkeypatch.setattr(product.subprocess, "run", watched)
    report = Report(TOLERANCE)
    check_product(
        report,
        tiny.path,
        tiny.torch_path.catalogue.items,
        raw_histories([["item 03"], ["item 05", "item 30"]], None, None),
        NOTHING,
        lambda rows: tiny.torch_path.recommend(rows, 20),
        20,
    )
    assert report.passed
    assert [command[:3] for command in ran] == [[sys.executable, "-c", CHILD]]
    before, _, _ = CHILD.partition("from genrec_runtime")
    child = run([sys.executable, "-c", before + "import torch"], capture_output=True, text=True)
    assert child.returncode == 1
    assert "import of torch halted" in child.stderr


def test_a_bundle_that_cannot_be_served_is_said(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"could not be served in a process without torch: error: .*no bundle at"):
        check_product(
            Report(TOLERANCE),
            tmp_path / "none",
            ItemIds(ITEMS),
            raw_histories([["item 03"]], None, None),
            NOTHING,
            lambda rows: [],
            20,
        )
