"""Offline jobs of models that read times and users, from Parquet to Parquet: the answers are those of one call for all rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import timed
from batch_folders import answers, write
from genrec_models import HSTU
from genrec_models.tiger import TIGER
from genrec_runtime import Recommendations, Recommender
from genrec_runtime.checks import FURTHER
from genrec_runtime.cli import main
from tests.export.test_zoo_runs import asked, export, trained

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32, other neighbours in the batch
ROWS = 23
HISTORIES = [[timed.ITEMS[(4 * row + step * step) % 9] for step in range(row % 8)] for row in range(ROWS)]
TIMES = [[row + 10 * 4**step for step in range(row % 8)] for row in range(ROWS)]
NOW = [None if row % 3 == 1 and row % 8 else row + 4**8 for row in range(ROWS)]
USERS = [None if row % 5 == 2 else f"user {row}" for row in range(ROWS)]


def job(bundle: Path, source: Path, out: Path, *options: object) -> pl.DataFrame:
    """What the command writes, in parts of 7 rows."""
    words = ["batch", bundle, source, out, "--device", "cpu", "--threads", 1, "-k", 4, "--part-rows", 7, *options]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return answers(out)


def assert_same(found: pl.DataFrame, expected: Recommendations) -> None:
    assert found["items"].to_list() == expected.items
    assert found["status"].to_list() == expected.status
    for scores, others in zip(found["scores"].to_list(), expected.scores, strict=True):
        np.testing.assert_allclose(scores, others, **CLOSE)


@pytest.mark.parametrize(
    "reads", [("timestamps", "request_time"), ("timestamps",), ("users",), FURTHER], ids=lambda reads: "+".join(reads)
)
@pytest.mark.parametrize("dates", [False, True], ids=["seconds", "dates"])
def test_columns_of_times_and_users_come_to_the_answers_of_one_call(
    tmp_path: Path, reads: Sequence[str], dates: bool
) -> None:
    """Empty histories, unknown users and requests without a time are among the rows."""
    columns = {"timestamps": pl.Series(TIMES, dtype=pl.List(pl.Int64)), "request_time": NOW}
    frame = pl.DataFrame({"user": USERS, "history": HISTORIES, **columns})
    if dates:
        frame = frame.with_columns(
            pl.col("timestamps").list.eval(pl.from_epoch(pl.element(), "s")), pl.from_epoch("request_time", "s")
        )
    frame.write_parquet(tmp_path / "in.parquet")
    bundle = timed.write_timed(tmp_path / "bundle", reads)
    told: dict[str, Any] = {"timestamps": TIMES, "request_time": NOW, "users": USERS}
    with Recommender.load(bundle, device="cpu", threads=1) as served:
        expected = served.recommend(HISTORIES, k=4, **{name: told[name] for name in reads})
        blank = {"timestamps": [[0] * len(row) for row in TIMES]} if "timestamps" in reads else {}
        assert expected.items != served.recommend(HISTORIES, k=4, **blank).items  # what was told counts
    assert_same(job(bundle, tmp_path / "in.parquet", tmp_path / "out"), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings", "read"),
    [
        (HSTU, {}, "timestamps"),
        (TIGER, {"ff_dim": 10, "levels": 3, "codebook_size": 7, "num_users": 5, "beam": 8}, "users"),
    ],
    ids=["hstu", "tiger"],
)
def test_an_exported_model_that_reads_more_than_items_answers_a_job_as_one_call(
    tmp_path: Path, kind: Any, settings: dict[str, Any], read: str
) -> None:
    sizes = {"embedding_dim": 8, "num_heads": 2, "head_dim": 3, "num_layers": 1}
    run = trained(tmp_path / "run", kind, **sizes, **settings)
    done = export(run, tmp_path / "store")
    assert done.exit_code == 0, done.output
    histories, told = asked(run)
    excluded = [None if row % 4 else [histories[row - 1][-1], "gone"] for row in range(len(histories))]
    columns = {"exclude": excluded, "timestamps": told["timestamps"]}
    source = write(tmp_path / "in.parquet", histories, **columns, number=told["users"])
    with Recommender.load(tmp_path / "store" / "current", device="cpu", threads=1) as served:
        banned = [row or [] for row in excluded]
        expected = served.recommend(histories, k=4, exclude=banned, **{read: told[read]})
    assert_same(job(tmp_path / "store" / "current", source, tmp_path / "out", "--user", "number"), expected)
