import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import batch_work
from batch_processes import gone, wait_until
from genrec_runtime import GenrecError, InputError
from genrec_runtime.batch.pool import in_processes

PARTS = [5, 3, 8, 2]
SQUARES = sorted(number * number for number in PARTS)


@pytest.mark.parametrize("processes", [1, 2, 7], ids=["one process", "two", "more than parts"])
def test_every_part_is_done_once(processes: int) -> None:
    assert sorted(in_processes(batch_work.square, PARTS, processes, threads=1)) == SQUARES


def test_no_parts_need_no_process() -> None:
    assert list(in_processes(batch_work.square, [], 2, threads=1)) == []


def test_fault_116_the_part_of_a_process_that_dies_is_done_by_another(tmp_path: Path) -> None:
    work = batch_work.bound(batch_work.die_at, tmp_path)
    assert sorted(in_processes(work, PARTS, 2, threads=1)) == SQUARES
    assert (tmp_path / "seen").exists()


def test_a_part_whose_process_always_dies_is_given_up() -> None:
    with pytest.raises(GenrecError, match=r"at part 0 died 3 times \(signal 9, Killed\); perhaps memory") as caught:
        list(in_processes(batch_work.always_die, [5], 1, threads=1))
    assert caught.value.code == "worker_died"


def test_an_error_of_the_work_is_raised_here() -> None:
    with pytest.raises(InputError, match="not this one") as caught:
        list(in_processes(batch_work.refuse, [4], 1, threads=1))
    assert (caught.value.code, caught.value.row) == ("k", 4)
    with pytest.raises(GenrecError, match="RuntimeError: something else"):
        list(in_processes(batch_work.fail, [4], 1, threads=1))


def test_processes_end_when_nobody_wants_the_rest(tmp_path: Path) -> None:
    work = batch_work.bound(batch_work.die_at, tmp_path)
    results = in_processes(work, [1, 2, 4, 5, 6, 7], 2, threads=1)
    next(results)
    children = [child.pid for child in multiprocessing.active_children()]
    results.close()
    assert len(children) == 2
    assert all(gone(child) for child in children)


def test_fault_116_processes_do_not_outlive_the_one_that_started_them(tmp_path: Path) -> None:
    code = (
        "import sys, batch_work; from pathlib import Path; from genrec_runtime.batch.pool import in_processes\n"
        "list(in_processes(batch_work.bound(batch_work.stand_still, Path(sys.argv[1])), [1, 2], 2, 1))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        children = [int(path.name.split()[1]) for path in tmp_path.iterdir()]
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: all(gone(child) for child in children))
    finally:
        parent.kill()
        parent.wait()
