"""``genrec plot``: what each command draws from runs and results, and one line for what a user can cause."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

from genrec.cli.options import OneLineErrors
from genrec.cli.plot import plot
from genrec.cli.train import train
from genrec.metrics.intervals import bootstrap_interval
from genrec.results import Result
from genrec_models import TorchRecommender, load_run

SHELL = OneLineErrors(commands={"plot": plot, "train": train})
SMALL = ["--set", "embedding_dim=8", "--set", "max_seq_length=4", "--set", "num_layers=2", "--set", "max_epochs=2"]


def genrec(*arguments: object) -> Outcome:
    return CliRunner().invoke(SHELL, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of finished runs on 30 users who walk a circle of 9 items with titles: two of SASRec, one of Markov."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [f"u{user},{(user + step) % 9},{step}" for user in range(30) for step in range(5 + user % 3)]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    (folder / "items.csv").write_text("\n".join(["item_id,title", *(f"{i},Item no. {i}" for i in range(9))]))
    data = ["--data", folder / "events.csv", "--items", folder / "items.csv"]
    for name, options in (("markov", []), ("sasrec", SMALL), ("other", [*SMALL, "--seed", 1])):
        model = "markov" if name == "markov" else "sasrec"
        done = genrec("train", model, *data, *options, "--out", folder / name)
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that commands wrote."""
    import genrec.visualization

    figures: list[Any] = []
    write = genrec.visualization.save_figure

    def save(figure: Any, path: Path) -> None:
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(genrec.visualization, "save_figure", save)
    return figures


def test_attention_is_drawn_with_the_catalogues_titles_one_panel_a_head(
    runs: Path, drawn: list[Any], tmp_path: Path
) -> None:
    command = ["plot", "attention", runs / "sasrec", "--history", "3, 1,4,1,5", "--layer", 2]
    done = genrec(*command, "--out", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"wrote {tmp_path / 'map.png'}\n"
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    first, second, _ = drawn[0].axes
    titles = [f"Item no. {i}" for i in (1, 4, 1, 5)]  # the newest that the model can see
    assert [label.get_text() for label in first.get_yticklabels()] == titles
    assert [label.get_text() for label in first.get_xticklabels()] == titles
    assert drawn[0].get_suptitle() == "What each item looks back at: sasrec, layer 2 of 2 (newest 4 of 5 items)"
    run = load_run(runs / "sasrec")
    import torch

    item_ids = torch.tensor([[2, 5, 2, 6]])
    encoder: Any = run.model.encoder
    expected = encoder.attention_maps(item_ids, item_ids != 0)[1][0].detach().numpy()  # (2, 4, 4)
    for axes, head in zip((first, second), expected, strict=True):
        np.testing.assert_allclose(
            axes.collections[0].get_array().filled(0), head, rtol=1e-6
        )  # float32, drawn as float64


def test_one_run_is_drawn_with_its_best_epoch_and_several_are_named(
    runs: Path, drawn: list[Any], tmp_path: Path
) -> None:
    assert genrec("plot", "training", runs / "sasrec", "--out", tmp_path / "a.svg").exit_code == 0
    both = ["plot", "training", runs / "sasrec", runs / "other", "--metric", "valid_recall@10"]
    assert genrec(*both, "--out", tmp_path / "b.png").exit_code == 0
    epochs = {name: json.loads((runs / name / "metrics.json").read_text())["epochs"] for name in ("sasrec", "other")}
    assert drawn[0].get_suptitle() == "Training of sasrec"
    one, several = drawn[0].axes[1], drawn[1].axes[1]
    np.testing.assert_array_equal(one.lines[0].get_ydata(), [row["valid_ndcg@10"] for row in epochs["sasrec"]])
    for line, rows in zip(several.lines[::2], epochs.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), [row["valid_recall@10"] for row in rows])
    named = {text.get_text().split("\n")[0] for text in drawn[1].legends[0].get_texts()}
    assert named == {"sasrec", "other"}


def test_popularity_counts_the_lists_of_the_test_cases(runs: Path, drawn: list[Any], tmp_path: Path) -> None:
    command = ["plot", "popularity", runs / "markov", runs / "sasrec", "--k", 3, "--device", "cpu"]
    done = genrec(*command, "--out", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    walks = [[(user + step) % 9 for step in range(5 + user % 3)] for user in range(30)]
    popularity = np.bincount([item for walk in walks for item in walk[:-2]], minlength=9)
    order = np.argsort(-popularity, kind="stable")
    left = drawn[0].axes[0]
    np.testing.assert_allclose(left.lines[0].get_ydata(), 100 * np.cumsum(popularity[order]) / popularity.sum())
    for name, line in zip(("markov", "sasrec"), left.lines[1:], strict=True):
        run = load_run(runs / name)
        lists = TorchRecommender(run.model, run.catalogue).recommend([walk[:-1] for walk in walks], 3)
        counts = np.bincount([item for items, _ in lists for item in items], minlength=9)[order]
        np.testing.assert_allclose(line.get_ydata(), 100 * np.cumsum(counts) / counts.sum())
    assert drawn[0].get_suptitle() == "What is recommended (3 items for each of 30 users), by popularity in training"


# --- metrics


USERS = np.arange(40)
PROTOCOL = {"content_hash": "abc", "split": "leave_one_out"}


def write_result(folder: Path, name: str, shift: float, seed: int | None = None, **changes: Any) -> Path:
    """A result of 40 users with recall and NDCG at 5 and 10, and coverage without values by user."""
    random = np.random.default_rng(seed or 0)
    values = {f"{m}@{k}": random.random(40) / 4 + shift for m in ("recall", "ndcg") for k in (5, 10)}
    metrics = {name: float(column.mean()) for name, column in values.items()} | {"coverage@5": 0.5}
    model = name.rpartition("-")[0] or name
    details = {"model": model, "config": {}, "seed": seed}
    parts: dict[str, Any] = {"protocol": PROTOCOL, "users": USERS, "values": values, "metrics": metrics} | changes
    Result(name, **parts, details=details).write(folder / name)
    return folder / name


def test_metrics_are_drawn_with_the_bootstrap_interval_of_each_model(drawn: list[Any], tmp_path: Path) -> None:
    folders = [write_result(tmp_path, "worse", 0.0), write_result(tmp_path, "better", 0.5)]
    done = genrec("plot", "metrics", *folders, "--out", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    recall, ndcg = drawn[0].axes
    assert [recall.get_title(), ndcg.get_title()] == ["recall@k", "ndcg@k"]
    assert [label.get_text() for label in recall.get_xticklabels()] == ["5", "10"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["better", "worse"]
    assert drawn[0].get_suptitle() == "Metrics on 40 users"
    assert drawn[0].get_supxlabel() == "bars: 95% intervals over users"
    values = np.random.default_rng(0).random(40) / 4  # the first column, recall@5
    low, high = bootstrap_interval(values)
    mean, ends = recall.lines[0].get_ydata()[0], recall.collections[0].get_segments()[0][:, 1]
    np.testing.assert_allclose([mean, *ends], [values.mean(), low, high], atol=2e-3)  # other draws of 10,000


def test_which_metrics_and_cut_offs_are_drawn_can_be_chosen(drawn: list[Any], tmp_path: Path) -> None:
    folders = [write_result(tmp_path, "a", 0.0), write_result(tmp_path, "b", 0.5)]
    command = ["plot", "metrics", *folders, "--metrics", "ndcg,coverage", "--ks", "5"]
    done = genrec(*command, "--out", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    assert [axes.get_title() for axes in drawn[0].axes] == ["ndcg@5", "coverage@5"]
    np.testing.assert_array_equal(drawn[0].axes[1].lines[0].get_xdata(), [0.5])


def test_runs_of_several_seeds_are_drawn_as_one_model(drawn: list[Any], tmp_path: Path) -> None:
    folders = [write_result(tmp_path, f"sasrec-{seed}", 0.5 + seed / 100, seed) for seed in (1, 2, 3)]
    folders.append(write_result(tmp_path, "markov", 0.0))
    done = genrec("plot", "metrics", *folders, "--over-seeds", "--ks", "5", "--out", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    recall = drawn[0].axes[0]
    assert [label.get_text() for label in recall.get_yticklabels()] == ["sasrec (3 seeds)", "markov"]
    means = [np.mean(np.random.default_rng(seed).random(40) / 4 + 0.5 + seed / 100) for seed in (1, 2, 3)]
    np.testing.assert_allclose(recall.lines[0].get_xdata(), [np.mean(means)])
    low, high = recall.collections[0].get_segments()[0][:, 0]
    assert low < min(means) < max(means) < high  # three seeds tell little
    assert drawn[0].get_supxlabel() == "bars: 95% intervals over seeds and users"


def test_results_of_other_data_are_not_drawn_together(tmp_path: Path) -> None:
    folders = [
        write_result(tmp_path, "a", 0.0),
        write_result(tmp_path, "b", 0.5, protocol={**PROTOCOL, "content_hash": "def"}),
    ]
    fails(genrec("plot", "metrics", *folders, "--out", tmp_path / "a.png"), 1, "were not measured alike: content_hash")
    fails(
        genrec("plot", "metrics", folders[0], "--metrics", "mpa", "--out", tmp_path / "a.png"),
        1,
        "none of the metrics asked for is in all results; they share recall@5, recall@10, ndcg@5, ndcg@10, coverage@5",
    )


# --- what a user can cause


def fails(done: Outcome, code: int, message: str) -> None:
    """One line on standard error, no traceback, nothing else."""
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert done.stdout == ""
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
        assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["attention", "sasrec", "--history", "3,77"], 1, "sasrec knows no item 77"),
        (["attention", "sasrec", "--history", "3,x"], 1, "sasrec knows no item 'x'"),
        (["attention", "sasrec", "--history", ""], 1, "sasrec knows no item ''"),
        (["attention", "sasrec", "--history", "3", "--layer", "3"], 1, "--layer 3: sasrec has 2 layers"),
        (["attention", "sasrec", "--history", "3", "--layer", "0"], 2, "--layer"),
        (["attention", "sasrec"], 2, "--history"),
        (["attention", "markov", "--history", "3"], 1, "markov: its model, markov, has no attention to draw"),
        (["attention", "nowhere", "--history", "3"], 1, "nowhere is no run folder"),
        (["training", "sasrec", "markov"], 1, "markov has no epochs to draw: its model was not trained in epochs"),
        (["training", "sasrec", "./sasrec"], 1, "sasrec is named twice"),
        (["training", "nowhere"], 1, "nowhere has no metrics.json"),
        (["training", "sasrec", "--metric", "valid_mrr@7"], 1, "none of the 2 rows holds 'valid_mrr@7'"),
        (["training"], 2, "RUNS"),
        (["metrics", "nowhere"], 1, "nowhere has no metrics.json"),
        (["metrics", "sasrec", "--ks", "x"], 2, "must be whole numbers"),
        (["popularity", "nowhere"], 1, "nowhere is no run folder"),
        (["popularity", "markov", "--k", "0"], 2, "--k"),
    ],
)
def test_what_a_user_can_cause_is_told_in_one_line(
    runs: Path, arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    fails(genrec("plot", *arguments, "--out", tmp_path / "a.png"), code, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "message"), [("none/a.png", "there is no folder none for the picture"), ("a.xyz", "must end with one of")]
)
@pytest.mark.parametrize("command", ["training", "popularity"])
def test_a_picture_that_cannot_be_written_is_refused_before_runs_are_opened(
    command: str, out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(genrec("plot", command, "nowhere", "--out", out), 1, message)


def test_runs_of_other_data_or_changed_data_are_not_drawn_together(runs: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    rows = [f"u{user},{(user * step) % 9},{step}" for user in range(30) for step in range(1, 6)]
    events.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    assert genrec("train", "markov", "--data", events, "--out", tmp_path / "mine").exit_code == 0
    command = ["plot", "popularity", tmp_path / "mine"]
    fails(genrec(*command, runs / "markov", "--out", tmp_path / "a.png"), 1, "were trained on other data")
    events.write_text(events.read_text() + "\nu1,8,99")
    fails(genrec(*command, "--out", tmp_path / "a.png"), 1, f"the data of {tmp_path / 'mine'} have changed")


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: Path, drawn: list[Any], tmp_path: Path) -> None:
    copy = tmp_path / "more" / "sasrec"
    copy.mkdir(parents=True)
    (copy / "metrics.json").write_bytes((runs / "other" / "metrics.json").read_bytes())
    assert genrec("plot", "training", runs / "sasrec", copy, "--out", tmp_path / "a.png").exit_code == 0
    assert len({text.get_text().split("\n")[0] for text in drawn[0].legends[0].get_texts()}) == 2


def test_help_needs_nothing_heavy() -> None:
    heavy = ["torch", "lightning", "polars", "numpy", "matplotlib", "seaborn"]
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); from genrec.cli.plot import plot; plot(['--help'])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_option_is_explained() -> None:
    for command in plot.commands.values():
        assert command.help
        assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))
