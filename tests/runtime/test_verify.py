import re
from pathlib import Path

import pytest

from genrec_runtime import BundleCorrupt, DeviceUnavailable, verify
from genrec_runtime.verify import describe
from tiny import Tiny


def test_a_whole_bundle_is_verified(tiny: Tiny) -> None:
    seen = verify(tiny.path)
    files = [path for path in tiny.path.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert (seen.files, seen.size) == (len(files), sum(path.stat().st_size for path in files))
    assert seen.undeclared == ()
    assert seen.device.providers == ("CPUExecutionProvider",)
    assert max(difference.excess for difference in seen.differences.values()) <= 1
    assert verify(tiny.path, expect_digest=seen.digest) == seen


def test_fault_68_undeclared_files_are_named(copied: Path) -> None:
    for name in ("nohup.out", "golden/more.npz", ".DS_Store"):
        (copied / name).touch()
    assert verify(copied).undeclared == ("golden/more.npz", "nohup.out")


def test_every_file_is_checked(copied: Path) -> None:
    (copied / "README.md").write_text("other")
    with pytest.raises(BundleCorrupt, match=r"README\.md has 5 bytes"):
        verify(copied)


def test_a_device_that_is_not_there_is_an_error(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec_runtime.device.count_gpus", lambda: "there is no driver")
    with pytest.raises(DeviceUnavailable):
        verify(tiny.path, device="cuda")


def test_a_bundle_is_described_one_fact_a_line(tiny: Tiny, features: Path) -> None:
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in describe(tiny.path).splitlines())
    assert facts["kind"] == "recommender"
    assert facts["items"] == "37 with str ids"
    assert facts["history"] == "newest 6, padded left, window bucketed"
    assert facts["k"] == "10 by default, up to 20"
    assert facts["version"] == tiny.path.name
    assert facts["graph encode"] == "item_ids int64(batch, length) -> states float32(batch, 12)"
    assert facts["file weights.bin"].endswith("bytes, weights")
    assert "kind" in describe(features)
