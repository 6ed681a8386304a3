from pathlib import Path

import pytest

from genrec_runtime import Recommender, memory
from genrec_runtime.memory import free_memory, shortage
from tiny import Tiny


def control_group(root: Path, **files: str) -> Path:
    root.mkdir(parents=True)
    for name, content in files.items():
        (root / name.replace("__", ".")).write_text(content)
    return root


@pytest.mark.parametrize(
    ("groups", "own", "left"),
    [
        pytest.param({}, "0::/\n", 4096 << 10, id="no limits"),
        pytest.param(
            {"a": {"memory__max": "3000", "memory__current": "2500", "memory__stat": "anon 2\ninactive_file 400\n"}},
            "0::/a\n",
            3000 - 2500 + 400,
            id="version 2",
        ),
        pytest.param(
            {
                "a": {"memory__max": "700", "memory__current": "100", "memory__stat": ""},
                "a/b": {"memory__max": "max", "memory__current": "90", "memory__stat": ""},
            },
            "0::/a/b\n",
            700 - 100,
            id="a group above",
        ),
        pytest.param(
            {
                "memory/a": {
                    "memory__limit_in_bytes": "5000",
                    "memory__usage_in_bytes": "4000",
                    "memory__stat": "inactive_file 7\ntotal_inactive_file 30\n",
                }
            },
            "4:memory:/a\n3:cpu:/b\n",
            5000 - 4000 + 30,
            id="version 1",
        ),
        pytest.param(
            {
                "memory": {
                    "memory__limit_in_bytes": str(2**63 - 4096),
                    "memory__usage_in_bytes": "4000",
                    "memory__stat": "",
                }
            },
            "4:memory:/\n",
            4096 << 10,
            id="version 1 without a limit",
        ),
        pytest.param(
            {"a": {"memory__max": "10", "memory__current": "25", "memory__stat": ""}},
            "0::/a\n",
            0,
            id="above its limit",
        ),
    ],
)
def test_free_memory_is_what_the_tightest_limit_leaves(
    tmp_path: Path, groups: dict[str, dict[str, str]], own: str, left: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9999 kB\nMemAvailable:    4096 kB\n")
    (tmp_path / "own").write_text(own)
    for name, files in groups.items():
        control_group(tmp_path / "groups" / name, **files)
    assert free_memory(tmp_path / "meminfo", tmp_path / "groups", tmp_path / "own") == left


def test_where_the_system_does_not_tell_nothing_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tmp_path / "nothing"
    assert free_memory(nothing, nothing, nothing) is None
    manifest = Recommender.load(tiny.path, device="cpu", threads=1).manifest
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert shortage(manifest, "fp32") is None
    needed = memory.SCRATCH + memory.FACTOR * (
        sum(path.stat().st_size for path in tiny.path.rglob("*") if path.is_file() and path.name != "manifest.json")
        + sum(manifest.memory.values())
    )
    monkeypatch.setattr(memory, "free_memory", lambda: needed)
    assert shortage(manifest, "fp32") is None
    monkeypatch.setattr(memory, "free_memory", lambda: needed - 1)
    assert shortage(manifest, "fp32") is not None


def test_this_machine_has_some_free_memory() -> None:
    free = free_memory()
    assert free is None or 0 < free < 1 << 50
