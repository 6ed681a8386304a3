"""The command ``genrec``: results on standard output, one line for what a user can cause, exit codes 0, 1 and 2."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import genrec_runtime
from genrec.cli import main
from genrec.training import FitConfig
from genrec_models import HSTU, MODELS, TorchRecommender, load_run

FAST = ["--set", "max_epochs=2", "--set", "embedding_dim=8", "--set", "num_layers=1"]


def genrec(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 30 users who walk a circle of 9 items."""
    path = tmp_path_factory.mktemp("data") / "events.csv"
    rows = [f"u{user},{(user + step) % 9},{step}" for user in range(30) for step in range(5 + user % 3)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    return path


@pytest.fixture(scope="module")
def run(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Markov, which the circle suits."""
    out = tmp_path_factory.mktemp("run") / "markov"
    done = genrec("train", "markov", "--data", events, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def fails(result: Result, code: int, message: str) -> None:
    """One line on standard error, no traceback, nothing else."""
    assert result.exit_code == code, result.output
    assert message in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
        assert isinstance(result.exception, SystemExit)


def test_training_prints_a_table_and_where_the_run_lies(run: Path, events: Path, tmp_path: Path) -> None:
    done = genrec("train", "sasrec", "--data", events, "--out", tmp_path / "run", *FAST, "--seed", 3)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["valid", "test"]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert f"{metrics['test']['ndcg@10']:.6f}" in done.stdout
    assert lines[-1] == f"wrote {tmp_path / 'run'}"
    assert "epoch 2" in done.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["config"]["embedding_dim"], config["fit"]["max_epochs"], config["seed"]) == (8, 2, 3)


def test_a_run_in_use_is_refused_and_a_finished_one_left_alone(run: Path, events: Path) -> None:
    fails(genrec("train", "markov", "--data", events, "--out", run), 1, "exists and is not empty")
    again = genrec("train", "markov", "--data", events, "--out", run, "--resume")
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr


def test_the_recipe_gives_way_to_options_and_settings(events: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(f'[data]\nsource = "{events}"\nk_core = 9\n[model]\ndecay = 0.5\nmax_distance = 3\n')
    out = tmp_path / "run"
    done = genrec(
        *("train", "sequential-rules", "--recipe", recipe, "--k-core", 2, "--set", "decay=0.25", "--out", out)
    )
    assert done.exit_code == 0, done.output
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["decay"] == 0.25
    assert config["config"]["max_distance"] == 3
    assert config["data"]["options"]["k_core"] == 2


OWN_MODEL = """
from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    num_items: int
    width: int = 4


class Average(nn.Module):
    max_seq_length = 3

    def __init__(self, num_items: int, width: int = 4) -> None:
        super().__init__()
        self.config, self.num_items = Config(num_items, width), num_items
        self.table = nn.Embedding(num_items + 1, width, padding_idx=0)

    def user_state(self, item_ids):
        return self.table(item_ids).sum(dim=1)

    def item_vectors(self):
        return self.table.weight

    def loss(self, batch):
        return {"loss": F.cross_entropy(self.user_state(batch["item_ids"]) @ self.table.weight.T, batch["targets"][:, -1])}
"""


def test_a_model_of_ones_own_is_trained_and_exported_from_the_folder_one_works_in(events: Path, tmp_path: Path) -> None:
    (tmp_path / "average.py").write_text(OWN_MODEL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    options = ["--data", str(events), "--set", "width=6", "--set", "max_epochs=1", "--out", "run"]
    for arguments in (
        ["genrec.cli", "train", "average:Average", *options],
        ["genrec_export.cli", "run", "store"],
        ["genrec.cli", "evaluate", "run", "--bundle", "store/current", "--device", "cpu"],
    ):
        # as the installed commands do, without the current folder in front
        code = f"import sys; sys.path.remove(''); from {arguments[0]} import main; main()"
        command = [sys.executable, "-c", code, *arguments[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["model"], config["config"]) == ("average:Average", {"num_items": 9, "width": 6})


def test_evaluating_again_gives_the_metrics_of_the_run(run: Path) -> None:
    done = genrec("evaluate", run, "--ks", "10,5")
    assert done.exit_code == 0, done.output
    test = json.loads((run / "metrics.json").read_text())["test"]
    rows = [line.split()[:2] for line in done.stdout.splitlines()[1:-1]]
    means, lists = ("recall", "ndcg", "mrr"), ("coverage", "gini", "entropy", "average_popularity", "novelty")
    names = [f"{name}@{k}" for name in (*means, *lists) for k in (5, 10)]
    assert rows == [[name, f"{test[name]:.6f}"] for name in names] + [["cases", str(test["cases"])]]
    assert "precision@k is recall@k / k" in done.stdout.splitlines()[-1]


def test_data_that_changed_are_noticed_and_can_be_named(events: Path, tmp_path: Path) -> None:
    copy = tmp_path / "events.csv"
    copy.write_text(events.read_text())
    assert genrec("train", "markov", "--data", copy, "--out", tmp_path / "run").exit_code == 0
    copy.write_text(events.read_text() + "\nu0,777,99\nu1,777,99")
    fails(genrec("evaluate", tmp_path / "run"), 1, "have changed")
    done = genrec("evaluate", tmp_path / "run", "--data", copy)  # knows an item that the run does not
    assert done.exit_code == 0, done.output
    assert "recall@10" in done.stdout


def test_a_run_is_scored_on_another_split_by_its_moments_alone(events: Path, tmp_path: Path) -> None:
    moments = ["--valid-from", "3", "--test-from", "4"]
    assert genrec("train", "markov", "--data", events, *moments, "--out", tmp_path / "run").exit_code == 0
    test = json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    assert f"{test['ndcg@5']:.6f}" in genrec("evaluate", tmp_path / "run").stdout
    back = genrec("evaluate", tmp_path / "run", "--split", "leave-one-out")
    assert back.exit_code == 0, back.output


@pytest.mark.parametrize("wrong", [0, 1], ids=["an equal bundle", "a bundle that drops the best item"])
def test_a_bundle_is_scored_beside_torch(run: Path, monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    opened = load_run(run)
    torch_path = TorchRecommender(opened.model, opened.catalogue)

    def load(path: Path, device: str, variant: str) -> Any:
        assert variant == "int8"
        answer = lambda rows, k: SimpleNamespace(items=[i[wrong:] for i, _ in torch_path.recommend(rows, k)])  # noqa: E731  # shorter than a function
        return SimpleNamespace(
            recommend=lambda rows, k: answer(rows, k), manifest=SimpleNamespace(capabilities=("recommend", "exclude"))
        )

    monkeypatch.setattr(genrec_runtime.Recommender, "load", load)
    done = genrec("evaluate", run, "--bundle", "store/current", "--variant", "int8", "--ks", "5")
    assert done.exit_code == 0, done.output
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head[:3] == ["torch", "bundle", "difference"]
    assert rows[0][0] == "recall@5"
    assert (float(rows[0][3]) == 0) is not bool(wrong)


def test_a_missing_bundle_is_one_line(run: Path, tmp_path: Path) -> None:
    fails(genrec("evaluate", run, "--bundle", tmp_path / "none"), 1, "none")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train"], 2, "Missing argument 'MODEL'"),
        (["train", "markov"], 2, "no data: give --data"),
        (["train", "markow", "--data", "quickstart"], 1, "did you mean 'markov'?"),
        (["train", "nowhere.at.all:Model", "--data", "quickstart"], 1, "nowhere"),
        (["train", "sasrec", "--data", "quickstart", "--set", "dropuot=1"], 1, "did you mean dropout?"),
        (["train", "sasrec", "--data", "quickstart", "--set", "dropout"], 1, "must have the form name=value"),
        (["train", "sasrec", "--data", "quickstart", "--set", "dropout=2", "--out", "unused"], 1, "dropout (2.0)"),
        (["train", "sasrec", "--recipe", "quickstrat"], 1, "sasrec has amazon-beauty, movielens-1m"),
        (["train", "markov", "--data", "none.csv"], 1, "none.csv: no such file"),
        (["train", "markov", "--data", "quickstart", "--split", "temporal"], 1, "needs valid_from and test_from"),
        (["train", "markov", "--data", "quickstart", "--seed", "-1"], 2, "--seed"),
        (["train", "sasrec", "--data", "quickstart", "--device", "cuda:99"], 1, "asked for device 'cuda:99'"),
        (["evaluate", "no/run"], 1, "no/run"),
        (["evaluate", "no/run", "--ks", "5,x"], 2, "must be whole numbers"),
        (["evaluate", "no/run", "--ks", "0"], 2, "cut-offs start at 1"),
        (["data", "split", "--data", "quickstart"], 2, "--out"),
        (["data", "describe"], 2, "no data: give --data"),
    ],
)
def test_what_a_user_can_cause_is_told_without_a_traceback(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(genrec(*arguments), code, message)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    @main.command("needs-torch")
    def needs_torch() -> None:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    try:
        fails(genrec("needs-torch"), 1, "pip install 'genrec[train]'")
    finally:
        del main.commands["needs-torch"]


def test_ctrl_c_says_how_to_go_on(events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genrec.training.loop.Trainer.run", interrupt)
    command = ["train", "sasrec", "--data", events, "--out", tmp_path / "run", *FAST]
    fails(genrec(*command), 1, "interrupted; the same command with --resume goes on")
    monkeypatch.undo()
    assert genrec(*command, "--resume").exit_code == 0


def test_describing_data_counts_them(events: Path) -> None:
    done = genrec("data", "describe", "--data", events)
    assert done.exit_code == 0, done.output
    found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.split()[0] in ("users", "items"))
    assert found == {"users": "30", "items": "9"}
    assert "content hash" in done.stdout


def test_splitting_data_writes_files(events: Path, tmp_path: Path) -> None:
    done = genrec("data", "split", "--data", events, "--out", tmp_path / "parts")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "parts").iterdir()}
    assert names == {"train.parquet", "valid.parquet", "test.parquet", "protocol.json"}
    fails(genrec("data", "split", "--data", events, "--out", tmp_path / "parts"), 1, "exists and is not empty")


def test_the_zoo_lists_every_model_and_its_recipes() -> None:
    done = genrec("zoo")
    assert done.exit_code == 0
    assert all(f"\n{name}: " in f"\n{done.stdout}" for name in MODELS)
    assert "recipes: amazon-beauty, movielens-1m (not run), movielens-small, online-retail, quickstart" in done.stdout
    assert "  presets: base (" in done.stdout


def test_of_one_model_the_zoo_shows_presets_needs_and_every_setting() -> None:
    done = genrec("zoo", "hstu", "--items", "1000")
    assert done.exit_code == 0, done.output
    assert f"parameters: {sum(weight.numel() for weight in HSTU(1000).parameters()):,}\n" in done.stdout
    assert (
        f"large ({sum(weight.numel() for weight in HSTU(1000, **HSTU.presets['large']).parameters()):,})" in done.stdout
    )
    assert "reads beside histories: the times of the events" in done.stdout
    assert all(f"  setting {name} = " in done.stdout for name in HSTU(3).arguments if name != "num_items")
    assert all(f"  training {field.name} = {field.default!r}: " in done.stdout for field in fields(FitConfig))
    assert "  training " not in genrec("zoo", "markov").stdout  # it only counts
    fails(genrec("zoo", "hstv"), 2, "no model 'hstv'; the zoo has popularity")


def test_a_preset_is_under_the_settings_and_over_the_recipe(events: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("[model]\nnum_heads = 4\nhead_dim = 3\n[fit]\nmax_epochs = 1\n", encoding="utf-8")
    arguments = ("train", "hstu", "--data", events, "--recipe", recipe, "--preset", "large", "--out", tmp_path / "run")
    done = genrec(*arguments, "--set", "num_layers=1", "--set", "embedding_dim=6")
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["config"]
    assert [config[name] for name in ("num_heads", "head_dim", "num_layers", "embedding_dim")] == [2, 25, 1, 6]
    fails(genrec("train", "hstu", "--data", events, "--preset", "huge"), 1, "HSTU has no preset 'huge': there are base")
    fails(genrec("train", "sasrec", "--data", events, "--preset", "x"), 1, "SASRec has no preset 'x': there are none")


def test_the_card_stands_the_model_beside_the_counted_ones(events: Path, tmp_path: Path) -> None:
    done = genrec("train", "gru4rec", "--data", events, "--set", "max_epochs=1", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["baselines"]) == ["popularity", "item-knn", "markov", "sequential-rules"]
    for name, found in metrics["baselines"].items():
        assert f"| {name} | {found['recall@10']:.4g} | {found['ndcg@10']:.4g} |" in card
        assert found["difference"][0] == pytest.approx(metrics["test"]["ndcg@10"] - found["ndcg@10"])
    without = genrec(
        "train", "gru4rec", "--data", events, "--set", "max_epochs=1", "--no-baselines", "--out", tmp_path / "other"
    )
    assert without.exit_code == 0, without.output
    assert "baselines" not in json.loads((tmp_path / "other" / "metrics.json").read_text(encoding="utf-8"))


def test_tiger_takes_semantic_ids_of_the_same_items_only(events: Path, tmp_path: Path) -> None:
    sizes = "embedding_dim=4 num_heads=1 head_dim=4 num_layers=1 ff_dim=4 codebook_size=4 levels=3 beam=20 max_epochs=1"
    settings = [part for size in sizes.split() for part in ("--set", size)]
    data = ("--data", events)
    coded = ("--method", "kmeans", "--set", "num_codes=4", "--set", "levels=2")
    assert genrec("semantic-ids", *data, *coded, "--out", tmp_path / "ids").exit_code == 0
    done = genrec("train", "tiger", *data, "--semantic-ids", tmp_path / "ids", *settings, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    codes = load_run(tmp_path / "run").model.codes
    assert codes[1:].tolist() == np.load(tmp_path / "ids" / "codes.npy").tolist()
    more = tmp_path / "more.csv"
    more.write_text(events.read_text(encoding="utf-8") + "\nu0,77,99", encoding="utf-8")
    other = ("--data", more)
    fails(genrec("train", "tiger", *other, "--semantic-ids", tmp_path / "ids", *settings), 1, "that are not the")
    fails(genrec("train", "sasrec", *data, "--semantic-ids", tmp_path / "ids"), 2, "SASRec writes no codes")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["zoo"]], ids=" ".join)
def test_help_and_the_zoo_need_nothing_heavy(arguments: list[str]) -> None:
    heavy = ["torch", "lightning", "polars", "numpy"]
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); from genrec.cli import main; main({arguments})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_option_is_explained() -> None:
    def commands(group: click.Group) -> list[click.Command]:
        below = [commands(one) if isinstance(one, click.Group) else [one] for one in group.commands.values()]
        return [command for part in below for command in part]

    for command in commands(main):
        assert command.help, command.name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (command.name, parameter.name)
