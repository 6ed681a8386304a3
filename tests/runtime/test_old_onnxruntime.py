"""The runtime's tests once more, in processes that import an older onnxruntime than the environment's."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from genrec_export.assemble import ONNXRUNTIME
from wheels import install_alone

ROOT = Path(__file__).parents[2]
RUN = """
import sys, pytest
status = pytest.main(["tests/runtime", "tests/frozen", "-q", "-p", "no:cacheprovider"])
print("imported", sys.modules["onnxruntime"].__version__, sys.modules["onnxruntime"].__file__)
sys.exit(status)
"""


def test_a_bundle_asks_for_the_oldest_onnxruntime_that_the_extra_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["cpu"] == [f"onnxruntime>={ONNXRUNTIME[20]}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "version",
    [
        pytest.param(ONNXRUNTIME[20], id="the oldest that a bundle asks for"),
        pytest.param("1.26", id="the newest that gpu-cu12 allows"),
        pytest.param("1.29", id="the oldest that gpu allows, the first with telemetry"),
    ],
)
def test_the_tests_of_the_runtime_pass_on_an_older_onnxruntime(tmp_path: Path, version: str) -> None:
    older = install_alone(f"onnxruntime=={version}.*", tmp_path / "older")
    path = os.pathsep.join([str(older), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^imported {re.escape(version)}\.\d+ {re.escape(str(older))}", done.stdout, re.MULTILINE)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", done.stdout)}
    assert counts["passed"] > 10 * counts.get("skipped", 0)
