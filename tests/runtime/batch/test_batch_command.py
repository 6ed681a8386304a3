import contextlib
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from batch_folders import ROWS, answers, contents, write
from batch_processes import descendants, gone, wait_until
from genrec_runtime import Recommender
from genrec_runtime.cli import main
from tiny import Tiny

PARTS = 120
COMMAND = [sys.executable, "-c", "from genrec_runtime.cli import main; main()", "batch"]


def call(*arguments: Any) -> Result:
    """Runs the command; a traceback would be an exception other than the exit."""
    result = CliRunner().invoke(main, ["batch", *map(str, arguments), "--device", "cpu"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@contextlib.contextmanager
def running(arguments: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which is dead afterwards."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*COMMAND, *map(str, arguments), "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_file_is_answered_and_what_came_of_it_is_said(
    tiny: Tiny, source: Path, tmp_path: Path, served: Recommender, histories: list[Any]
) -> None:
    result = call(tiny.path, source, tmp_path / "out", "-k", 3, "--include-seen", "--part-rows", 10, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "23 rows: 23 answered (1 all_unknown, 1 cold_start, 21 model), 0 set aside",
        f"3 parts in {tmp_path / 'out' / 'parts'}, 3 of them made now",
    ]
    assert result.stderr == f"unknown to the bundle: 1 of {sum(map(len, histories))} item ids\n"
    assert answers(tmp_path / "out")["items"].to_list() == served.recommend(histories, k=3, exclude_seen=False).items


def test_rows_set_aside_are_said_and_too_many_end_it_with_1(tiny: Tiny, tmp_path: Path) -> None:
    file = write(tmp_path / "bad.parquet", [["item 01"], None, ["item 02"]])
    arguments = [tiny.path, file, tmp_path / "out"]
    refused = call(*arguments)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: 1 bad rows (1 shape) are more than the share 0.001 of 3")
    accepted = call(*arguments, "--max-bad", 0.5)
    assert accepted.exit_code == 0
    assert accepted.stderr == f"set aside in {tmp_path / 'out' / 'quarantine'}: 1 shape\n"


@pytest.mark.parametrize("wrong", [("--part-rows", 0), ("--max-bad", 2), ("--on-unknown", "skip")])
def test_misuse_ends_with_2(tiny: Tiny, source: Path, tmp_path: Path, wrong: tuple[Any, ...]) -> None:
    assert call(tiny.path, source, tmp_path / "out", *wrong).exit_code == 2


def test_on_a_terminal_progress_is_shown_and_elsewhere_nothing(tiny: Tiny, source: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with running([tiny.path, source, tmp_path / "out"], stderr=theirs) as process:
        assert process.wait(60) == 0
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while block := os.read(ours, 4096):
            shown += block
    os.close(ours)
    assert f"{ROWS}/{ROWS}".encode() in shown
    with running([tiny.path, source, tmp_path / "more", "-k", 3], stderr=subprocess.PIPE) as process:
        _, silent = process.communicate(timeout=60)
    assert "rows" not in silent


def test_a_full_disk_ends_it_in_one_line_and_leaves_nothing_half_written(
    tiny: Tiny, source: Path, tmp_path: Path
) -> None:
    def small() -> None:  # the job's file fits, a part does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    with running([tiny.path, source, tmp_path / "out"], stderr=subprocess.PIPE, preexec_fn=small) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("error: ")
    assert "File too large" in said
    assert sorted(contents(tmp_path / "out")) == [".lock", "job.json"]
    assert call(tiny.path, source, tmp_path / "out").exit_code == 0


# --- ended from without


@pytest.fixture
def long(tmp_path: Path, histories: list[Any]) -> Path:
    """So many rows that their parts are not done at once."""
    return write(tmp_path / "long.parquet", (histories * PARTS)[: 5 * PARTS])


@pytest.mark.parametrize("processes", [1, 2])
def test_fault_116_a_killed_job_goes_on_with_what_is_missing(
    tiny: Tiny, long: Path, tmp_path: Path, processes: int
) -> None:
    arguments = [tiny.path, long, tmp_path / "out", "--part-rows", 5, "--processes", processes, "--threads", 1]
    with running(arguments) as process:
        kill_half_way(process, tmp_path / "out", signal.SIGKILL)
    before = records(tmp_path / "out")
    result = call(*arguments)
    assert f"{PARTS - len(before)} of them made now" in result.stdout
    after = records(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    call(tiny.path, long, tmp_path / "clean", "--part-rows", 5, "--threads", 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


@pytest.mark.parametrize(
    ("signum", "code", "processes"),
    [(signal.SIGTERM, 128 + signal.SIGTERM, 1), (signal.SIGTERM, 128 + signal.SIGTERM, 2), (signal.SIGINT, 1, 2)],
    ids=["SIGTERM", "SIGTERM with processes", "SIGINT with processes"],
)
def test_an_ended_job_leaves_no_process_and_nothing_half_written(
    tiny: Tiny, long: Path, tmp_path: Path, signum: int, code: int, processes: int
) -> None:
    arguments = [tiny.path, long, tmp_path / "out", "--part-rows", 5, "--processes", processes, "--threads", 1]
    with running(arguments, stderr=subprocess.PIPE) as process:
        kill_half_way(process, tmp_path / "out", signum)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in said
    assert list((tmp_path / "out").rglob(".tmp-*")) == []
    assert call(*arguments).exit_code == 0
    assert len(answers(tmp_path / "out")) == 5 * PARTS


def kill_half_way(process: subprocess.Popen[str], out: Path, signum: int) -> None:
    """Sends a signal when some parts are done, and waits until nothing of the command is left."""
    wait_until(lambda: len(records(out)) >= 3)
    family = [process.pid, *descendants(process.pid)]
    process.send_signal(signum)
    wait_until(lambda: all(map(gone, family)))
    assert len(records(out)) < PARTS, "it was done before the signal came"


def records(out: Path) -> dict[str, int]:
    """The parts that are done, and when that was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "done").glob("0*.json")}
