"""The picture of a report: what is drawn. Looks are for eyes, not for tests."""

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_export.plot import FAILED, plot_report, report_figure
from genrec_export.report import PAIRS, PAIRS_A_CELL, Parting, Report
from genrec_runtime.compare import Difference
from genrec_runtime.manifest import Tolerance
from tiny import Tiny

pytest.importorskip("seaborn")

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)
INFINITE = float("inf")


def add(report: Report, what: str, excess: float, **sizes: int) -> None:
    report.add("graph", what, str(sizes), Difference(excess * 1e-5, excess, 0), None, sizes)


def encoded() -> Report:
    """A graph over batches 1, 2, 32 and lengths 1, 5, two cases each; the second has half the difference."""
    report = Report(TOLERANCE)
    for i, (batch, length) in enumerate(itertools.product((1, 2, 32), (1, 5))):
        add(report, "encode", 0.1 * i, batch=batch, length=length)
        add(report, "encode", 0.05 * i, batch=batch, length=length)
    return report


def maps(figure: Any) -> list[Any]:
    """The panels that hold a heat map."""
    return [axes for axes in figure.axes if axes.collections and axes.get_label() != "<colorbar>" and axes.texts]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def labels(axes: Any) -> tuple[list[str], list[str]]:
    return tuple([label.get_text() for label in side] for side in (axes.get_yticklabels(), axes.get_xticklabels()))  # type: ignore[return-value]  # two of them


def all_text(figure: Any) -> str:
    return "\n".join(text.get_text() for part in figure.subfigs for text in part.texts)


def test_a_heat_map_shows_the_largest_difference_of_each_size() -> None:
    (axes,) = maps(report_figure(encoded()))
    assert texts(axes) == ["0", "10.0%", "20.0%", "30.0%", "40.0%", "50.0%"]  # by batch, then by length
    assert labels(axes) == (["1", "2", "32"], ["1", "5"])
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("batch", "length")
    assert axes.get_title() == "encode: 12 comparisons, worst 50.0%"
    shown = axes.collections[0].get_array()
    np.testing.assert_allclose(shown.ravel()[1:], [0.1, 0.2, 0.3, 0.4, 0.5])
    bar = next(axes for axes in axes.figure.axes if axes.get_label() == "<colorbar>")
    assert bar.get_yscale() == "log"
    assert bar.get_ylim()[1] == 1.0  # the tolerance is the end of the blues


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_any_number_of_graphs_has_a_panel_each(count: int) -> None:
    report = Report(TOLERANCE)
    for i in range(count):
        add(report, f"graph {i}", 0.5, batch=2, length=3)
    panels = maps(report_figure(report))
    assert [axes.get_title() for axes in panels] == [f"graph {i}: 1 comparisons, worst 50.0%" for i in range(count)]


def test_the_length_is_what_counts_where_there_are_other_axes() -> None:
    report = Report(TOLERANCE)
    add(report, "recommend", 0.2, batch=1, length=3, excluded=0)
    add(report, "recommend", 0.4, batch=1, length=3, excluded=3)
    (axes,) = maps(report_figure(report))
    assert texts(axes) == ["40.0%"]


@pytest.mark.parametrize(
    ("sizes", "named", "columns"),
    [
        ({"query_length": (1, 15), "key_length": (2, 16)}, "query length × key length", ["1 × 2", "15 × 16"]),
        ({"candidates": (3, 7)}, "candidates", ["3", "7"]),
        ({}, "no other axis is free", [""]),
    ],
)
def test_without_a_length_all_other_axes_make_the_columns(
    sizes: Mapping[str, tuple[int, int]], named: str, columns: list[str]
) -> None:
    report = Report(TOLERANCE)
    for place in (0, 1):
        add(report, "module", 0.5, batch=4, **{axis: both[place] for axis, both in sizes.items()})
    (axes,) = maps(report_figure(report))
    assert axes.get_xlabel() == named
    assert labels(axes) == (["4"], columns)


def test_of_very_many_columns_only_some_are_named() -> None:
    report = Report(TOLERANCE)
    for first, second in itertools.product(range(8), range(8)):
        add(report, "module", 0.5, batch=1, first=first, second=second)
    axes = report_figure(report).axes[0]
    assert axes.collections[0].get_array().shape == (1, 64)  # type: ignore[union-attr]  # a mesh has values
    assert not axes.texts
    assert labels(axes)[1] == ["0 × 0", "0 × 4"] + [f"{i} × {j}" for i in range(1, 8) for j in (0, 4)]


def test_cells_beyond_the_tolerance_and_without_a_number_stand_out() -> None:
    from matplotlib.colors import to_rgba

    report = Report(TOLERANCE)
    add(report, "encode", 0.9, batch=1, length=1)
    add(report, "encode", 25.0, batch=1, length=2)
    add(report, "encode", INFINITE, batch=2, length=1)  # and none of batch 2 with length 2
    report.parting = Parting("layers.1.mix", "Linear", 0.12, "layers.1.norm")
    figure = report_figure(report)
    (axes,) = maps(figure)
    assert texts(axes) == ["90.0%", "25×", "∞"]
    mesh = axes.collections[0]
    mesh.update_scalarmappable()
    failed = [tuple(colour) == to_rgba(FAILED) for colour in mesh.get_facecolors()]
    assert failed == [False, True, True, False]
    assert "Torch against onnxruntime: different in 2 of 3 comparisons" in all_text(figure)
    assert report.table() in all_text(figure)
    assert report.parting.text in all_text(figure)


def test_values_of_both_sides_are_drawn_with_their_differences() -> None:
    report = encoded()
    torchs = np.array([[0.5, 2.0, -1.0], [3.0, -np.inf, 4.0]])
    theirs = torchs + np.array([[0.0, 1e-6, 0.0], [1e-7, 0.0, 1e-3]])
    report.sample("encode", torchs, theirs)
    report.sample("product", np.array([7.0]), np.array([7.0]))
    left, right = report_figure(report).axes[-2:]
    encode, product = (points.get_offsets() for points in left.collections)
    finite = np.isfinite(torchs)
    np.testing.assert_array_equal(encode, np.stack([torchs[finite], theirs[finite]], axis=1))
    np.testing.assert_array_equal(product, [[7.0, 7.0]])
    assert (left.get_xlabel(), left.get_ylabel()) == ("torch", "onnxruntime")
    assert left.get_title() == "6 of the values compared"
    legend = left.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["encode (5)", "product (1)", "equal"]
    assert right.get_xscale() == "log"
    assert right.get_title() == "differences; 50% of the values are equal to the last bit"  # 3 of 6
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in right.patches if bar.get_height()]  # type: ignore[attr-defined]  # rectangles
    assert len(bars) == 3
    for (low, high), gap in zip(sorted(bars), (1e-7, 1e-6, 1e-3), strict=True):
        assert low <= gap * 1.001  # 3.0 + 1e-7 is rounded
        assert high >= gap * 0.999
    (line,) = right.lines
    assert list(line.get_xdata()) == [1e-5, 1e-5]  # type: ignore[arg-type]  # two of them


def test_values_that_are_all_equal_can_be_drawn(tmp_path: Path) -> None:
    report = encoded()
    report.sample("encode", np.arange(3.0), np.arange(3.0))
    plot_report(report, tmp_path / "equal.png")


def test_a_report_refused_before_any_graph_ran_is_its_table(tmp_path: Path) -> None:
    report = Report(TOLERANCE)
    report.add("padding", "torch scores", "case", Difference(INFINITE, INFINITE, 0))
    figure = report_figure(report)
    assert not figure.axes
    assert report.table() in all_text(figure)
    plot_report(report, tmp_path / "padding.svg")
    assert "<svg" in (tmp_path / "padding.svg").read_text()


def test_an_empty_report_is_refused() -> None:
    with pytest.raises(ValueError, match="no comparison to draw"):
        report_figure(Report(TOLERANCE))


@pytest.mark.parametrize("missing", ["seaborn", "matplotlib.figure"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'genrec\[viz\]'"):
        report_figure(encoded())


def test_an_export_can_be_drawn(tiny: Tiny, tmp_path: Path) -> None:
    from matplotlib import pyplot

    report = tiny.exported.report
    plot_report(report, tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    figure = report_figure(report)
    graphs = ["recommend", "score", "encode", "item_vectors", "similar"]
    assert [axes.get_title().partition(":")[0] for axes in maps(figure)] == graphs
    for axes in maps(figure)[:3]:
        assert labels(axes) == (["1", "2", "5", "32"], ["1", "2", "5", "6"])
    for axes in maps(figure)[3:]:  # an item has no length
        assert labels(axes) == (["1", "2", "5", "32"], [""])
    assert f"equal in {len(report.cells)} of {len(report.cells)} comparisons" in all_text(figure)
    assert list(report.sampled()) == [*graphs, "product"]
    assert 1000 < sum(map(len, report.sampled().values())) <= PAIRS


# --- the sample of values


def test_the_sample_is_small_the_same_each_time_and_has_what_differs_most() -> None:
    reports = [Report(TOLERANCE), Report(TOLERANCE)]
    random = np.random.default_rng(0)
    for _ in range(300):
        values = random.standard_normal((5, 40))
        moved = values.copy()
        moved[3, 17] += 1.0
        for report in reports:
            report.sample("score", values, moved)
    one, two = (report.sampled()["score"] for report in reports)
    np.testing.assert_array_equal(one, two)
    assert one.shape == (PAIRS, 2)
    assert all(len(kept) <= PAIRS_A_CELL for kept in reports[0].pairs["score"])
    assert all((kept[:, 1] - kept[:, 0]).max() > 0.99 for kept in reports[0].pairs["score"])


def test_the_sample_is_not_in_the_report_that_is_hashed() -> None:
    report = encoded()
    before = report.to_json()
    report.sample("encode", np.arange(3.0), np.arange(3.0))
    assert report.to_json() == before


def test_what_is_not_finite_is_no_point() -> None:
    report = Report(TOLERANCE)
    report.sample("score", np.array([np.inf, 1.0, np.nan]), np.array([1.0, -np.inf, 2.0]))
    assert report.sampled() == {}
