"""Offline jobs on a Ray cluster of two nodes on loopback: the output is that of one machine, whatever dies."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ray_clusters
from batch_folders import answers, contents, write
from batch_processes import gone, wait_until
from genrec_runtime import GenrecError, InputError
from genrec_runtime.batch import Ask, Counts, Plan, plan, run
from genrec_runtime.cli import main
from genrec_runtime.onray import offline
from genrec_runtime.onray.offline import run_on_ray
from tiny import ITEMS, Tiny, make_histories

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]

PARTS = 60
ROWS = 5 * PARTS - 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of two CPUs each; the second may be taken away by a test, which puts another in its place."""
    with ray_clusters.cluster(2, 2) as found:
        yield found


@pytest.fixture
def prepare(tiny: Tiny, tmp_path: Path) -> Callable[[str], Plan]:
    """Plans a job of 60 parts into a folder of a name; the rows 4 and 200 cannot be answered."""
    histories: list[Any] = make_histories(ITEMS, ROWS, 9)
    histories[4] = histories[200] = None
    source = write(tmp_path / "in.parquet", histories)
    return lambda name: plan(tiny.path, source, tmp_path / name, ask=Ask(k=3, device="cpu"), part_rows=5)


@pytest.fixture
def clean(prepare: Callable[[str], Plan], tmp_path: Path) -> dict[str, bytes]:
    """Every file that one process makes of the job."""
    run(prepare("clean"), threads=1, max_bad=0.01)
    return contents(tmp_path / "clean")


def on(cluster: Any, job: Plan, **options: Any) -> Any:
    return run_on_ray(job, cluster.address, **{"max_bad": 0.01, **options})


def test_the_output_is_that_of_one_machine_and_a_second_run_makes_nothing(
    cluster: Any, prepare: Callable[[str], Plan], clean: dict[str, bytes], tmp_path: Path
) -> None:
    found = on(cluster, prepare("out"))
    assert (found.rows, found.answered, found.bad, found.parts, found.new_parts) == (ROWS, ROWS - 2, 2, PARTS, PARTS)
    assert contents(tmp_path / "out") == clean
    (tmp_path / "out" / "parts" / "000007.parquet").unlink()
    assert on(cluster, prepare("out")).new_parts == 1
    assert contents(tmp_path / "out") == clean


def test_fault_116_a_worker_killed_in_the_middle_of_a_part_costs_nothing(
    cluster: Any,
    prepare: Callable[[str], Plan],
    clean: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline, "Maker", ray_clusters.HeldMaker)
    held = tmp_path / "out.held"

    def kill() -> None:
        wait_until(held.exists)
        os.kill(int(held.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = on(cluster, prepare("out"))
    killer.join()
    wait_until(lambda: gone(int(held.read_text())))
    assert found.new_parts == PARTS
    assert contents(tmp_path / "out") == clean
    begun = [int(words[2]) for words in ray_clusters.notes(str(tmp_path / "out"))]
    assert set(begun) == set(range(PARTS))
    assert begun.count(7) == 2, "the part of the killed worker was not begun again"


def test_fault_116_a_worker_killed_before_its_record_leaves_no_row_twice(
    cluster: Any,
    prepare: Callable[[str], Plan],
    clean: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline, "Maker", ray_clusters.DyingMaker)
    on(cluster, prepare("out"))
    assert (tmp_path / "died").exists()
    assert contents(tmp_path / "out") == clean


@pytest.mark.parametrize("workers", [None, 4], ids=["a slot to spare", "every slot taken"])
def test_fault_116_a_lost_node_costs_nothing(
    cluster: Any,
    prepare: Callable[[str], Plan],
    clean: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int | None,
) -> None:
    monkeypatch.setattr(offline, "Maker", ray_clusters.SlowMaker)
    doomed = next(iter(cluster.worker_nodes))
    lost: list[int] = []

    def watch(found: Counts) -> None:
        seen = [words for words in ray_clusters.notes(str(tmp_path / "out")) if words[0] == doomed.node_id]
        if len(seen) > 2 and not lost:
            lost.append(len(list((tmp_path / "out" / "done").iterdir())))
            cluster.remove_node(doomed, allow_graceful=False)

    found = on(cluster, prepare("out"), workers=workers, watch=watch)
    cluster.add_node(**ray_clusters.node(2))
    assert lost[0] < PARTS, "the job was done before the node was lost"
    assert found.rows == ROWS
    assert contents(tmp_path / "out") == clean


def test_a_part_at_which_every_worker_dies_ends_the_job(
    cluster: Any, prepare: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "Maker", ray_clusters.DeadlyMaker)
    planned = prepare("out")
    with pytest.raises(GenrecError, match="the worker at part 1 died 3 times; perhaps memory ran out") as caught:
        on(cluster, planned)
    assert caught.value.code == "worker_died"
    monkeypatch.undo()
    assert on(cluster, planned).rows == ROWS
    assert list(Path(planned.job.out).rglob(".tmp-*")) == []


def test_an_error_of_the_work_is_raised_here(cluster: Any, prepare: Callable[[str], Plan], tmp_path: Path) -> None:
    planned = prepare("out")
    write(tmp_path / "in.parquet", [["item 01"]])
    with pytest.raises(InputError, match="has changed since the job began") as caught:
        on(cluster, planned)
    assert caught.value.code == "table"


def test_too_many_bad_rows_end_the_job(cluster: Any, prepare: Callable[[str], Plan]) -> None:
    with pytest.raises(GenrecError, match=r"bad rows \(\d shape\) are more than the share 0.001"):
        on(cluster, prepare("out"), max_bad=0.001)


def test_the_command_works_on_a_cluster(
    cluster: Any, prepare: Callable[[str], Plan], clean: dict[str, bytes], tiny: Tiny, tmp_path: Path
) -> None:
    arguments = [tiny.path, tmp_path / "in.parquet", tmp_path / "out", "-k", 3, "--part-rows", 5, "--max-bad", 0.01]
    line = ["batch", *map(str, arguments), "--device", "cpu", "--ray", cluster.address, "--processes", "2"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    assert f"{PARTS} parts in {tmp_path / 'out' / 'parts'}, {PARTS} of them made now" in result.stdout
    assert contents(tmp_path / "out") == clean


def test_only_items_that_are_available_are_recommended_on_a_cluster(
    cluster: Any, prepare: Callable[[str], Plan], tiny: Tiny, tmp_path: Path
) -> None:
    prepare("none")  # writes the input
    (tmp_path / "ids").write_text("\n".join(ITEMS[3:9]), encoding="utf-8")
    options = {"ask": Ask(k=3, device="cpu"), "availability": tmp_path / "ids", "part_rows": 50}
    one, many = (plan(tiny.path, tmp_path / "in.parquet", tmp_path / name, **options) for name in ("one", "many"))
    run(one, threads=1, max_bad=0.01)
    on(cluster, many)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert set(answers(tmp_path / "many")["items"].explode()) == set(ITEMS[3:9])
