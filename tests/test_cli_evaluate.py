"""``genrec evaluate``: files of what was measured, and predictions of any code base scored as a run is."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

import genrec_runtime
from genrec.cli import main
from genrec.data.reading import read_split
from genrec.metrics.intervals import bootstrap_interval
from genrec.results import COMPARED, read_result
from genrec_models import TorchRecommender, load_run

K = 20


def genrec(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeeds(*arguments: object) -> Result:
    done = genrec(*arguments)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with events of 40 users and 30 items, their split, and runs of two counted models."""
    place = tmp_path_factory.mktemp("evaluate")
    random = np.random.default_rng(7)
    rows = [
        f"{user},{item},{step}"
        for user in range(40)
        for step, item in enumerate(random.choice(30, 4 + user % 5, replace=False, p=np.arange(1, 31) / 465))
    ]
    (place / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    succeeds("data", "split", "--data", place / "events.csv", "--out", place / "split")
    for model in ("popularity", "sequential-rules"):
        succeeds("train", model, "--data", place / "events.csv", "--out", place / model)
    return place


def predictions(place: Path, model: str, length: int = K + 3) -> pl.DataFrame:
    """What a model of ours recommends, as another code base would write it: raw ids, ranks and scores, in any order."""
    split, run = read_split(place / "split"), load_run(place / model)
    histories = [split.data.items.raw(row) for row in split.histories(split.test).rows()]
    answers = TorchRecommender(run.model, run.catalogue).recommend(histories, length)
    rows = [
        (user, item, rank, score)
        for user, (items, scores) in zip(split.data.user_ids[split.test.users].tolist(), answers, strict=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
    ]
    frame = pl.DataFrame(rows, schema=["user", "item", "rank", "score"], orient="row")
    return frame.sample(fraction=1, shuffle=True, seed=1)


@pytest.mark.parametrize("order", ["rank", "score"])
@pytest.mark.parametrize("model", ["popularity", "sequential-rules"])
def test_the_predictions_of_a_run_in_a_file_give_the_metrics_of_the_run(
    place: Path, tmp_path: Path, model: str, order: str
) -> None:
    predictions(place, model).select("user", "item", order).write_csv(tmp_path / "theirs.csv")
    own = succeeds("evaluate", place / model, "--out", tmp_path / "own")
    command = ["evaluate", "--predictions", tmp_path / "theirs.csv", "--split", place / "split"]
    theirs = succeeds(*command, "--out", tmp_path / "theirs")
    table = own.stdout.splitlines()[1:-1]
    assert theirs.stdout.splitlines()[1:-1] == table
    ours, foreign = (read_result(tmp_path / name) for name in ("own", "theirs"))
    assert foreign.metrics == ours.metrics
    assert foreign.users.tolist() == ours.users.tolist()
    for name, column in ours.values.items():
        assert foreign.values[name].tolist() == column.tolist()
    assert {key: foreign.protocol[key] for key in COMPARED} == {key: ours.protocol[key] for key in COMPARED}
    assert (ours.name, foreign.name) == (model, "theirs")
    test = json.loads((place / model / "metrics.json").read_text())["test"]
    assert {name: value for name, value in test.items() if "@" in name} == ours.metrics


def test_the_interval_of_the_table_is_that_of_the_users(place: Path) -> None:
    done = succeeds("evaluate", place / "popularity")
    values = read_result(place / "popularity").values
    lines = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert done.stdout.splitlines()[0].endswith("95% interval")
    for metric in ("recall@10", "ndcg@10"):
        low, high = bootstrap_interval(values[metric])
        assert lines[metric].endswith(f"{low:.6f} to {high:.6f}")
    assert sum(" to " in line for line in lines.values()) == 2
    at_three = succeeds("evaluate", place / "popularity", "--ks", "1,3").stdout.splitlines()
    assert [line.split()[0] for line in at_three if " to " in line] == ["recall@3", "ndcg@3"]


def test_the_bundle_is_written_beside_the_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load_run(place / "popularity")
    ours = TorchRecommender(opened.model, opened.catalogue)
    drops_the_best = lambda rows, k: SimpleNamespace(items=[i[1:] for i, _ in ours.recommend(rows, k + 1)])  # noqa: E731  # shorter than a function
    monkeypatch.setattr(
        genrec_runtime.Recommender,
        "load",
        lambda *_, **__: SimpleNamespace(recommend=drops_the_best, manifest=SimpleNamespace(capabilities=())),
    )
    arguments = ["evaluate", place / "popularity", "--bundle", "store/current", "--name", "mine"]
    done = succeeds(*arguments, "--out", tmp_path / "out")
    assert done.stdout.splitlines()[0].split() == ["torch", "bundle", "difference", "95%", "interval", "of", "torch"]
    run, bundle = read_result(tmp_path / "out"), read_result(tmp_path / "out" / "bundle")
    assert (run.name, bundle.name) == ("mine", "mine (fp32 bundle)")
    assert run.metrics == read_result(place / "popularity").metrics
    assert bundle.values["recall@5"].tolist() != run.values["recall@5"].tolist()
    assert run.details["model"] == "popularity"


def test_a_file_that_cannot_be_scored_is_told_in_full_and_nothing_is_written(place: Path, tmp_path: Path) -> None:
    split = read_split(place / "split")
    frame = predictions(place, "popularity").select("user", "item", "rank").sort("user", "rank")
    user, seen = (
        split.data.user_ids[split.test.users[0]],
        split.data.items.raw(split.histories(split.test).row(0)[:1])[0],
    )
    rows = [(user, seen, 24), (777, 1, 1)]
    wrong = pl.concat(
        [frame.filter(pl.col("user") != frame["user"][-1]), pl.DataFrame(rows, frame.schema, orient="row")]
    )
    wrong.write_csv(tmp_path / "wrong.csv")
    arguments = ["evaluate", "--predictions", tmp_path / "wrong.csv", "--split", place / "split"]
    done = genrec(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: users that the split does not know: 1 (user '777')",
        f"error: users of the test without any prediction: 1 (user {frame['user'][-1]})",
        f"error: predictions of an item in the user's own history: 1 (user '{user}', item '{seen}')",
        f"{tmp_path / 'wrong.csv'} is not scored; mend what makes it and try again",
    ]
    assert not (tmp_path / "out").exists()


def test_notes_go_to_standard_error_and_columns_can_be_named(place: Path, tmp_path: Path) -> None:
    frame = predictions(place, "popularity").filter((pl.col("user") > 2) | (pl.col("rank") <= 7))
    path = tmp_path / "theirs.parquet"
    frame.select(pl.col("user").alias("who"), pl.col("item").alias("what"), pl.col("score").alias("how")).write_parquet(
        path
    )
    command = ["evaluate", "--predictions", path, "--split", place / "split", "--ks", "10"]
    done = succeeds(*command, "--user-col", "who", "--item-col", "what", "--score-col", "how")
    ties, short = done.stderr.splitlines()
    assert ties.startswith("note: ")
    assert "share their score" in ties
    assert short == (
        "note: 3 of 40 users have fewer than 10 items, the fewest 7; a target beyond the end of a list is a miss"
    )
    assert "note" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give RUN, or --predictions FILE with --split DIR"),
        (["run", "--score-col", "x"], 2, "--rank-col and --score-col belong to --predictions"),
        (["run", "--split", "parts"], 2, "--split 'parts': without --predictions one of leave-one-out, temporal"),
        (["--predictions", "p.csv"], 2, "goes with --split DIR"),
        (["run", "--predictions", "p.csv", "--split", "parts"], 2, "not with a run or data"),
        (["--predictions", "p.csv", "--split", "parts", "--k-core", "5"], 2, "not with a run or data"),
        (["--predictions", "p.csv", "--split", "parts"], 1, "parts is no split: it has no protocol.json"),
        (["run", "--out", "."], 1, "exists and is not empty; name another folder"),
    ],
)
def test_misuse_is_told_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[Any], code: int, message: str
) -> None:
    (tmp_path / "other").touch()
    monkeypatch.chdir(tmp_path)
    done = genrec("evaluate", *arguments)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
