"""``genrec compare``: folders in, a table and files out, one line for what a user can cause."""

import csv
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

from genrec.cli.compare import compare
from genrec.cli.options import OneLineErrors
from genrec.cli.train import train
from scored import PROTOCOL, drawn_ranks, scored


@click.group(cls=OneLineErrors)
def main() -> None:
    """A group as the command's own."""


main.add_command(compare)


def run(*arguments: object) -> Outcome:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two baselines, three seeds of a better model, and one of other data."""
    base = tmp_path_factory.mktemp("results")
    ranks = {f"sasrec-{seed}": drawn_ranks(800, 0.6, seed) for seed in range(3)}
    for name, found in ranks.items():
        scored(name, found, model="sasrec", config={}, seed=int(name[-1])).write(base / name)
    scored("rules", drawn_ranks(800, 0.0, 0, luck=0.0), model="rules", config={}, seed=None).write(base / "rules")
    scored("knn", drawn_ranks(800, 0.1, 9), model="knn", config={}, seed=None).write(base / "knn")
    scored("other", drawn_ranks(800, 0.0, 0), protocol=PROTOCOL | {"content_hash": "c3" * 32}).write(base / "other")
    return {path.name: path for path in base.iterdir()}


def test_a_table_with_verdicts_is_printed(folders: dict[str, Path]) -> None:
    done = run(folders["rules"], folders["sasrec-0"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("sasrec-0 is better") == 2
    assert "tells nothing" in done.stdout
    assert done.stderr == ""


def test_a_run_against_itself_is_no_difference(folders: dict[str, Path]) -> None:
    done = run(folders["sasrec-0"], folders["sasrec-0"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("no difference: equal for every user") == 2
    assert "better" not in done.stdout


def test_methods_are_compared_over_seeds(folders: dict[str, Path]) -> None:
    done = run("--over-seeds", folders["rules"], *(folders[f"sasrec-{seed}"] for seed in range(3)))
    assert done.exit_code == 0, done.output
    assert "sasrec, 3 runs" in done.stdout
    assert "rules is one run without a seed" in done.stdout
    three = ["--over-seeds", *(folders[name] for name in ("rules", "knn", "sasrec-0", "sasrec-1"))]
    assert "corrected for 4 tests" in run(*three).stdout  # two methods against the first, two metrics
    assert "corrected for 6 tests" in run(*three, "--all-pairs").stdout
    one = run("--over-seeds", folders["rules"], folders["sasrec-2"])
    assert "sasrec has one seed (2), which tells nothing about the method" in one.stdout
    assert "better" not in one.stdout


def test_runs_are_compared_as_training_left_them(tmp_path: Path) -> None:
    """Markov against popularity on 30 users who walk a circle of 9 items."""
    events = tmp_path / "events.csv"
    rows = [f"u{user},{(user + step) % 9},{step}" for user in range(30) for step in range(5 + user % 3)]
    events.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    for model in ("popularity", "markov"):
        done = CliRunner().invoke(train, [model, "--data", str(events), "--out", str(tmp_path / model)])
        assert done.exit_code == 0, done.output
    done = run(tmp_path / "popularity", tmp_path / "markov", "--metrics", "ndcg@5")
    assert done.exit_code == 0, done.output
    assert "30 users" in done.stdout
    assert "markov is better" in done.stdout


def test_metrics_confidence_and_pairs_are_chosen(folders: dict[str, Path]) -> None:
    three = [folders[name] for name in ("rules", "sasrec-0", "sasrec-1")]
    done = run(*three, "--metrics", "mrr@5, ndcg@5", "--confidence", "0.9", "--all-pairs")
    assert done.exit_code == 0, done.output
    assert "90% interval" in done.stdout
    assert "corrected for 6 tests" in done.stdout  # three pairs of two metrics


def test_the_seed_of_the_draws_is_an_option(folders: dict[str, Path]) -> None:
    outputs = [run(folders["rules"], folders["sasrec-0"], "--seed", seed).stdout for seed in (1, 1, 2)]
    assert outputs[0] == outputs[1] != outputs[2]


def test_files_are_written_and_named(folders: dict[str, Path], tmp_path: Path) -> None:
    table, paper = tmp_path / "found.csv", tmp_path / "found.tex"
    done = run(folders["rules"], folders["sasrec-0"], "--csv", table, "--latex", paper)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-2:] == [f"wrote {table}", f"wrote {paper}"]
    with table.open(newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file) if row["metric"] == "ndcg@10"]
    assert verdicts == ["", "sasrec-0 is better"]
    assert r"\toprule" in paper.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rules"], 1, "at least 2 results, got 1"),
        (["rules", "other"], 1, f"content_hash is '{'a1' * 32}' and '{'c3' * 32}'"),
        (["rules", "nowhere"], 1, "nowhere"),
        (["rules", "sasrec-0", "--metrics", "ndcg@7"], 1, "values by user of ndcg@7"),
        (["rules", "sasrec-0", "--metrics", ","], 1, "no metric to test"),
        (["sasrec-0", "sasrec-1", "--over-seeds"], 1, "at least 2 methods, got 1: sasrec"),
        (["rules", "sasrec-0", "sasrec-0", "--over-seeds"], 1, "sasrec has seed 0 twice"),
        (["rules", "sasrec-0", "--confidence", "95"], 2, "--confidence"),
        (["rules", "sasrec-0", "--seed", "-1"], 2, "--seed"),
        (["rules", "sasrec-0", "--csv", "no/folder/found.csv"], 1, "no/folder/found.csv"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_a_user_can_cause_is_told_on_one_line(
    folders: dict[str, Path], arguments: Sequence[str], code: int, message: str
) -> None:
    done = run(*(folders.get(one, one) for one in arguments))
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert code == 2 or len(done.stderr.splitlines()) == 1


def test_every_option_is_explained() -> None:
    assert compare.help
    assert all(option.help for option in compare.params if isinstance(option, click.Option))
