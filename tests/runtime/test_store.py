"""A store: promoting, going back and clearing away, while somebody serves from it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genrec_runtime import BundleCorrupt, BundleNotFound, InferenceError, Recommender
from genrec_runtime.cli import main
from genrec_runtime.store import CURRENT, promote, prune, rollback, target, versions
from tiny import Tiny

DAYS = {"aaa": 1, "bbb": 2, "ccc": 3, "ddd": 4}  # the versions of the store, and the day each was made


@pytest.fixture
def store(tiny: Tiny, tmp_path: Path, reseal: Callable[..., None]) -> Path:
    """Four versions that differ in their creation and in the model's name; none is current yet."""
    for name, day in DAYS.items():
        folder = Path(shutil.copytree(tiny.path, tmp_path / "store" / name))

        def change(manifest: dict[str, Any], name: str = name, day: int = day) -> None:
            manifest["created"] = f"2026-01-0{day}T00:00:00+00:00"
            manifest["model"]["name"] = name

        reseal(folder, change)
    return tmp_path / "store"


def serving(store: Path) -> str:
    return str(Recommender.load(store / CURRENT, device="cpu", threads=1).manifest.model["name"])


def test_versions_are_listed_newest_first_with_what_they_are(store: Path) -> None:
    promote(store, "bbb")
    promote(store, "ccc")
    listed = versions(store)
    assert [version.name for version in listed] == ["ddd", "ccc", "bbb", "aaa"]
    assert [version.name for version in listed if version.is_current] == ["ccc"]
    assert [version.name for version in listed if version.is_previous] == ["bbb"]
    assert {version.model for version in listed} == set(DAYS)
    assert all(version.size > 1000 and not version.damage for version in listed)


def test_a_damaged_version_is_listed_with_its_damage(store: Path) -> None:
    (store / "aaa" / "manifest.json").write_text("{")
    assert next(version for version in versions(store) if version.name == "aaa").damage


def test_promote_and_rollback_move_current(store: Path) -> None:
    promote(store, "aaa")
    promote(store, "bbb")
    assert serving(store) == "bbb"
    assert rollback(store) == "aaa"
    assert serving(store) == "aaa"
    assert rollback(store) == "bbb"  # going back again returns


def test_rollback_needs_an_earlier_version(store: Path) -> None:
    promote(store, "aaa")
    with pytest.raises(BundleNotFound, match="no earlier version"):
        rollback(store)


def test_promoting_what_is_current_keeps_the_previous(store: Path) -> None:
    for name in ("aaa", "bbb", "bbb"):
        promote(store, name)
    assert rollback(store) == "aaa"


def test_a_flipped_byte_refuses_promotion(store: Path) -> None:
    promote(store, "aaa")
    weights = store / "bbb" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"weights\.bin was changed"):
        promote(store, "bbb")
    assert serving(store) == "aaa"


def test_a_version_that_answers_differently_is_not_promoted(store: Path, reseal: Callable[..., None]) -> None:
    weights = store / "bbb" / "weights.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    reseal(store / "bbb")
    with pytest.raises(InferenceError, match="answers the golden requests differently"):
        promote(store, "bbb")
    assert target(store, CURRENT) is None


@pytest.mark.parametrize("version", ["eee", "../aaa", ".", "..", "", "current"])
def test_only_a_version_of_the_store_is_promoted(store: Path, version: str) -> None:
    with pytest.raises(BundleNotFound, match=r"has no version .* it has aaa, bbb, ccc, ddd"):
        promote(store, version)


def test_prune_keeps_the_newest_and_what_is_linked(store: Path) -> None:
    promote(store, "aaa")
    promote(store, "bbb")
    assert prune(store, keep=1) == ["ccc"]
    assert [version.name for version in versions(store)] == ["ddd", "bbb", "aaa"]
    with pytest.raises(ValueError, match=r"keep \(0\)"):
        prune(store, keep=0)


def test_prune_clears_what_a_killed_export_left_but_not_a_living_one(store: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    dead, living = store / f".tmp-{child.pid}-00000000", store / f".tmp-{os.getpid()}-00000000"
    dead.mkdir()
    living.mkdir()
    prune(store, keep=4)
    assert not dead.exists()
    assert living.exists()


def test_who_serves_is_not_disturbed_by_promotion_rollback_and_pruning(tiny: Tiny, store: Path) -> None:
    promote(store, "aaa")
    recommender = Recommender.load(store / CURRENT, device="cpu", threads=1)
    before = recommender.recommend(tiny.histories, k=5).items
    promote(store, "bbb")
    promote(store, "ccc")
    assert rollback(store) == "bbb"
    assert "aaa" in prune(store, keep=1)
    assert not (store / "aaa").exists()
    assert recommender.recommend(tiny.histories, k=5).items == before
    assert recommender.score([["item 01"]], [["item 02"]])  # a graph that was not used yet


def test_a_folder_that_is_no_store_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no store"):
        versions(tmp_path / "nothing")
    with pytest.raises(BundleNotFound, match="is one bundle"):
        versions(tiny.path)


def test_the_commands_list_promote_roll_back_and_prune(store: Path) -> None:
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(main, [arguments[0], str(store), *arguments[1:]])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    call("promote", "aaa", "--device", "cpu")
    assert call("promote", "bbb", "--device", "cpu").endswith("current is bbb\n")
    assert call("rollback", "--device", "cpu").endswith("current is aaa\n")
    assert [line[:5] for line in call("list").splitlines()] == ["  ddd", "  ccc", "- bbb", "* aaa"]
    assert call("prune", "--keep", "1") == "removed ccc\n"
    refused = CliRunner().invoke(main, ["promote", str(store), "ccc"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
