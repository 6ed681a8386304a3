"""What genrec.data needs, and what it must not need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

QUICKSTART = "import genrec.data; genrec.data.leave_one_out(genrec.data.make_shop(users=9).data).popularity()"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh process, in which nothing was imported before."""
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=False)


def test_the_quickstart_needs_neither_torch_nor_pooch() -> None:
    done = run(f"import sys; sys.modules['torch'] = sys.modules['pooch'] = None; {QUICKSTART}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "code"),
    [("polars", "import genrec.data"), ("pooch", "import genrec.data; genrec.data.load_data('movielens-1m')")],
)
def test_a_missing_package_says_how_to_install_it(missing: str, code: str) -> None:
    done = run(f"import sys; sys.modules[{missing!r}] = None; {code}")
    assert f"needs {missing}; install it with: pip install 'genrec[train]'" in done.stderr
