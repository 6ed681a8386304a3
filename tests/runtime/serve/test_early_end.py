"""SIGTERM while the command still starts: it ends at once, also as the first process of a container."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving import COMMAND, child_environment, command, until
from tiny import Tiny

ENDED = 128 + signal.SIGTERM  # as a shell has it of whom the signal killed
IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
SLOW_TO_IMPORT = """
import sys, time
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "genrec_runtime":  # the first of all
            print("imports", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("moment", [0.0, 0.15, 0.3, 0.5, 0.9])
def test_fault_101_at_every_moment_of_its_start_sigterm_ends_it(tiny: Tiny, tmp_path: Path, moment: float) -> None:
    with command(tiny.path, tmp_path, "--linger", "0") as (child, _, complaints):
        time.sleep(moment)
        child.send_signal(signal.SIGTERM)
        code = child.wait(20)
    is_listening = "listening on" in complaints.read_text()
    assert code == 0 if is_listening else code in (-signal.SIGTERM, ENDED, 0)
    assert "Traceback" not in complaints.read_text()


def test_fault_101_from_when_it_listens_it_ends_in_order(tiny: Tiny, tmp_path: Path) -> None:
    with command(tiny.path, tmp_path, "--linger", "0") as (child, _, complaints):
        until(lambda: "listening on" in complaints.read_text(), child)
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    assert "ended, " in complaints.read_text()


@pytest.mark.parametrize("is_first", [False, True], ids=["an ordinary process", "process 1"])
def test_fault_101_sigterm_while_it_imports_is_heard(tiny: Tiny, is_first: bool) -> None:
    if is_first:
        _need_namespaces()
    line = [sys.executable, "-c", SLOW_TO_IMPORT + COMMAND, "serve", str(tiny.path)]
    around = IN_A_NAMESPACE if is_first else []
    with subprocess.Popen([*around, *line], stdout=subprocess.PIPE, env=child_environment()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"imports\n"
            time.sleep(0.1)
            number = _only_child(process.pid) if is_first else process.pid
            subprocess.run(["kill", "-TERM", str(number)], check=True)
            assert process.wait(20) == ENDED
        finally:
            process.kill()


def _need_namespaces() -> None:
    if shutil.which(IN_A_NAMESPACE[0]) is None:
        pytest.skip("unshare of util-linux is not installed")
    if subprocess.run([*IN_A_NAMESPACE, "true"], capture_output=True, timeout=20).returncode != 0:
        pytest.skip("this machine lets nobody make a namespace of processes")


def _only_child(number: int) -> int:
    (child,) = until(lambda: Path(f"/proc/{number}/task/{number}/children").read_text().split())
    return int(child)
