"""Other builds and versions of a package than the environment's, each alone in a folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest


def install_alone(requirement: str, folder: Path) -> Path:
    """Installs the newest wheel that fits, without what it depends on; skips the test where no package index answers.

    Returns:
        ``folder``, to be put first on a process's PYTHONPATH.
    """
    options = ["--quiet", "--retries=1", "--only-binary=:all:", "--no-deps", f"--target={folder}"]
    command = [sys.executable, "-m", "pip", "install", *options, requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and ("connection broken" in done.stderr or "(from versions: none)" in done.stderr):
        pytest.skip(f"no package index can be reached for {requirement}")
    assert done.returncode == 0, done.stderr
    return folder
