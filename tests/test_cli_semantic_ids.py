"""``genrec semantic-ids``: the folder and the table that it leaves, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from genrec.cli import main
from genrec.training import DataOptions
from genrec_models.cooccurrence import cooccurrence_vectors
from genrec_models.semantic_ids import load_semantic_ids

USERS, ITEMS = 40, 23
TINY = ["--set", "num_codes=8", "--set", "levels=2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["semantic-ids", *map(str, arguments)])


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 40 users who walk a circle of 23 items."""
    path = tmp_path_factory.mktemp("data") / "events.csv"
    rows = [f"u{user},{(user + step) % ITEMS},{step}" for user in range(USERS) for step in range(5 + user % 4)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    return path


@pytest.mark.parametrize("method", ["rqvae", "kmeans"])
def test_with_nothing_but_events_it_uses_those_of_training(events: Path, method: str, tmp_path: Path) -> None:
    fast = ["--set", "epochs=2"] if method == "rqvae" else []
    done = run("--data", events, "--method", method, *TINY, *fast, "--out", tmp_path / "ids", "--seed", 4)
    assert done.exit_code == 0, done.output
    ids = load_semantic_ids(tmp_path / "ids")
    assert ids.codes.shape == (ITEMS, 3)
    assert done.stdout.splitlines()[:-1] == ids.report.table().splitlines()
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'ids'}"
    assert [f"warning: {text}" in done.stderr for text in ids.report.warnings] == [True] * len(ids.report.warnings)
    split = DataOptions(str(events)).load()
    expected = cooccurrence_vectors(split.train_histories(), ITEMS, seed=4)
    np.testing.assert_array_equal(np.load(tmp_path / "ids/vectors.npy"), expected)
    facts = json.loads((tmp_path / "ids/report.json").read_text())
    assert facts["data"]["hash"] == split.data.content_hash
    assert (facts["seed"], facts["vectors"]["source"]) == (4, "co-occurrence in training")


def test_the_events_of_validation_and_test_play_no_part(events: Path, tmp_path: Path) -> None:
    lines = events.read_text().splitlines()
    users = [line.split(",")[0] for line in lines]
    last = {user: i for i, user in enumerate(users)}
    other = [
        line if i not in last.values() or i == 0 else f"{users[i]},{(7 * i) % ITEMS},9" for i, line in enumerate(lines)
    ]
    (tmp_path / "other.csv").write_text("\n".join(other))
    for name, path in (("one", events), ("two", tmp_path / "other.csv")):
        done = run("--data", path, "--dedup", "none", "--method", "kmeans", *TINY, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    one, two = (load_semantic_ids(tmp_path / name) for name in ("one", "two"))
    assert one.facts["data"]["hash"] != two.facts["data"]["hash"]
    np.testing.assert_array_equal(one.codes, two.codes)


def test_vectors_of_ones_own_are_used(events: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((ITEMS, 5))
    np.save(tmp_path / "v.npy", vectors[::-1])
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(ITEMS - 1, -1, -1))))
    given = ["--vectors", tmp_path / "v.npy", "--vector-ids", tmp_path / "ids.txt", "--method", "kmeans"]
    done = run("--data", events, *given, *TINY, "--out", tmp_path / "ids")
    assert done.exit_code == 0, done.output
    ids = load_semantic_ids(tmp_path / "ids")
    assert ids.tokenizer.input_dim == 5
    assert not (tmp_path / "ids/vectors.npy").exists()
    np.testing.assert_array_equal(ids.codes_of_new(vectors.astype(np.float32))[:, :2], ids.codes[:, :2])


def test_weak_codes_are_warned_of(events: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.repeat(np.eye(4), 6, axis=0)[:ITEMS])  # four kinds of items
    done = run(
        "--data", events, "--vectors", tmp_path / "v.npy", "--method", "kmeans", *TINY, "--out", tmp_path / "ids"
    )
    assert done.exit_code == 0, done.output
    assert "warning: level 1 uses 4 of 8 codes" in done.stderr
    assert "of the items collide" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--vector-ids", "EVENTS"], 2, "--vector-ids belongs to --vectors"),
        (["--vectors", "EVENTS", "--text-encoder", "FOLDER"], 2, "exclude each other"),
        (["--text-encoder", "FOLDER"], 2, "give --items with a file that has them"),
        (["--set", "num_code=3"], 1, "did you mean num_codes"),
        (["--set", "input_dim=3"], 2, "input_dim is the width of the vectors"),
        (["--vectors", "EVENTS"], 1, "must lie in a .npy or .parquet file"),
        (["--method", "kmeans"], 1, "num_codes (256) must be at most the number of vectors, 23"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    events: Path, arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    places = {"EVENTS": str(events), "FOLDER": str(tmp_path)}
    done = run("--data", events, *[places.get(one, one) for one in arguments], "--out", tmp_path / "ids")
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert not (tmp_path / "ids").exists()


def test_a_folder_in_use_is_refused_before_the_work(events: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--data", events, "--out", tmp_path)
    assert done.exit_code == 1
    assert done.stderr == f"error: {tmp_path} exists and is not empty; name another folder\n"
