"""One door for all names, and no torch for those that need none."""

import os
import subprocess
import sys

import pytest

from genrec import modules


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)


def test_every_name_is_there() -> None:
    assert modules.__all__ == sorted(modules.__all__)
    assert set(modules.__all__) <= set(dir(modules))
    for name in modules.__all__:
        assert getattr(modules, name).__name__ == name
    with pytest.raises(AttributeError, match=r"module 'genrec.modules' has no attribute 'Transformer'"):
        modules.Transformer  # noqa: B018  # the access is the test


def test_metrics_and_plots_come_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from genrec.modules import RecommendationMetrics, AttentionVisualization\n"
        "print(RecommendationMetrics.recall_at_k([[1, 2]], [[2]], 2))\n"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("1.0\n", "")


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_a_missing_package_names_the_command_that_installs_it(missing: str) -> None:
    done = run(f"import sys; sys.modules[{missing!r}] = None\nfrom genrec.modules import save")
    assert done.returncode == 1
    assert f"ImportError: save needs {missing}; install it with: pip install 'genrec[train]'" in done.stderr


def test_importing_the_package_imports_no_torch() -> None:
    assert run("import sys, genrec.modules; print('torch' in sys.modules)").stdout == "False\n"
