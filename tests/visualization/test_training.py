"""The course of trainings: their curves, the best epochs, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.visualization import save_figure, training_curve_figure, training_curves_figure


def panels(rows: list[dict[str, Any]]) -> list[Any]:
    return training_curve_figure(rows).axes


def curve(values: list[float | None]) -> list[dict[str, Any]]:
    return [{"epoch": i + 1, "train_loss": 5.0 - i, "valid_ndcg@10": value} for i, value in enumerate(values)]


def test_the_best_epoch_is_the_first_with_the_highest_metric() -> None:
    upper, lower = panels(curve([0.1, 0.3, 0.2, 0.3]))
    np.testing.assert_array_equal(upper.lines[0].get_xydata(), [[1, 5], [2, 4], [3, 3], [4, 2]])
    np.testing.assert_array_equal(lower.lines[0].get_xydata(), [[1, 0.1], [2, 0.3], [3, 0.2], [4, 0.3]])
    assert lower.get_legend().get_texts()[0].get_text() == "best: 0.3000 in epoch 2"
    for axes in (upper, lower):
        assert list(axes.lines[1].get_xdata()) == [2, 2]  # the upright line
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("train loss", "valid ndcg@10", "epoch")


def test_epochs_without_a_value_are_left_out() -> None:
    rows = [
        *curve([None, 0.3, float("nan"), 0.1]),
        {"epoch": 5, "train_loss": 0.5},
        {"epoch": 6, "train_loss": float("inf")},
    ]
    upper, lower = panels(rows)
    np.testing.assert_array_equal(lower.lines[0].get_xydata(), [[2, 0.3], [4, 0.1]])
    assert upper.lines[0].get_xydata()[-1].tolist() == [5, 0.5]


def test_epochs_are_ticked_by_whole_numbers(tmp_path: Path) -> None:
    for count in (1, 3, 40):
        figure = training_curve_figure(curve([0.1] * count))
        save_figure(figure, tmp_path / "curve.png")
        assert all(tick == int(tick) for tick in figure.axes[1].get_xticks())


def test_another_metric_and_title_can_be_asked_for() -> None:
    rows = [{"epoch": 0, "train_loss": 2.0, "valid_recall@5": 0.5}]
    figure = training_curve_figure(rows, metric="valid_recall@5", title="SASRec")
    assert figure.get_suptitle() == "SASRec"
    assert figure.axes[1].get_ylabel() == "valid recall@5"


def test_a_metric_that_was_not_measured_is_refused_with_those_that_were() -> None:
    with pytest.raises(
        ValueError, match=r"none of the 2 rows holds 'valid_mrr@5'; they hold \['epoch', 'train_loss', 'va"
    ):
        training_curve_figure(curve([0.1, 0.2]), metric="valid_mrr@5")
    with pytest.raises(ValueError, match=r"none of the 0 rows holds 'train_loss'"):
        training_curve_figure([])
    with pytest.raises(ValueError, match=r"a row has 'train_loss' but no 'epoch'"):
        training_curve_figure([{"train_loss": 1.0, "valid_ndcg@10": 0.5}])


# --- several runs


RUNS = {"slow": curve([0.1, 0.2, 0.3]), "fast": curve([0.2, 0.5, 0.4, None]), "_odd $name$": curve([0.4, 0.4])}


def test_each_run_has_its_line_in_both_panels_and_its_best_epoch_marked() -> None:
    upper, lower = training_curves_figure(RUNS).axes
    losses = [line.get_xydata().tolist() for line in upper.lines]
    assert losses == [[[1, 5], [2, 4], [3, 3]], [[1, 5], [2, 4], [3, 3], [4, 2]], [[1, 5], [2, 4]]]
    values = [line.get_xydata().tolist() for line in lower.lines]
    assert values[::2] == [[[1, 0.1], [2, 0.2], [3, 0.3]], [[1, 0.2], [2, 0.5], [3, 0.4]], [[1, 0.4], [2, 0.4]]]
    assert values[1::2] == [[[3, 0.3]], [[2, 0.5]], [[1, 0.4]]]  # the earliest of equals
    for line, loss, best in zip(lower.lines[::2], upper.lines, lower.lines[1::2], strict=True):
        assert line.get_color() == loss.get_color() == best.get_color()
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("train loss", "valid ndcg@10", "epoch")


def test_the_legend_names_the_runs_from_the_best_to_the_worst() -> None:
    figure = training_curves_figure(RUNS)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "fast\n0.5000 in epoch 2",
        "_odd $name$\n0.4000 in epoch 1",
        "slow\n0.3000 in epoch 3",
    ]
    lines = dict(zip(RUNS, figure.axes[1].lines[::2], strict=True))
    shown = [handle.get_color() for handle in legend.legend_handles]
    assert shown == [lines[name].get_color() for name in ("fast", "_odd $name$", "slow")]


def test_many_runs_with_long_names_are_told_apart(check_layout: Callable[[Any], None], tmp_path: Path) -> None:
    runs = {f"a-model-of-a-very-long-name-with-many-settings-$^$-seed-{i}": curve([0.1 * i, 0.2]) for i in range(28)}
    figure = training_curves_figure(runs)
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 28
    names = [text.get_text().split("\n")[0] for text in figure.legends[0].get_texts()]
    assert len(set(names)) == 28
    assert all(len(name) <= 36 and name.startswith("a-model") for name in names)
    check_layout(figure)
    save_figure(figure, tmp_path / "curves.pdf")


def test_a_run_without_the_metric_is_named() -> None:
    with pytest.raises(ValueError, match=r"^slow: none of the 3 rows holds 'valid_mrr@5'"):
        training_curves_figure(RUNS, metric="valid_mrr@5")
    with pytest.raises(ValueError, match="there is no run to draw"):
        training_curves_figure({})
