"""A store in use: a process serves from it, and others change it, while versions are promoted, taken back and pruned."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genrec_runtime import BundleCorrupt, BundleNotFound, Recommender, bundle, store
from genrec_runtime.bundle import Bundle
from genrec_runtime.store import CURRENT, PREVIOUS, claim_current, point_current_to, promote, prune, rollback, target
from tiny import Tiny
from versions import write_versions

SERVE = """
import json, sys, time
from pathlib import Path
from genrec_runtime import Recommender

current, stop, histories = Path(sys.argv[1]) / "current", Path(sys.argv[2]), json.loads(sys.argv[3])
first = Recommender.load(current, device="cpu", threads=1)
for turn in range(20_000):
    if turn % 5 == 0:
        newest = Recommender.load(current, device="cpu", threads=1)
    for recommender in (first, newest):
        answer = recommender.recommend(histories, k=5)
        scores = [row.tolist() for row in answer.scores]
        print(json.dumps([recommender.manifest.version, [answer.items, scores]]), flush=True)
    if stop.exists():
        break
    time.sleep(0.005)
"""


@dataclass(frozen=True)
class Serving:
    """A process that serves from a store.

    Attributes:
        child: the process; it holds what it loaded first, and loads ``current`` again all the time.
        log: its answers: those of the first version and of the newest in turn.
        errors: what it complains of.
    """

    child: subprocess.Popen[bytes]
    log: Path
    errors: Path

    def answers(self) -> list[Any]:
        """Pairs of version and answer."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, version: str, turns: int = 10) -> None:
        """Until ``version`` is what it loaded last, for some turns."""
        end = time.monotonic() + 60
        while {name for name, _ in self.answers()[1::2][-turns:]} != {version}:
            assert self.child.poll() is None, self.errors.read_text()
            assert time.monotonic() < end, f"{version} is not served"
            time.sleep(0.02)


@contextlib.contextmanager
def serving(root: Path, histories: Any, scratch: Path) -> Iterator[Serving]:
    """Serves until the end of the block; it must not have failed."""
    stop, log, errors = scratch / "stop", scratch / "log", scratch / "errors"
    arguments = [sys.executable, "-c", SERVE, str(root), str(stop), json.dumps(histories)]
    with log.open("wb") as out, errors.open("wb") as err:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen(arguments, stdout=out, stderr=err, env=environment)
    try:
        yield Serving(child, log, errors)
        stop.touch()
        code = child.wait(60)
    finally:
        child.kill()
        child.wait()
    assert (code, errors.read_text()) == (0, "")


@pytest.fixture(scope="module")
def four(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, reseal: Callable[..., None]) -> Path:
    """A store of four versions, a day apart, of the same model with other weights."""
    root = tmp_path_factory.mktemp("four") / "store"
    write_versions(tiny.path, root, 4, reseal)
    return root


@pytest.fixture
def root(four: Path, tmp_path: Path) -> Path:
    """A store of four versions; none is current."""
    return Path(shutil.copytree(four, tmp_path / "store"))


def by_age(root: Path) -> list[str]:
    """Versions, the oldest first."""
    return [version.name for version in reversed(store.versions(root))]


def answer(path: Path, histories: Any) -> Any:
    served = Recommender.load(path, device="cpu", threads=1).recommend(histories, k=5)
    return [served.items, [row.tolist() for row in served.scores]]


def test_a_process_serves_each_version_whole_while_the_store_changes(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    a, b, c, d = by_age(root)
    histories = tiny.histories[:4]
    expected = {version: answer(root / version, histories) for version in (a, b, c)}
    assert len({json.dumps(lists) for lists in expected.values()}) == 3
    promote(root, a)
    with serving(root, histories, tmp_path) as process:
        process.wait_for(a)
        promote(root, b)
        process.wait_for(b)
        promote(root, c)
        process.wait_for(c)
        assert rollback(root) == b
        assert prune(root, keep=1) == [a]
        process.wait_for(b)
        flip_a_byte(root / d / "weights.bin")
        with pytest.raises(BundleCorrupt, match=r"weights\.bin was changed"):
            promote(root, d)
        assert (target(root, CURRENT), target(root, PREVIOUS)) == (b, c)
        process.wait_for(b)
    answers = process.answers()
    assert all(lists == expected[version] for version, lists in answers)
    assert {version for version, _ in answers[0::2]} == {a}  # held in memory, though pruned
    assert [version for version, _ in itertools.groupby(answers[1::2], lambda pair: pair[0])] == [a, b, c, b]
    assert {path.name for path in root.iterdir()} == {b, c, d, CURRENT, PREVIOUS}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_version_is_not_pruned_while_it_is_being_promoted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = by_age(root)
    verify, pruned = store.verify, []

    def verify_and_prune(path: Path, **options: Any) -> Any:
        seen = verify(path, **options)
        pruned.extend(prune(root, keep=1))
        return seen

    monkeypatch.setattr(store, "verify", verify_and_prune)
    promote(root, a)
    assert pruned == [c, b]
    assert {path.name for path in root.iterdir()} == {a, d, CURRENT}


def test_a_version_promoted_at_the_last_moment_is_put_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = by_age(root)
    before_rename(monkeypatch, lambda name: point_current_to(root, a) if name == a else None)
    assert prune(root, keep=1) == [c, b]
    assert Bundle.open(root / CURRENT).path == root / a
    assert {path.name for path in root.iterdir()} == {a, d, CURRENT}


def test_a_version_exported_again_at_the_last_moment_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = by_age(root)
    again = Path(shutil.copytree(root / a, root / store.hidden_name()))
    linked = store._linked

    def export_again(place: Path) -> set[str | None]:
        if not (root / a).exists() and again.exists():
            again.rename(root / a)
            claim_current(root, a)
        return linked(place)

    monkeypatch.setattr(store, "_linked", export_again)
    assert prune(root, keep=1) == [c, b]
    assert Bundle.open(root / CURRENT).path == root / a
    assert {path.name for path in root.iterdir()} == {a, d, CURRENT}


def test_what_is_current_does_not_move_even_for_a_moment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, _ = by_age(root)
    point_current_to(root, b)
    point_current_to(root, a)
    renamed: list[str] = []
    before_rename(monkeypatch, renamed.append)
    assert prune(root, keep=1) == renamed == [c]


def test_two_who_prune_at_once_remove_each_version_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = by_age(root)
    others: list[str] = []
    before_rename(monkeypatch, lambda name: others.extend(prune(root, keep=3)) if name == c else None)
    assert prune(root, keep=1) == [c, b]
    assert others == [a]
    assert {path.name for path in root.iterdir()} == {d}


def before_rename(monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]) -> None:
    """Lets another process, as it were, do something just before a folder is renamed."""
    rename = os.rename

    def late(source: Path, place: Path) -> None:
        act(source.name)
        rename(source, place)

    monkeypatch.setattr(os, "rename", late)


def test_a_promotion_killed_between_its_two_links_leaves_nothing_to_go_back_to(root: Path) -> None:
    a, b, *_ = by_age(root)
    promote(root, a)
    (root / PREVIOUS).symlink_to(a)  # the first of the links that promoting b sets
    with pytest.raises(BundleNotFound, match="no earlier version to go back to"):
        rollback(root)
    promote(root, b)
    assert rollback(root) == a


def test_a_version_that_is_pruned_while_it_is_loaded_gives_way_to_the_current_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, _ = by_age(root)
    point_current_to(root, a)

    def overtake() -> None:
        point_current_to(root, b)
        point_current_to(root, c)
        assert prune(root, keep=1) == [a]

    while_reading(monkeypatch, root / a, overtake)
    assert Recommender.load(root / CURRENT, device="cpu", threads=1).manifest.version == c


def test_a_version_named_by_its_folder_and_pruned_while_it_is_loaded_is_not_found(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, *_ = by_age(root)
    while_reading(monkeypatch, root / a, lambda: prune(root, keep=3))
    with pytest.raises(BundleNotFound, match=rf"no bundle at .*{a}; beside it: "):
        Bundle.open(root / a)


def while_reading(monkeypatch: pytest.MonkeyPatch, folder: Path, act: Callable[[], object]) -> None:
    """Does something after the manifest was read and before the first file is."""
    read = bundle._read_verified

    def late(*arguments: Any) -> Any:
        if folder.exists():
            act()
        return read(*arguments)

    monkeypatch.setattr(bundle, "_read_verified", late)
