"""Other metric packages, in an environment of their own: they need another numpy than the project's, and compile at first.

``GENREC_PEERS`` names a Python that has them, for another run without installing them again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PEERS = ("ranx==0.3.21", "rectools==0.19.0")
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has the peers."""
    if known := os.environ.get("GENREC_PEERS"):
        return known
    folder = tmp_path_factory.mktemp("peers")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--retries=1", *PEERS]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install {' and '.join(PEERS)}: {done.stderr.strip().splitlines()[-1]}")
    return command[0]


@pytest.fixture(scope="session")
def ask(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a peer, by keywords, in a process that has imported and compiled what it needs."""
    complaints = tmp_path_factory.mktemp("asked") / "complaints.txt"
    command = [python, str(Path(__file__).with_name("peer_answers.py"))]
    with (
        complaints.open("w") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def answered(**question: Any) -> dict[str, Any]:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            line = answers.readline()
            assert line, complaints.read_text()
            found: dict[str, Any] = json.loads(line)
            return found

        yield answered
        questions.close()
