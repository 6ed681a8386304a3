"""Following a link: swaps under load, refusals that leave the old bundle serving, and an orderly end."""

import gc
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genrec_runtime import BundleNotFound, InferenceError, InputError, Module, Recommender, Unsupported, memory
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.errors import Closed
from genrec_runtime.options import Options
from genrec_runtime.reloader import Event, Reloader
from genrec_runtime.store import point_current_to
from tiny import ITEMS, Tiny
from versions import write_versions

ON_CPU = Options("cpu", 1)
HISTORIES = [["item 01", "item 02"], ["item 03"], []]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def three(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, reseal: Callable[..., None]) -> Path:
    """A store of three versions of one model with other weights; none is current."""
    root = tmp_path_factory.mktemp("three") / "store"
    write_versions(tiny.path, root, 3, reseal)
    return root


@pytest.fixture
def store(three: Path, tmp_path: Path) -> Path:
    """A copy of the three, the first of which, by name, is current."""
    root = Path(shutil.copytree(three, tmp_path / "store"))
    point_current_to(root, names(root)[0])
    return root


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.is_symlink())


class Told(list[Event]):
    """The events of a reloader."""

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(event.kind, event.version) for event in self]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def following(store: Path, told: Told) -> Iterator[Reloader]:
    with Reloader(store / "current", options=ON_CPU, on_event=told.append) as following:
        yield following


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def answer(recommender: Recommender) -> Any:
    found = recommender.recommend(HISTORIES, k=5)
    return found.items, [scores.tolist() for scores in found.scores]


# --- swapping


def test_the_bundle_that_the_link_points_to_next_takes_over(store: Path, following: Reloader, told: Told) -> None:
    a, b, _ = names(store)
    old = following.recommender
    assert (old.manifest.version, following.reload()) == (a, False)
    point_current_to(store, b)
    assert following.recommender is old  # nothing happens by itself
    assert following.reload()
    assert not following.reload()
    assert following.recommender.manifest.version == b
    with following.borrow() as recommender:
        assert answer(recommender) == answer(Recommender.load(store / b, device="cpu", threads=1))
    with pytest.raises(Closed):
        old.recommend(HISTORIES)
    assert told.kinds == [("swapped", b)]
    assert following.last_error is None


def test_while_nothing_changes_nothing_is_read(following: Reloader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "read_manifest", None)
    assert not following.reload()
    assert following.last_error is None


def test_the_same_bundle_in_another_place_is_not_loaded_again(
    store: Path, following: Reloader, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, *_ = names(store)
    shutil.copytree(store / a, store / "copy")
    point_current_to(store, "copy")
    monkeypatch.setattr(Recommender, "_load", None)
    assert not following.reload()
    assert told == []


def test_a_bundle_is_warmed_up_before_it_serves(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    following = Reloader(store / "current", options=ON_CPU, rows=3)
    assert set(following.recommender._engine._sessions) == set(following.recommender.manifest.graphs)
    seen: list[tuple[int, bool]] = []
    warmup = Recommender.warmup

    def spy(recommender: Recommender, rows: int) -> None:
        warmup(recommender, rows)
        seen.append((rows, following.recommender is recommender))

    monkeypatch.setattr(Recommender, "warmup", spy)
    point_current_to(store, names(store)[1])
    assert following.reload()
    assert seen == [(3, False)]
    following.close()


def test_who_borrows_keeps_one_bundle_to_the_end(store: Path, following: Reloader) -> None:
    a, b, _ = names(store)
    point_current_to(store, b)
    swapping = threading.Thread(target=following.reload)
    with following.borrow() as recommender:
        before = answer(recommender)
        swapping.start()
        until(lambda: following.recommender.manifest.version == b)
        assert (answer(recommender), recommender.manifest.version) == (before, a)
        with following.borrow() as newer:
            assert newer.manifest.version == b
        assert swapping.is_alive()  # it drains
    swapping.join()
    with pytest.raises(Closed):
        recommender.recommend(HISTORIES)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_whoever_would_wait_for_himself_is_told_so(store: Path, following: Reloader) -> None:
    point_current_to(store, names(store)[1])
    with following.borrow():
        for call in (following.reload, following.close):
            with pytest.raises(RuntimeError, match="would wait for itself"):
                call()
    assert following.reload()


def test_what_is_available_is_carried_over(store: Path, following: Reloader, reseal: Callable[..., None]) -> None:
    _, b, c = names(store)
    following.recommender.set_available(ITEMS[5:9])
    point_current_to(store, b)
    assert following.reload()
    assert following.recommender.available == ITEMS[5:9]
    following.set_available([*ITEMS[:3], "an id of a later catalogue"])
    point_current_to(store, c)
    assert following.reload()
    assert following.recommender.available == ITEMS[:3]
    assert set(following.recommender.recommend([[]], k=20).items[0]) == set(ITEMS[:3])
    following.set_available(None)
    point_current_to(store, b)
    assert following.reload()
    assert following.recommender.available is None
    with pytest.raises(InputError):
        following.set_available("item 01")


def test_ids_that_only_the_next_catalogue_knows_become_available(
    store: Path, following: Reloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    following.set_available(["new", "item 01"])
    point_current_to(store, names(store)[1])
    monkeypatch.setattr(Recommender, "set_available", lambda recommender, items: given.append(items))
    assert following.reload()
    assert given == [["new", "item 01"]]


# --- refusing


def damage_weights(store: Path, version: str) -> None:
    flip_a_byte(store / version / "weights.bin")


def damage_manifest(store: Path, version: str) -> None:
    (store / version / "manifest.json").write_text("{")


def remove(store: Path, version: str) -> None:
    shutil.rmtree(store / version)


@pytest.mark.parametrize(
    ("damage", "message", "is_readable"),
    [
        pytest.param(damage_weights, r"weights\.bin was changed", True, id="weights"),
        pytest.param(damage_manifest, "manifest.json", False, id="manifest"),
        pytest.param(remove, "there is no bundle at", False, id="gone"),
    ],
)
def test_fault_103_a_broken_new_bundle_leaves_the_old_one_serving(
    store: Path,
    following: Reloader,
    told: Told,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path, str], None],
    message: str,
    is_readable: bool,
) -> None:
    _, b, c = names(store)
    before = answer(following.recommender)
    damage(store, b)
    point_current_to(store, b)
    for _ in range(3):  # told of once
        assert not following.reload()
    assert answer(following.recommender) == before
    assert told.kinds == [("refused", b if is_readable else "")]
    assert told[0].error is following.last_error
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "was refused, the one before serves on" in caplog.text
    with pytest.raises(type(following.last_error), match=message):
        raise following.last_error
    point_current_to(store, c)
    assert following.reload()
    assert following.last_error is None
    assert told.kinds[1:] == [("swapped", c)]


def test_fault_103_what_was_refused_is_tried_again_only_when_something_changed(
    store: Path, following: Reloader, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = names(store)
    whole = Path(shutil.copytree(store / b, store / "whole"))
    damage_weights(store, b)
    loads: list[Any] = []
    load = Recommender._load

    def spy(*arguments: Any) -> Recommender:
        loads.append(arguments)
        return load(*arguments)

    monkeypatch.setattr(Recommender, "_load", spy)
    for _ in range(3):
        point_current_to(store, b)
        assert [following.reload() for _ in range(3)] == [False] * 3
        point_current_to(store, a)
        assert not following.reload()
        assert following.last_error is None
    assert len(loads) == 3  # once for each time that the link came to point there
    point_current_to(store, b)
    assert not following.reload()
    shutil.rmtree(store / b)
    whole.rename(store / b)  # mended in place
    assert following.reload()
    assert told.kinds == [("refused", b)] * 4 + [("swapped", b)]


def test_fault_103_a_bundle_that_answers_otherwise_here_is_refused(
    store: Path, following: Reloader, reseal: Callable[..., None]
) -> None:
    _, b, c = names(store)
    for graph in ("recommend", "similar"):  # opened at once; opened by the warming up
        shutil.copy(store / c / "golden" / f"{graph}.npz", store / b / "golden" / f"{graph}.npz")
        reseal(store / b)
        point_current_to(store, b)
        assert not following.reload()
        assert getattr(following.last_error, "code", None) == "golden_mismatch"
        point_current_to(store, names(store)[0])


def test_fault_103_a_refused_bundle_stays_in_memory_no_longer(
    store: Path, following: Reloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engines(monkeypatch)
    monkeypatch.setattr(Recommender, "warmup", lambda *_: 1 / 0)
    point_current_to(store, names(store)[1])
    assert not following.reload()
    assert isinstance(following.last_error, ZeroDivisionError)
    gc.collect()
    assert [engine() for engine in made] == [None]


def engines(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Engine]]:
    """Every engine that is made from now on."""
    made: list[weakref.ref[Engine]] = []
    prepare = Engine.__init__

    def spy(engine: Engine, *arguments: Any, **options: Any) -> None:
        made.append(weakref.ref(engine))
        prepare(engine, *arguments, **options)

    monkeypatch.setattr(Engine, "__init__", spy)
    return made


def test_a_module_is_refused(store: Path, following: Reloader, features: Path) -> None:
    (store / "current").unlink()
    (store / "current").symlink_to(features)
    assert not following.reload()
    assert isinstance(following.last_error, Unsupported)
    assert Module.load(features, device="cpu", threads=1).run is not None


def test_too_little_memory_refuses_until_there_is_more(
    store: Path, following: Reloader, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, _ = names(store)
    point_current_to(store, b)
    monkeypatch.setattr(memory, "free_memory", lambda: 10 << 20)
    for _ in range(3):
        assert not following.reload()
    message = rf"version {b} beside the one that serves may take \d+ MiB, and 10 are free"
    with pytest.raises(InferenceError, match=message) as caught:
        raise told[0].error or AssertionError
    assert caught.value.code == "out_of_memory"
    monkeypatch.undo()
    assert following.reload()
    assert told.kinds == [("refused", b), ("swapped", b)]


def test_the_first_bundle_must_be_whole(store: Path) -> None:
    damage_weights(store, names(store)[0])
    with pytest.raises(Exception, match=r"weights\.bin was changed"):
        Reloader(store / "current", options=ON_CPU)
    with pytest.raises(BundleNotFound):
        Reloader(store / "nothing", options=ON_CPU)


def test_an_ear_that_fails_stops_nothing(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Reloader(store / "current", options=ON_CPU, on_event=lambda event: 1 / 0) as following:
        point_current_to(store, names(store)[1])
        assert following.reload()
        assert "on_event failed" in caplog.text


# --- many at once


def while_loading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Does something before the next bundle is opened, and only then."""
    load = Recommender._load

    def late(*arguments: Any) -> Recommender:
        monkeypatch.setattr(Recommender, "_load", load)
        act()
        return load(*arguments)

    monkeypatch.setattr(Recommender, "_load", late)


def test_fault_104_a_link_that_moves_during_a_load_and_back_is_followed(
    store: Path, following: Reloader, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, c = names(store)
    point_current_to(store, b)
    while_loading(monkeypatch, lambda: point_current_to(store, c))
    assert following.reload()
    assert following.recommender.manifest.version == b  # what was found, not what the link points to by now
    for version in (c, b, c):
        point_current_to(store, version)
        assert following.reload()
        assert following.recommender.manifest.version == version
    assert told.kinds == [("swapped", version) for version in (b, c, b, c)]


def test_fault_104_what_is_pruned_during_its_load_gives_way_to_the_newest(
    store: Path, following: Reloader, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, c = names(store)

    def overtake() -> None:
        point_current_to(store, c)
        remove(store, b)

    point_current_to(store, b)
    while_loading(monkeypatch, overtake)
    assert following.reload()
    assert told.kinds == [("swapped", c)]
    assert following.last_error is None


def test_fault_104_the_first_link_may_move_during_its_load_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, _ = names(store)
    while_loading(monkeypatch, lambda: point_current_to(store, b))
    with Reloader(store / "current", options=ON_CPU) as following:
        assert following.recommender.manifest.version == b
        point_current_to(store, a)
        assert following.reload()
        assert following.recommender.manifest.version == a


def test_fault_104_in_a_storm_of_swaps_one_bundle_is_loaded_at_a_time_and_the_newest_wins(
    store: Path, following: Reloader, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = names(store)
    expected = {name: answer(Recommender.load(store / name, device="cpu", threads=1)) for name in (a, b, c)}
    made, most, loading, wrong = engines(monkeypatch), [0], [0], []
    load, done = following._load, threading.Event()

    def spy(path: str) -> Recommender:
        loading[0] += 1
        assert loading[0] == 1
        recommender = load(path)
        most[0] = max(most[0], sum((engine := ref()) is not None and bool(engine._sessions) for ref in made))
        loading[0] -= 1
        return recommender

    def call() -> None:
        while not done.is_set():
            with following.borrow() as recommender:
                if answer(recommender) != expected[recommender.manifest.version]:
                    wrong.append(recommender.manifest.version)

    def follow() -> None:
        while not done.is_set():
            following.reload()

    monkeypatch.setattr(following, "_load", spy)
    threads = [threading.Thread(target=target) for target in (call, call, follow, follow, follow)]
    for thread in threads:
        thread.start()
    for swap in range(100):
        point_current_to(store, (b, c, a)[swap % 3])
        time.sleep(0.02)
    point_current_to(store, b)
    done.set()
    for thread in threads:
        thread.join()
    following.reload()
    assert following.recommender.manifest.version == b
    assert wrong == []
    assert {event.kind for event in told} == {"swapped"}
    assert most[0] <= 2  # the one that serves and the one that is loaded
    gc.collect()
    assert sum((engine := ref()) is not None and bool(engine._sessions) for ref in made) <= 1


# --- watching and closing


def test_a_watched_link_is_followed_and_closing_ends_the_thread(store: Path, told: Told) -> None:
    _, b, c = names(store)
    following = Reloader(store / "current", options=ON_CPU, on_event=told.append)
    with following:
        following.watch(0.01)
        with pytest.raises(RuntimeError, match="watches already"):
            following.watch(1)
        for version in (b, c):
            point_current_to(store, version)
            until(lambda version=version: following.recommender.manifest.version == version)
        remove(store, b)
        point_current_to(store, b)
        until(lambda: following.last_error is not None)
        assert answer(following.recommender)
        watcher = following._watcher
    assert watcher is not None
    assert not watcher.is_alive()
    for call in (following.reload, lambda: following.watch(1), lambda: following.set_available(None)):
        with pytest.raises(Closed, match="this reloader was closed"):
            call()
    with pytest.raises(Closed), following.borrow():
        pass
    with pytest.raises(Closed):
        following.recommender.recommend(HISTORIES)
    following.close()


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_is_seconds_above_zero(following: Reloader, interval: float) -> None:
    with pytest.raises(ValueError, match=r"interval \(.*\) must be seconds above 0"):
        following.watch(interval)


def test_closing_waits_for_whoever_borrows(store: Path) -> None:
    following = Reloader(store / "current", options=ON_CPU)
    closing = threading.Thread(target=following.close)
    with following.borrow() as recommender:
        closing.start()
        until(following._stop.is_set)
        assert answer(recommender)
        assert closing.is_alive()
    closing.join()
    with pytest.raises(Closed):
        recommender.recommend(HISTORIES)


def test_whoever_is_told_may_look_again_and_close(store: Path) -> None:
    def look_and_close(event: Event) -> None:
        assert not following.reload()
        following.close()

    following = Reloader(store / "current", options=ON_CPU, on_event=look_and_close)
    point_current_to(store, names(store)[1])
    following.watch(0.01)
    until(lambda: not following.recommender._engine._sessions)
    following._watcher.join()


def test_fault_92_a_fork_may_not_use_what_its_parent_follows(store: Path, run_python: Run) -> None:
    code = """
import os, signal, sys
from genrec_runtime.errors import ForkedProcessError
from genrec_runtime.options import Options
from genrec_runtime.reloader import Reloader
following = Reloader(sys.argv[1], options=Options("cpu", 2))
following.watch(0.01)
following._changed.acquire()  # as a thread that is not in the child may have
child = os.fork()
if child == 0:
    signal.alarm(60)
    for call in (lambda: following.borrow().__enter__(), following.reload, lambda: following.set_available(None)):
        try:
            call()
        except ForkedProcessError:
            continue
        os._exit(1)
    following.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
following._changed.release()
following.close()
"""
    run_python(code, str(store / "current"), options=["-W", "ignore::DeprecationWarning"])
