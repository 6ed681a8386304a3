"""A server that is told a digest serves that bundle and no other: not at its start, not at a swap."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec_runtime import BundleCorrupt
from genrec_runtime.serve.settings import Settings
from genrec_runtime.store import point_current_to
from serving import command, process, running, until
from tiny import Tiny
from versions import write_versions

NOBODYS = "sha256:" + 64 * "0"


@pytest.fixture
def versions(tiny: Tiny, tmp_path: Path, reseal: Callable[..., None]) -> list[Path]:
    """Two in one store, the first of which is current."""
    root = tmp_path / "store"
    names = write_versions(tiny.path, root, 2, reseal)
    point_current_to(root, names[0])
    return [root / name for name in names]


def digest(bundle: Path) -> str:
    return "sha256:" + hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_fault_55_with_another_digest_it_ends_with_1_and_says_both(tiny: Tiny, tmp_path: Path, how: str) -> None:
    option = ["--expect-digest", NOBODYS] if how == "option" else []
    environment = {} if how == "option" else {"GENREC_EXPECT_DIGEST": NOBODYS}
    with command(tiny.path, tmp_path, *option, **environment) as (child, _, complaints):
        assert child.wait(60) == 1
    assert f"manifest.json has {digest(tiny.path)}, expected {NOBODYS}" in complaints.read_text()
    assert "is ready" not in complaints.read_text()


def test_with_its_digest_it_serves(tiny: Tiny, tmp_path: Path) -> None:
    with process(tiny.path, tmp_path, "--linger", "0", GENREC_EXPECT_DIGEST=digest(tiny.path)) as served:
        assert served.ask("POST", "/v1/recommend", {"history": ["item 03"]}).status == 200


def test_it_is_never_ready_with_another_digest(tiny: Tiny) -> None:
    with running(tiny.path, starts=False, expect_digest=NOBODYS) as service:
        with pytest.raises(BundleCorrupt, match=f"expected {NOBODYS}"):
            service.service.start()
        assert service.ask("GET", "/v2/health/ready").status == 503
        assert service.recommend(history=[]).status == 503


def test_fault_55_the_path_may_move_and_it_does_not_follow(
    versions: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = versions
    with running(first.parent / "current", interval=0.05, expect_digest=digest(first)) as service:
        point_current_to(first.parent, second.name)
        until(lambda: service.metric('genrec_reloads_total{result="refused"}') == 1)
        assert service.metric("genrec_reload_refused") == 1
        assert service.recommend(history=["item 03"]).json["version"] == first.name
        assert service.ask("GET", "/v2/health/ready").status == 200
        point_current_to(first.parent, first.name)
        until(lambda: service.metric("genrec_reload_refused") == 0)
        assert service.metric('genrec_reloads_total{result="swapped"}') == 0
        assert service.metric('genrec_reloads_total{result="refused"}') == 1
    (said,) = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
    assert f"manifest.json has {digest(second)}, expected {digest(first)}" in said


def test_fault_55_a_bundle_that_is_exchanged_in_its_place_is_refused(versions: list[Path]) -> None:
    first, second = versions
    with running(first, interval=0.05, expect_digest=digest(first)) as service:
        first.rename(first.parent / "old")
        shutil.copytree(second, first)
        until(lambda: service.metric("genrec_reload_refused") == 1)
        assert service.recommend(history=["item 03"]).json["version"] == first.name


def test_without_a_digest_it_follows(versions: list[Path]) -> None:
    first, second = versions
    with running(first.parent / "current", interval=0.05) as service:
        assert service.recommend(history=["item 03"]).json["version"] == first.name
        point_current_to(first.parent, second.name)
        until(lambda: service.recommend(history=["item 03"]).json["version"] == second.name)
        assert service.metric("genrec_reload_refused") == 0


@pytest.mark.parametrize("given", ["", "0" * 64, "sha256:" + 63 * "0", NOBODYS.replace("0", "A"), NOBODYS + "\n"])
def test_what_is_no_digest_is_refused_before_anything_is_opened(given: str) -> None:
    with pytest.raises(ValueError, match=r"expect_digest \(.*\) must be sha256: and 64 digits"):
        Settings(Path("bundle"), expect_digest=given)


def test_an_empty_variable_pins_nothing_and_so_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with command(tiny.path, tmp_path, GENREC_EXPECT_DIGEST="") as (child, _, complaints):
        assert child.wait(60) == 2
    assert "GENREC_EXPECT_DIGEST is empty" in complaints.read_text()
