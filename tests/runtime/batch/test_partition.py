import dataclasses
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from batch_folders import ROWS, answers, contents, quarantine, write
from genrec.histories import RawId
from genrec_runtime import BundleCorrupt, InferenceError, InputError, Recommendations, Recommender
from genrec_runtime.batch import Plan, Summary, partition, recommend_partition
from genrec_runtime.batch.publish import working_on
from genrec_runtime.histories import read_times
from tiny import Tiny

Prepare = Callable[..., Plan]
Do = Callable[..., Summary]


def assert_same(frame: pl.DataFrame, answer: Recommendations) -> None:
    assert frame["items"].to_list() == answer.items
    assert frame["status"].to_list() == answer.status
    for found, expected in zip(frame["scores"].to_list(), answer.scores, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32, other neighbours in the batch


# --- answers


def test_the_answers_are_those_of_recommend_in_the_order_of_the_input(
    do: Do, served: Recommender, histories: list[list[RawId]], tmp_path: Path
) -> None:
    summary = do(k=3)
    frame = answers(tmp_path / "out")
    assert_same(frame, served.recommend(histories, k=3))
    assert frame.columns == ["row", "user", "items", "scores", "status"]
    assert frame["row"].to_list() == list(range(ROWS))
    assert frame["user"].to_list() == [f"user {row}" for row in range(ROWS)]
    assert (summary.rows, summary.answered, summary.bad) == (ROWS, ROWS, 0)
    assert summary.status == {"all_unknown": 1, "cold_start": 1, "model": ROWS - 2}
    assert (summary.ids, summary.unknown_items) == (sum(map(len, histories)), 1)
    assert (summary.parts, summary.new_parts) == (5, 5)  # 23 rows, 5 a part


def test_more_rows_than_a_call_takes_are_asked_for_in_several(
    do: Do, served: Recommender, histories: list[list[RawId]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "CALL", 2)
    do(k=3)
    assert_same(answers(tmp_path / "out"), served.recommend(histories, k=3))


def test_what_is_asked_for_is_passed_on(do: Do, served: Recommender, tmp_path: Path, tiny: Tiny) -> None:
    rows = tiny.histories[10:14]
    out = [["item 03"], [], None, ["item 05", "item 06"]]
    file = write(tmp_path / "more.parquet", rows, banned=out)
    do(source=file, k=20, exclude_seen=False, exclude="banned")
    banned = [row or [] for row in out]
    expected = served.recommend(rows, k=20, exclude_seen=False, exclude=banned)
    assert_same(answers(tmp_path / "out"), expected)
    assert expected.items != served.recommend(rows, k=20, exclude=banned).items


def test_int_ids_stay_ints_and_other_ints_are_read_as_well(do: Do, numbers: Path, tmp_path: Path) -> None:
    rows = [[5, 11], [0], []]
    frame = pl.DataFrame({"items": pl.Series(rows, dtype=pl.List(pl.Int16))})
    frame.write_parquet(tmp_path / "ints.parquet")
    do(bundle=numbers, source=tmp_path / "ints.parquet", k=2, history="items")
    found = answers(tmp_path / "out")
    assert found.schema["items"] == pl.List(pl.Int64)
    with Recommender.load(numbers, device="cpu", threads=1) as recommender:
        assert_same(found, recommender.recommend(rows, k=2))


@pytest.mark.parametrize(
    "dtype",
    [pl.List(pl.Categorical), pl.Array(pl.String, 2), pl.List(pl.Enum(["item 01", "item 02", "item 03"]))],
    ids=["categories", "arrays", "enums"],
)
def test_texts_are_read_however_they_are_kept(do: Do, served: Recommender, tmp_path: Path, dtype: Any) -> None:
    rows = [["item 01", "item 02"], ["item 03", "item 01"]]
    pl.DataFrame({"history": pl.Series(rows, dtype=dtype)}).write_parquet(tmp_path / "texts.parquet")
    do(source=tmp_path / "texts.parquet", k=2)
    assert_same(answers(tmp_path / "out"), served.recommend(rows, k=2))


def test_further_columns_are_copied_as_they_are(do: Do, tmp_path: Path, histories: list[list[RawId]]) -> None:
    tags = pl.Series("tag", [f"t{row % 3}" for row in range(ROWS)], dtype=pl.Categorical)
    file = write(tmp_path / "kept.parquet", histories, tag=tags, age=pl.Series(range(ROWS), dtype=pl.Int8))
    do(source=file, keep=("age", "tag"))
    found = answers(tmp_path / "out")
    assert found.columns[:4] == ["row", "user", "age", "tag"]
    assert found.schema["age"] == pl.Int8
    assert found["tag"].cast(pl.String).to_list() == tags.cast(pl.String).to_list()


def test_several_files_are_one_input(do: Do, served: Recommender, tmp_path: Path, histories: list[list[RawId]]) -> None:
    (tmp_path / "many").mkdir()
    write(tmp_path / "many" / "b.parquet", histories[7:])
    write(tmp_path / "many" / "a [1]*.parquet", histories[:7])
    summary = do(source=tmp_path / "many", k=3)
    assert_same(answers(tmp_path / "out"), served.recommend(histories, k=3))
    assert answers(tmp_path / "out")["row"].to_list() == list(range(ROWS))
    assert summary.parts == 2 + 4  # 7 and 16 rows, 5 a part


def test_an_input_without_rows_gives_one_part_with_a_schema(do: Do, tmp_path: Path) -> None:
    pl.DataFrame(schema={"user": pl.Int32, "history": pl.List(pl.String)}).write_parquet(tmp_path / "none.parquet")
    summary = do(source=tmp_path / "none.parquet")
    found = answers(tmp_path / "out")
    assert (summary.rows, summary.parts, len(found)) == (0, 1, 0)
    assert found.schema == {
        "row": pl.Int64,
        "user": pl.Int32,
        "items": pl.List(pl.String),
        "scores": pl.List(pl.Float32),
        "status": pl.String,
    }


# --- the same bytes each time


def test_a_part_comes_to_the_same_bytes_in_any_order_and_again(prepare: Prepare, tmp_path: Path) -> None:
    folders = []
    for name, order in (("one", range(5)), ("two", [3, 0, 4, 2, 1])):
        job = prepare(out=tmp_path / name)
        with working_on(job):
            counts = {number: recommend_partition(job.job, job.parts[number]) for number in order}
        folders.append(contents(tmp_path / name))
        assert all(found.is_new for found in counts.values())
    assert folders[0] == folders[1]
    assert len(folders[0]) == 5 + 5 + 2  # parts, records, the job and the lock


def test_a_part_that_is_there_is_not_made_again(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepare()
    first = recommend_partition(job.job, job.parts[1])
    monkeypatch.setattr(partition, "_opened", lambda *_: pytest.fail("the bundle was opened"))
    assert recommend_partition(job.job, job.parts[1]) == dataclasses.replace(first, is_new=False)


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "no record", "half a record"])
def test_a_part_that_is_damaged_is_made_again(prepare: Prepare, tmp_path: Path, damage: str) -> None:
    job = prepare()
    recommend_partition(job.job, job.parts[1])
    before = contents(tmp_path / "out")
    part, record = (tmp_path / "out" / name for name in ("parts/000001.parquet", "done/000001.json"))
    blob = bytearray(part.read_bytes())
    blob[len(blob) // 2] ^= 1
    if damage == "changed":
        part.write_bytes(blob)
    elif damage == "cut":
        part.write_bytes(blob[:-9])
    elif damage == "missing":
        part.unlink()
    else:
        record.write_bytes(record.read_bytes()[: 40 if damage == "half a record" else 0])
    assert recommend_partition(job.job, job.parts[1]).is_new
    assert contents(tmp_path / "out") == before


def test_a_part_that_cannot_be_written_leaves_nothing(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = prepare()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        recommend_partition(job.job, job.parts[0])
    assert contents(tmp_path / "out") == {}


def test_a_part_of_another_job_does_not_count_as_done(prepare: Prepare) -> None:
    one, two = prepare(k=3), prepare(k=4)
    recommend_partition(one.job, one.parts[0])
    assert recommend_partition(two.job, two.parts[0]).is_new


def test_the_recommender_stays_open_for_the_next_part(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    partition._opened.cache_clear()
    loads = []
    load = Recommender.load
    monkeypatch.setattr(Recommender, "load", lambda *a, **o: loads.append(a) or load(*a, **o))
    job = prepare()
    for part in job.parts:
        recommend_partition(job.job, part)
    assert len(loads) == 1


def test_a_bundle_that_was_replaced_is_refused(prepare: Prepare, numbers: Path) -> None:
    job = prepare()
    with pytest.raises(BundleCorrupt, match="expected sha256:"):
        recommend_partition(dataclasses.replace(job.job, bundle=str(numbers)), job.parts[0])


def test_an_input_that_has_changed_is_refused(prepare: Prepare, source: Path, histories: list[list[RawId]]) -> None:
    job = prepare()
    write(source, histories[:-1])
    with pytest.raises(InputError, match=r"in\.parquet has changed since the job began"):
        recommend_partition(job.job, job.parts[0])


# --- rows that cannot be answered


def test_fault_117_damaged_rows_are_set_aside_with_their_reason_and_counted(
    do: Do, served: Recommender, tmp_path: Path
) -> None:
    good = ["item 01", "item 02"]
    rows = [good, None, good, ["item 01", None], good, good, good]
    file = write(tmp_path / "bad.parquet", rows)
    summary = do(source=file, k=3, max_bad=0.5)
    assert (summary.rows, summary.answered, summary.bad) == (7, 5, 2)
    assert summary.reasons == {"id_type": 1, "shape": 1}
    found = answers(tmp_path / "out")
    assert found["row"].to_list() == [0, 2, 4, 5, 6]
    assert_same(found, served.recommend([good] * 5, k=3))
    aside = quarantine(tmp_path / "out")
    assert [(line["row"], line["user"], line["code"]) for line in aside] == [
        (1, "user 1", "shape"),
        (3, "user 3", "id_type"),
    ]
    assert aside[0]["reason"] == "histories must be a list of item ids, got None"
    assert "got None (NoneType, place 1)" in aside[1]["reason"]
    assert {line["file"] for line in aside} == {"bad.parquet"}


def test_fault_117_a_row_is_numbered_in_its_file_and_in_the_whole_input(do: Do, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    good = ["item 01"]
    write(tmp_path / "many" / "a.parquet", [good] * 3)
    write(tmp_path / "many" / "b.parquet", [good] * 6 + [None, good])
    do(source=tmp_path / "many", max_bad=0.5)
    (line,) = quarantine(tmp_path / "out")
    assert (line["row"], line["file"], line["file_row"]) == (3 + 6, "b.parquet", 6)


def test_fault_117_a_row_whose_scores_are_no_numbers_is_found_and_set_aside(
    prepare: Prepare, served: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def recommend(self, histories: Any, **options: Any) -> Recommendations:
            if ["nothing of ours"] in histories:
                raise InferenceError("graph 'recommend' gave scores that are no numbers", code="non_finite_scores")
            return served.recommend(histories, **options)

    monkeypatch.setattr(partition, "_opened", lambda *_: Broken())
    job = prepare()
    counts = recommend_partition(job.job, job.parts[2])  # rows 10 to 14, the stranger is 11
    assert (counts.rows, counts.answered, counts.reasons) == (5, 4, {"non_finite_scores": 1})
    assert answers(tmp_path / "out")["row"].to_list() == [10, 12, 13, 14]
    assert quarantine(tmp_path / "out")[0]["row"] == 11


def test_unknown_items_set_a_row_aside_where_they_are_errors(do: Do, tmp_path: Path) -> None:
    summary = do(on_unknown="error", max_bad=0.1)
    assert summary.reasons == {"unknown_item": 1}
    assert quarantine(tmp_path / "out")[0]["row"] == 11


def test_a_part_of_nothing_but_bad_rows_is_a_file_without_rows(do: Do, tmp_path: Path) -> None:
    file = write(tmp_path / "bad.parquet", [["item 01"]] * 5 + [[None]] * 5)
    summary = do(source=file, max_bad=0.5)
    assert (summary.answered, summary.bad) == (5, 5)
    assert len(pl.read_parquet(tmp_path / "out" / "parts" / "000001.parquet")) == 0


def test_lines_of_rows_set_aside_are_json_whatever_the_users_are(do: Do, tmp_path: Path) -> None:
    frame = pl.DataFrame({"day": ["2026-01-02"], "history": [["item 01", None]]}, strict=False)
    frame.with_columns(pl.col("day").str.to_date()).write_parquet(tmp_path / "days.parquet")
    do(source=tmp_path / "days.parquet", user="day", max_bad=1)
    (path,) = (tmp_path / "out" / "quarantine").iterdir()
    assert json.loads(path.read_text())["user"] == "2026-01-02"


# --- times and users


class Clock:
    """Stands in for a model that reads times and users; what it is given is kept."""

    def __init__(self, served: Recommender) -> None:
        self._served, self.seen = served, []

    def recommend(
        self, histories: Any, *, timestamps: Any, request_time: Any, users: Any, **options: Any
    ) -> Recommendations:
        read_times(timestamps, np.array([len(row) for row in histories]))
        self.seen.append((timestamps, request_time, users))
        return self._served.recommend(histories, **options)


def timed(job: Plan) -> Any:
    """The job as it is planned for a model that reads times and users."""
    columns = dataclasses.replace(job.job.columns, timestamps="times", request_time="now")
    return dataclasses.replace(job.job, reads=("timestamps", "request_time", "users"), columns=columns)


@pytest.mark.parametrize("dtype", [pl.Int32, pl.Datetime("ms")], ids=["seconds", "dates"])
def test_times_and_users_reach_a_model_that_reads_them(
    prepare: Prepare, served: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    scale = 1000 if dtype == pl.Datetime("ms") else 1
    times = pl.Series([[10 * scale, 20 * scale], [5 * scale]], dtype=pl.List(pl.Int64)).cast(pl.List(dtype))
    now = pl.Series([30 * scale, None], dtype=pl.Int64).cast(dtype)
    file = write(tmp_path / "timed.parquet", [["item 01", "item 02"], ["item 03"]], times=times, now=now)
    clock = Clock(served)
    monkeypatch.setattr(partition, "_opened", lambda *_: clock)
    job = prepare(source=file, keep=("times",))
    recommend_partition(timed(job), job.parts[0])
    assert answers(tmp_path / "out")["times"].dtype == times.dtype
    assert clock.seen == [([[10, 20], [5]], [30, None], ["user 0", "user 1"])]


def test_fault_117_a_row_whose_times_fall_is_set_aside(
    prepare: Prepare, served: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ["item 01", "item 02"]
    times = [[1, 2], [2, 1], [3], None, [4, 5]]
    file = write(tmp_path / "timed.parquet", [pair] * 5, times=times, now=[9] * 5)
    monkeypatch.setattr(partition, "_opened", lambda *_: Clock(served))
    job = prepare(source=file)
    counts = recommend_partition(timed(job), job.parts[0])
    assert counts.reasons == {"shape": 1, "time_count": 1, "time_order": 1}
    assert answers(tmp_path / "out")["row"].to_list() == [0, 4]
    assert [line["row"] for line in quarantine(tmp_path / "out")] == [1, 2, 3]
