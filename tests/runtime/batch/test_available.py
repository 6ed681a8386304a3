"""Offline jobs in which only the items of a file are recommended."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from batch_folders import answers, contents
from genrec_runtime import GenrecError, InputError, Recommender
from genrec_runtime.batch import Plan, Summary, partition, recommend_partition, run
from genrec_runtime.cli import main
from tiny import ITEMS, Tiny

OPEN = ITEMS[3:9]  # the most popular is not among them


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """A file of six items, and one that the bundle lacks."""
    path = tmp_path / "ids.txt"
    path.write_text("\n".join([*OPEN, "", "not yet known"]), encoding="utf-8")
    return path


def test_only_items_of_the_file_are_recommended_with_several_processes_as_with_one(
    prepare: Callable[..., Plan],
    do: Callable[..., Summary],
    served: Recommender,
    histories: Any,
    ids: Path,
    tmp_path: Path,
) -> None:
    do(k=4, availability=ids)
    expected = served.recommend(histories, k=4, available=OPEN)
    assert answers(tmp_path / "out")["items"].to_list() == expected.items
    assert {item for row in expected.items for item in row} == set(OPEN)
    run(prepare(k=4, availability=ids, out=tmp_path / "more"), processes=2, threads=1)
    assert contents(tmp_path / "more") == contents(tmp_path / "out")


@pytest.mark.parametrize("other", ["item 04\nitem 05\n", None], ids=["another file", "no file"])
def test_fault_116_a_restart_with_another_file_is_refused(
    do: Callable[..., Summary], ids: Path, tmp_path: Path, other: str | None
) -> None:
    do(availability=ids)
    before = contents(tmp_path / "out")
    if other is not None:
        ids.write_text(other, encoding="utf-8")
    with pytest.raises(GenrecError, match="holds another job, of other availability; name another folder"):
        do(availability=None if other is None else ids)
    assert contents(tmp_path / "out") == before


def test_a_job_without_a_file_does_not_go_on_with_one(do: Callable[..., Summary], ids: Path) -> None:
    do()
    with pytest.raises(GenrecError, match="of other availability;"):
        do(availability=ids)


def test_the_same_ids_at_another_place_go_on(do: Callable[..., Summary], ids: Path, tmp_path: Path) -> None:
    first = do(availability=ids)
    assert do(availability=ids.rename(tmp_path / "moved.txt")) == dataclasses.replace(first, new_parts=0)


def test_a_file_that_changes_while_the_job_runs_ends_it(prepare: Callable[..., Plan], ids: Path) -> None:
    partition._opened.cache_clear()
    job = prepare(availability=ids)
    ids.write_text("item 04\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"ids\.txt has changed since the job began") as caught:
        recommend_partition(job.job, job.parts[0])
    assert (caught.value.code, caught.value.field) == ("table", "availability")


def test_a_process_that_opened_the_bundle_for_one_file_does_not_answer_by_another(
    prepare: Callable[..., Plan], ids: Path, tmp_path: Path
) -> None:
    every, some = prepare(out=tmp_path / "every"), prepare(out=tmp_path / "some", availability=ids)
    for job in (some, every, some):
        recommend_partition(job.job, job.parts[0])
    assert set(answers(tmp_path / "some")["items"].explode()) <= set(OPEN)
    assert not set(answers(tmp_path / "every")["items"].explode()) <= set(OPEN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "none of the 0 ids in .*ids.txt is an item"),
        (b"\xff", "is no text in UTF-8"),
        (b"other\n", "none of the 1 ids"),
    ],
)
def test_a_file_that_allows_nothing_is_refused_before_anything_is_written(
    do: Callable[..., Summary], ids: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    ids.write_bytes(content)
    with pytest.raises(InputError, match=said):
        do(availability=ids)
    assert not (tmp_path / "out").exists()


def test_ids_that_are_numbers_are_read_as_numbers(do: Callable[..., Summary], numbers: Path, tmp_path: Path) -> None:
    pl.DataFrame({"history": [[5, 11], [0]]}).write_parquet(tmp_path / "ints.parquet")
    (tmp_path / "ids").write_text("77\n-7\n", encoding="utf-8")
    do(bundle=numbers, source=tmp_path / "ints.parquet", availability=tmp_path / "ids", k=5)
    assert [set(row) for row in answers(tmp_path / "out")["items"]] == [{77, -7}] * 2


def test_the_command_takes_such_a_file(tiny: Tiny, source: Path, ids: Path, tmp_path: Path) -> None:
    words = ["batch", tiny.path, source, tmp_path / "out", "--availability", ids, "--device", "cpu", "--threads", 1]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert set(answers(tmp_path / "out")["items"].explode()) == set(OPEN)
    ids.unlink()
    gone = CliRunner().invoke(main, list(map(str, words)))
    assert gone.exit_code == 1
    assert "No such file" in gone.stderr
    assert str(ids) in gone.stderr
