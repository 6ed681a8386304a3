"""What must hold from the first import on, so each in a process of its own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import Tiny

Run = Callable[..., subprocess.CompletedProcess[str]]

SERVE = """
import sys
from genrec_runtime import Recommender
recommender = Recommender.load(sys.argv[1])
answer = recommender.recommend([["item 01", "item 02"], [], ["?"]], k=3, candidates=None)
assert answer.lengths.tolist() == [3, 3, 3], answer
recommender.score([["item 01"]], [["item 02"]])
recommender.selftest()
"""


def test_a_bundle_is_served_without_torch_ever_being_imported(tiny: Tiny, run_python: Run) -> None:
    run_python(
        SERVE + "assert not [n for n in sys.modules if n.partition('.')[0] in ('torch', 'polars', 'onnx')]",
        str(tiny.path),
    )


def test_fault_118_nothing_touches_the_network(tiny: Tiny, run_python: Run) -> None:
    block = """
import socket, sys
def refuse(event, arguments):
    if event.startswith(("socket.", "urllib.")):
        raise SystemExit(f"network: {event} {arguments}")
sys.addaudithook(refuse)
"""
    count = """
import os
assert not [entry for entry in os.scandir("/proc/self/fd") if "socket:" in os.readlink(entry.path)]  # not of C++ either
assert len(os.listdir("/proc/self/task")) == 1  # nor a thread that could open one
"""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # numpy's own
    run_python(block + SERVE.replace("[1])", "[1], threads=1)") + count, str(tiny.path), **one)
    with pytest.raises(AssertionError, match="network: socket"):  # the block itself works
        run_python(block + "socket.create_connection(('127.0.0.1', 9))")


def test_telemetry_is_off_before_onnxruntime_is_imported(tiny: Tiny, run_python: Run) -> None:
    watch = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            assert os.environ["ORT_DISABLE_TELEMETRY"] == "1", "too late"
            print("seen")
sys.meta_path.insert(0, Watch())
"""
    assert run_python(watch + SERVE, str(tiny.path)).stdout == "seen\n"


def test_a_users_own_choice_about_telemetry_stays(run_python: Run) -> None:
    code = "import os, genrec_runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run_python(code, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"


def test_an_onnxruntime_imported_earlier_is_warned_of(run_python: Run) -> None:
    code = "import onnxruntime\nimport genrec_runtime"
    assert "onnxruntime was imported before genrec_runtime" in run_python(code).stderr
    assert run_python(code, ORT_DISABLE_TELEMETRY="1").stderr == ""


def test_fault_93_a_child_forked_after_the_import_ends(run_python: Run) -> None:
    code = """
import os, sys
from genrec_runtime.device import import_onnxruntime
import_onnxruntime()
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    run_python(code, options=["-W", "ignore::DeprecationWarning"])


def test_fault_120_checks_hold_without_assertions_and_with_warnings_as_errors(tiny: Tiny, run_python: Run) -> None:
    code = """
import sys
from genrec_runtime import InputError, Recommender
recommender = Recommender.load(sys.argv[1], device="cpu")
recommender.recommend([["item 01"]])
for arguments in ({"k": 0}, {"k": 2**32 + 3}, {"exclude": []}):
    try:
        recommender.recommend([["item 01"]], **arguments)
    except InputError:
        continue
    raise SystemExit(f"accepted {arguments}")
"""
    done = run_python(code, str(tiny.path), options=["-O", "-W", "error"])
    assert done.stderr == ""


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0"}, id="C"),
        pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, id="ASCII"),
        pytest.param({"TZ": "Asia/Kathmandu"}, id="TZ"),
    ],
)
def test_fault_119_locale_and_place_do_not_matter(
    copied: Path, tmp_path: Path, run_python: Run, environment: dict[str, str]
) -> None:
    place = tmp_path / "a päth with späces"
    copied.rename(place)
    run_python(SERVE, str(place), **environment)


def test_help_imports_no_onnxruntime(run_python: Run) -> None:
    code = """
import sys
from genrec_runtime.cli import main
try:
    main(["recommend", "--help"])
except SystemExit as end:
    assert end.code == 0
assert "onnxruntime" not in sys.modules
"""
    assert "Usage:" in run_python(code).stdout
