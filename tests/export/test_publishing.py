"""Publishing when things go wrong: killed at every step, four at once, a full disk, a store that may not be written."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import publisher
from genrec.modules import TransformerEncoder, save
from genrec_export import ExportError
from genrec_export.cli import main as command
from genrec_export.report import Report
from genrec_export.writer import check_store, leaving_evidence, staging
from genrec_runtime.bundle import Bundle
from genrec_runtime.manifest import Tolerance
from genrec_runtime.store import CURRENT, prune, target
from publisher import STEPS, at, before_every_step, copy_store, put
from recent import export_recent
from tiny import Tiny


def look(store: Path) -> str | None:
    """Which version is current; it and all that the store shows must be whole bundles."""
    for path in store.glob("[!.]*"):
        if not path.is_symlink():
            assert Bundle.open(path).manifest.version == path.name
    current = target(store, CURRENT)
    assert current is None or Bundle.open(store / CURRENT).path == store / current
    return current


def names(store: Path) -> set[str]:
    return {path.name for path in store.iterdir()}


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def program(*arguments: object, **environment: str) -> list[Any]:
    """What ``publisher`` prints, run as a program."""
    done = python(
        publisher.__file__, *arguments, OPENBLAS_NUM_THREADS="1", **environment
    )  # a process that forks has one thread
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def two_versions(tiny: Tiny, store: Path) -> str:
    """Fills a store with a previous and a current version; returns the latter's name."""
    put(tiny.path, store, "older")
    return put(tiny.path, store, "old").path.name


def check_killed(
    killed: list[tuple[str, int]], folder: Path, new: str, publish_again: Callable[[Path], object]
) -> None:
    """Looks at the store of each process that was killed."""
    assert len(killed) >= 20
    assert {code for _, code in killed} == {-signal.SIGKILL}
    before = folder / "before"
    shown = names(before) if before.exists() else {CURRENT}
    seen = []
    for number in range(len(killed)):
        store = folder / f"store {number}"
        seen.append(look(store))
        publish_again(store)
        assert look(store) == new
        prune(store, keep=3)
        assert names(store) == shown | {new}
    stayed = seen.index(new)
    assert stayed > 0
    assert seen == [look(before)] * stayed + [new] * (len(seen) - stayed)


@pytest.mark.parametrize("is_first", [True, False], ids=["the first version", "promoted over another"])
def test_fault_110_a_process_killed_at_any_step_leaves_what_was_there(
    tiny: Tiny, tmp_path: Path, is_first: bool
) -> None:
    if not is_first:
        two_versions(tiny, tmp_path / "before")
    killed = program("kill", tiny.path, tmp_path)
    kinds = {step.partition(" ")[0] for step, _ in killed}
    assert kinds == {*STEPS, "open", "write"} - ({"replace"} if is_first else set())
    new = put(tiny.path, tmp_path / "whole").path.name
    check_killed(killed, tmp_path, new, lambda store: put(tiny.path, store))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_fault_110_a_whole_export_killed_at_any_step_leaves_what_was_there(tmp_path: Path) -> None:
    export_recent(tmp_path / "before", k_max=9)
    export_recent(tmp_path / "before", k_max=10, promote=True)
    new = export_recent(tmp_path / "whole").version
    killed = program("kill-export", "", tmp_path, TMPDIR=str(tmp_path))
    check_killed(killed, tmp_path, new, lambda store: export_recent(store, promote=True))


@pytest.mark.parametrize("is_first", [True, False], ids=["the first version", "beside others"])
def test_fault_111_of_four_exporters_of_one_version_one_publishes_and_three_say_so(
    tiny: Tiny, tmp_path: Path, is_first: bool
) -> None:
    for number in range(4):
        store = tmp_path / str(number)
        current = None if is_first else two_versions(tiny, store)
        there = set() if is_first else names(store)
        results = program("race", tiny.path, store, "rename", *["new"] * 4)
        assert sorted(is_new for _, is_new in results) == [False, False, False, True]
        assert len({version for version, _ in results}) == 1
        new = results[0][0]
        assert names(store) == there | {CURRENT, new}
        assert look(store) == (current or new)


def test_fault_111_of_two_versions_published_at_once_in_an_empty_store_one_is_current(
    tiny: Tiny, tmp_path: Path
) -> None:
    results = program("race", tiny.path, tmp_path / "store", "symlink current", "one", "two")
    assert [is_new for _, is_new in results] == [True, True]
    versions = {version for version, _ in results}
    assert names(tmp_path / "store") == {CURRENT, *versions}  # no previous: nobody was served from the other
    assert look(tmp_path / "store") in versions


def test_a_version_that_is_there_must_be_the_same_bundle(tiny: Tiny, tmp_path: Path) -> None:
    store = tmp_path / "store"
    new = put(tiny.path, store).path
    shutil.rmtree(new)
    put(tiny.path, store, "other").path.rename(new)
    with pytest.raises(ExportError, match=rf"{new.name} holds another bundle, [0-9a-f]{{64}}; rename or remove it"):
        put(tiny.path, store)


def test_a_refused_exporter_that_made_the_store_does_not_stop_another(tiny: Tiny, tmp_path: Path) -> None:
    store, removed = tmp_path / "store", []

    def refused(step: str) -> None:
        if step.startswith("mkdir .tmp-") and store.exists() and len(removed) < 3:
            removed.append(step)
            store.rmdir()

    with before_every_step(refused):
        put(tiny.path, store)
    assert len(removed) == 3
    assert look(store)


def test_a_refused_exporter_leaves_a_store_that_another_uses(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with staging(store):
        check_store(store)
        with staging(store) as other:
            pass
        assert not other.exists()
        assert len(names(store)) == 1
    assert not store.exists()


def test_fault_109_a_disk_full_at_any_step_is_one_line_and_leaves_whole_versions(tiny: Tiny, tmp_path: Path) -> None:
    old = two_versions(tiny, tmp_path / "before")
    steps: list[str] = []
    store = copy_store(tmp_path, "counted")
    with before_every_step(steps.append):
        new = put(tiny.path, store).path.name
    seen = []
    for number, step in enumerate(steps):
        if step.startswith("unlink"):
            continue  # needs no space
        store = copy_store(tmp_path, str(number))
        with (
            before_every_step(at(number, full)),
            pytest.raises(ExportError, match=r"^cannot (write|publish) [^\n]*: No space left on device$"),
        ):
            put(tiny.path, store)
        seen.append(look(store))
        assert names(store) - {new} == names(tmp_path / "before"), step
    assert seen == [old] * seen.index(new) + [new]  # the last: syncing the links, which are in place


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_fault_109_evidence_that_does_not_fit_the_disk_is_not_left_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        full()

    monkeypatch.setattr(Path, "write_text", refuse)
    with (
        pytest.raises(ExportError, match=r"^no\; nor could .*store\.failed be written: No space left on device$"),
        leaving_evidence(tmp_path / "store", Report(Tolerance(1e-5, 1e-5))),
    ):
        raise ExportError("no")
    assert names(tmp_path) == set()


def saved_module(folder: Path) -> Path:
    save(TransformerEncoder(2000, 8, 2, 1, 8, max_seq_length=3), folder)
    (folder / "model.safetensors").chmod(0o644)  # for others to read
    return folder


def line_of(said: str) -> str:
    """The one line that a refused command says, beside its stages."""
    lines = [line for line in said.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, lines
    return lines[0]


def test_fault_109_the_command_says_that_the_disk_refuses_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    """The system refuses files above 32 KiB; the weights have 64."""
    store = tmp_path / "store"
    old, before = two_versions(tiny, store), names(store)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, resource.RLIM_INFINITY))"
    code = f"{limit}; from genrec_export.cli import main; main()"
    done = python("-c", code, saved_module(tmp_path / "encoder"), store)
    assert (done.returncode, done.stdout) == (1, "")
    refusal = rf"error: cannot write the bundle to {store}/\.tmp-\S+: File too large; more in {store}\.failed"
    assert re.fullmatch(refusal, line_of(done.stderr))
    assert look(store) == old
    assert names(store) == before


@pytest.mark.parametrize("name", ["store", "new"])
def test_fault_112_the_command_says_that_a_store_may_not_be_written_in_one_line(tiny: Tiny, name: str) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        folder = Path(place)
        store = folder / name
        two_versions(tiny, folder / "store")
        source = saved_module(folder / "encoder")
        for path in (folder, folder / "store"):
            path.chmod(0o555)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with as_nobody():
            done = CliRunner().invoke(command, [str(source), str(store)])
        assert (done.exit_code, done.stdout) == (1, "")
        assert line_of(done.stderr) == f"error: cannot write to the store {store}: Permission denied"
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        for path in (folder, folder / "store"):
            path.chmod(0o755)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Gives up root's right to write anywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)
