"""Metrics at k with their intervals: points, bars, rows for many models, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.visualization import metric_figure, save_figure

KS = (5, 10, 20)


def result(best: float) -> dict[str, Any]:
    """Recall and NDCG rising with k, each with a lopsided interval."""
    means = {f"{metric}@{k}": scale * best * k for metric, scale in (("recall", 1), ("ndcg", 0.5)) for k in KS}
    return {name: (mean, mean - 0.01, mean + 0.02) for name, mean in means.items()}


TWO = {"markov": result(0.01), "sasrec": result(0.02)}


def bars(axes: Any) -> list[list[list[float]]]:
    """The ends of the bars, a list a model."""
    return [[segment.tolist() for segment in collection.get_segments()] for collection in axes.collections]


def test_each_metric_has_a_panel_and_each_model_a_line_with_bars() -> None:
    figure = metric_figure(TWO)
    assert [axes.get_title() for axes in figure.axes] == ["recall@k", "ndcg@k"]
    for axes, scale in zip(figure.axes, (1, 0.5), strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "20"]
        assert axes.get_xlabel() == "k, length of the list"
        for line, ends, best in zip(axes.lines, bars(axes), (0.01, 0.02), strict=True):
            means = [scale * best * k for k in KS]
            np.testing.assert_array_equal(line.get_ydata(), means)
            x = line.get_xdata()
            np.testing.assert_array_equal(
                ends, [[[at, mean - 0.01], [at, mean + 0.02]] for at, mean in zip(x, means, strict=True)]
            )
            np.testing.assert_array_equal(np.round(x), [0, 1, 2])  # at the ticks but for a step sideways
    assert figure.get_supxlabel() == "bars: 95% intervals over users"


def test_bars_of_two_models_never_stand_in_one_place() -> None:
    axes = metric_figure({f"model {i}": result(0.01) for i in range(7)}).axes[0]
    places = np.concatenate([line.get_xdata() for line in axes.lines])
    assert np.diff(np.sort(places)).min() >= 0.08 - 1e-9  # float64 sums


def test_the_legend_is_sorted_by_the_first_metric_at_the_largest_k() -> None:
    figure = metric_figure(TWO)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["sasrec", "markov"]
    by_name = dict(zip(TWO, figure.axes[0].lines, strict=True))
    assert [handle.get_color() for handle in legend.legend_handles] == [
        by_name["sasrec"].get_color(),
        by_name["markov"].get_color(),
    ]


@pytest.mark.parametrize(("models", "ks"), [(2, (10,)), (8, KS)], ids=["one k", "many models"])
def test_one_k_or_many_models_are_drawn_as_rows_best_first(models: int, ks: tuple[int, ...]) -> None:
    results = {
        f"model {i}": {name: point for name, point in result(0.01 * (i + 1)).items() if int(name.split("@")[1]) in ks}
        for i in range(models)
    }
    figure = metric_figure(results)
    assert [axes.get_title() for axes in figure.axes] == [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in ks]
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == [f"model {i}" for i in reversed(range(models))]
    assert first.get_ylim() == (models - 0.5, -0.5)  # the first row on top
    for row, (line, ends) in enumerate(zip(first.lines, bars(first), strict=True)):
        mean = 0.01 * (models - row) * ks[0]
        np.testing.assert_array_equal(line.get_xydata(), [[mean, row]])
        np.testing.assert_array_equal(ends, [[[mean - 0.01, row], [mean + 0.02, row]]])


def test_metrics_are_drawn_in_the_order_asked_for_and_others_left_out() -> None:
    assert [axes.get_title() for axes in metric_figure(TWO, ["ndcg", "recall"]).axes] == ["ndcg@k", "recall@k"]
    figure = metric_figure({"a": {"recall@5": 0.1, "recall@9": 0.2, "mrr@5": 0.1}}, ["mrr"], title="A title")
    assert [axes.get_title() for axes in figure.axes] == ["mrr@5"]  # k = 9 belongs to what is left out
    assert figure.get_suptitle() == "A title"


def test_a_mean_without_an_interval_has_no_bar_and_no_line_at_the_foot() -> None:
    figure = metric_figure({"a": {"coverage@5": 0.5, "coverage@10": np.float64(0.75)}})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0.5, 0.75])
    assert figure.get_supxlabel() == ""
    assert metric_figure(TWO, bars="bars: 90%").get_supxlabel() == "bars: 90%"


def test_a_model_may_lack_a_metric_or_a_k() -> None:
    figure = metric_figure({"a": {"recall@10": 0.2, "recall@5": 0.1, "mrr@5": 0.1}, "b": {"recall@10": 0.3}})
    recall, mrr = figure.axes
    np.testing.assert_array_equal(recall.lines[0].get_ydata(), [0.1, 0.2])  # in the order of k
    np.testing.assert_array_equal([line.get_ydata()[-1] for line in recall.lines], [0.2, 0.3])
    assert len(mrr.lines) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]


@pytest.mark.parametrize(("models", "metrics"), [(1, 1), (4, 4), (9, 2)])
def test_nothing_overlaps(models: int, metrics: int, check_layout: Callable[[Any], None], tmp_path: Path) -> None:
    names = [f"{'a very long name ' * 4}$^${i}" for i in range(models)]  # no formula
    results = {n: {f"metric{m}@{k}": (0.1, 0.09, 0.12) for m in range(metrics) for k in (1, 5, 10, 100)} for n in names}
    figure = metric_figure(results)
    check_layout(figure)
    save_figure(figure, tmp_path / "metrics.png")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "there is no metric to draw; 0 results hold none"),
        ({"a": {}}, "there is no metric to draw; 1 results hold none"),
        ({"a": {"recall": 0.1}}, "a: 'recall' must be a metric at a whole number k, such as 'recall@10'"),
        ({"a": {"recall@x": 0.1}}, "a: 'recall@x' must be a metric at a whole number k"),
        ({"a": {"recall@5": float("nan")}}, "recall@5 of a must be a finite number, or three: .*; got nan"),
        ({"a": {"recall@5": (0.1, 0.2, 0.1)}}, r"recall@5 of a must be .* got \(0.1, 0.2, 0.1\)"),
        ({"a": {"recall@5": (0.1, 0.2)}}, r"recall@5 of a must be .* got \(0.1, 0.2\)"),
        ({"a": {"recall@5": (0.1, 0.0, float("inf"))}}, "recall@5 of a must be"),
    ],
)
def test_what_cannot_be_drawn_is_refused(results: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric_figure(results)


def test_a_metric_that_nobody_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="there is no metric 'mpa'; 2 results hold recall, ndcg"):
        metric_figure(TWO, ["recall", "mpa"])
    with pytest.raises(ValueError, match="there is no metric to draw; 2 results hold recall, ndcg"):
        metric_figure(TWO, [])
