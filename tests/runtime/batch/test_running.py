import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

import batch_work
from batch_folders import ROWS, answers, contents, write
from genrec.histories import RawId
from genrec_runtime import GenrecError, InputError
from genrec_runtime.batch import Counts, Plan, Summary, recommend_partition, run
from genrec_runtime.batch.pool import in_processes
from genrec_runtime.batch.publish import working_on
from genrec_runtime.batch.running import summarize

Prepare = Callable[..., Plan]
Do = Callable[..., Summary]


@pytest.fixture
def clean(do: Do, tmp_path: Path) -> dict[str, bytes]:
    """The files of a job that nothing disturbed."""
    do(out=tmp_path / "clean")
    return contents(tmp_path / "clean")


# --- going on


def test_a_finished_job_is_left_as_it_is(do: Do, tmp_path: Path, clean: dict[str, bytes]) -> None:
    first, second = do(out=tmp_path / "clean"), do(out=tmp_path / "clean")
    assert first == second == dataclasses.replace(first, new_parts=0)
    assert contents(tmp_path / "clean") == clean


def test_only_what_is_missing_is_made(do: Do, prepare: Prepare, tmp_path: Path, clean: dict[str, bytes]) -> None:
    job = prepare()
    with working_on(job):
        for number in (0, 3):
            recommend_partition(job.job, job.parts[number])
    seen: list[Counts] = []
    summary = run(job, threads=1, watch=seen.append)
    assert summary.new_parts == 3
    assert [found.part for found in seen if found.is_new] == [1, 2, 4]
    assert contents(tmp_path / "out") == clean


def test_what_a_killed_process_left_half_written_is_cleared_away(
    do: Do, prepare: Prepare, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    with working_on(prepare()):
        pass
    (tmp_path / "out" / "parts" / ".tmp-4194305-00ff").write_bytes(b"half")
    do()
    assert contents(tmp_path / "out") == clean


def test_several_processes_give_the_same_files_as_one(
    prepare: Prepare, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    summary = run(prepare(), processes=2, threads=1)
    assert summary.new_parts == 5
    assert contents(tmp_path / "out") == clean


def test_fault_116_a_process_killed_between_a_part_and_its_record_changes_nothing(
    prepare: Prepare, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    job = prepare()
    plain = dataclasses.replace(job.job, threads=1)
    with working_on(job):
        work = functools.partial(batch_work.dying_partition, tmp_path, plain)
        summary = summarize(job, in_processes(work, job.parts, 2, threads=1), max_bad=0)
    assert (tmp_path / "died").exists()
    assert summary.answered == ROWS
    assert contents(tmp_path / "out") == clean


# --- refusals


@pytest.mark.parametrize(
    ("change", "named"),
    [({"k": 4}, "ask"), ({"history": "other"}, "columns"), ({"part_rows": 6}, "part_rows")],
    ids=["asked", "columns", "parts"],
)
def test_a_folder_of_another_job_is_refused(
    do: Do, source: Path, histories: list[list[RawId]], tmp_path: Path, change: dict, named: str
) -> None:
    write(source, histories, other=histories)
    do()
    before = contents(tmp_path / "out")
    with pytest.raises(GenrecError, match=f"holds another job, of other {named}; name another folder") as caught:
        do(**change)
    assert caught.value.code == "job"
    assert contents(tmp_path / "out") == before


def test_a_folder_of_another_bundle_or_input_is_refused(
    do: Do, copied: Path, source: Path, histories: list[list[RawId]], reseal: Callable[..., None]
) -> None:
    do()
    reseal(copied, lambda data: data["model"].update(name="another"))
    with pytest.raises(GenrecError, match="of other bundle;"):
        do(bundle=copied)
    write(source, histories[1:])
    with pytest.raises(GenrecError, match="of other input;"):
        do()


def test_a_folder_of_something_else_is_refused(do: Do, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    with pytest.raises(GenrecError, match=r"is not empty and holds no job \(thesis.txt is there\)"):
        do()


def test_a_folder_where_another_process_works_is_refused(prepare: Prepare, do: Do) -> None:
    with working_on(prepare()), pytest.raises(GenrecError, match="another process is at work"):
        do()
    do()  # and free again


@pytest.mark.parametrize(("name", "value"), [("processes", 0), ("max_bad", 1.5), ("max_bad", -0.1)])
def test_options_out_of_range_are_refused(prepare: Prepare, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} \({value}\) must be"):
        run(prepare(), **{name: value})


# --- bad rows


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """Twenty rows, of which the two last are bad."""
    return write(tmp_path / "bad.parquet", [["item 01"]] * 18 + [None, [None]])


def test_fault_117_more_bad_rows_than_allowed_end_the_job(do: Do, bad: Path, tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match=r"2 bad rows \(.*1 id_type.*\) are more than the share 0.09 of 20") as caught:
        do(source=bad, max_bad=0.09)  # 1.8 rows
    assert caught.value.code == "bad_rows"
    assert do(source=bad, max_bad=0.1).bad == 2  # and go on where more are allowed
    assert len(answers(tmp_path / "out")) == 18


@pytest.mark.parametrize("processes", [1, 2])
def test_fault_117_a_job_ends_as_soon_as_it_is_sure_of_too_many_bad_rows(
    prepare: Prepare, tmp_path: Path, processes: int
) -> None:
    file = write(tmp_path / "bad.parquet", [None] * 5 + [["item 01"]] * 95)
    with pytest.raises(GenrecError, match="5 bad rows"):
        run(prepare(source=file), threads=1, processes=processes, max_bad=0.04)
    if processes == 1:
        assert len(list((tmp_path / "out" / "done").iterdir())) == 1
    assert multiprocessing.active_children() == []


def test_counts_that_do_not_add_up_are_a_fault(prepare: Prepare) -> None:
    job = prepare()
    with pytest.raises(GenrecError, match=f"for {ROWS} rows of the input"):
        summarize(job, [Counts(0, rows=5, answered=5, bad=0)], max_bad=0)


def test_an_input_that_changes_during_the_job_ends_it(prepare: Prepare, source: Path) -> None:
    job = prepare()
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cannot be read|has changed"):
        run(job, threads=1)


def test_the_jobs_file_says_what_was_asked(do: Do, tmp_path: Path) -> None:
    do(k=3)
    found = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (found["ask"]["k"], found["columns"]["history"], found["part_rows"]) == (3, "history", 5)
    assert found["bundle"].startswith("sha256:")
    assert [(file["path"], file["rows"]) for file in found["input"]] == [("in.parquet", ROWS)]
