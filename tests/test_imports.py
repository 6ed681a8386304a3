"""Where a line may live: the imports of every module of ours, read without running them, and fresh processes without torch.

The tables below are those of the project's style guide: what each folder may import of ours, which optional package it
owns, and what it must not touch even inside a function.
"""

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    ROOT / path for path in ("genrec", "models/genrec_models", "export/genrec_export", "runtime/genrec_runtime")
]

CORE = "genrec"  # the files that lie in genrec/ itself, but for the command line
MAY_IMPORT: dict[str, set[str]] = {  # of ours, at any level; each also itself
    CORE: set(),
    "genrec.data": {CORE},
    "genrec.results": {CORE, "genrec.data"},
    "genrec.modules": {CORE},
    "genrec.training": {CORE, "genrec.data", "genrec.modules", "genrec.results"},
    "genrec_models": {CORE, "genrec.data", "genrec.modules", "genrec.training"},
    "genrec_runtime": {CORE, "genrec_runtime.serve"},  # its commands open it
    "genrec_runtime.serve": {CORE, "genrec_runtime"},
    "genrec_export": {CORE, "genrec.data", "genrec.modules", "genrec_models", "genrec_runtime"},
}
MAY_IMPORT["genrec.cli"] = {*MAY_IMPORT, "genrec.quickstart"}  # the one thin shell that may call any of them
MAY_IMPORT["genrec.quickstart"] = set(MAY_IMPORT)  # a command of it, in a file of its own
MAY_IMPORT["genrec.starting"] = {"genrec_runtime"}  # the other command's first lines
RUNTIME_MAY_IMPORT = ("genrec.metrics", "genrec.histories", "genrec.__version__")  # of the core
OWNERS = {  # of optional packages: the folders that may import them at module level
    "torch": {"genrec.modules", "genrec.training", "genrec_models", "genrec_export"},
    "safetensors": {"genrec.modules", "genrec.training", "genrec_models"},
    "lightning": {"genrec.training"},
    "polars": {"genrec.data", "genrec.results"},
    "onnx": {"genrec_export"},
    "onnxscript": {"genrec_export"},
    "onnxruntime": {"genrec_runtime"},
    "starlette": {"genrec_runtime.serve"},
    "uvicorn": {"genrec_runtime.serve"},
    "prometheus_client": {"genrec_runtime.serve"},
}
NEVER = {  # not inside a function either
    CORE: {"torch", "polars", "onnxruntime"},
    "genrec.data": {"torch"},
    "genrec_runtime": {"torch"},
    "genrec_runtime.serve": {"torch"},
}
OPTIONAL = [*OWNERS, "matplotlib", "seaborn", "rich", "tensorboard", "pooch", "ray"]


@dataclass(frozen=True)
class Import:
    """One imported name: ``target`` is the dotted name, ``early`` whether it runs when its module is imported."""

    target: str
    early: bool
    line: int


def imports(source: str) -> Iterator[Import]:
    """Every import of a source text but those under ``if TYPE_CHECKING``, which never run; relative ones keep a dot."""

    def walk(node: ast.AST, early: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                yield from (Import(alias.name, early, node.lineno) for alias in node.names)
            case ast.ImportFrom():
                base = "." * node.level + (node.module or "")
                yield from (Import(f"{base}.{alias.name}", early, node.lineno) for alias in node.names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield Import(name, early, node.lineno)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for statement in node.orelse:
                    yield from walk(statement, early)
            case _:
                early = early and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, early)

    return walk(ast.parse(source), early=True)


def layer_of(name: str) -> str | None:
    """The folder of ours that a dotted name belongs to, None for others' packages."""
    return max((layer for layer in MAY_IMPORT if is_in(name, layer)), key=len, default=None)


def is_in(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def violations(module: str, source: str) -> list[str]:
    """What a module of ours may not import, each with its line and the reason."""
    found = [(one, fault(module, one)) for one in imports(source)]
    return [f"{module}:{one.line}: {one.target} ({reason})" for one, reason in found if reason]


def fault(module: str, one: Import) -> str:
    layer, target, top = layer_of(module), layer_of(one.target), one.target.partition(".")[0]
    assert layer is not None, f"{module} lies in no folder of ours"
    if not top:
        return "relative: write it out"
    if is_in(layer, "genrec_runtime") and target == CORE:
        return "" if any(is_in(one.target, name) for name in RUNTIME_MAY_IMPORT) else f"never in {layer}"
    if target is not None:
        return "" if target in {layer, *MAY_IMPORT[layer]} else f"never in {layer}"
    if top in NEVER.get(layer, ()):
        return f"never in {layer}"
    if not one.early or top in sys.stdlib_module_names or top == "numpy":
        return ""
    if top == "click":
        shell = layer == "genrec.cli" or module.rpartition(".")[2].split("_")[0] == "cli"
        return "" if shell else "only in a cli*.py at module level"
    return "" if layer in OWNERS.get(top, ()) else f"not at module level in {layer}"


def our_modules() -> dict[str, str]:
    """Every module of ours by name, with its source text."""
    found = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def circle(modules: dict[str, str]) -> list[str]:
    """The modules of a circle of imports at module level, [] where there is none."""
    graph: dict[str, set[str]] = {}
    for module, source in modules.items():
        targets = (one.target for one in imports(source) if one.early)
        known = (max((m for m in modules if is_in(target, m)), key=len, default=module) for target in targets)
        graph[module] = {target for target in known if target != module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


MODULES = our_modules()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_folder_may(module: str) -> None:
    assert violations(module, MODULES[module]) == []


def test_the_walk_finds_the_four_packages() -> None:
    assert {"genrec", "genrec.metrics", "genrec_models", "genrec_export", "genrec_runtime"} <= set(MODULES)


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circle(MODULES) == []


# --- the check itself, on planted faults


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("genrec.metrics", "import torch"),
        ("genrec.metrics", "def f():\n    import torch"),
        ("genrec.metrics", "from genrec.modules import top_k"),
        ("genrec.metrics", "from genrec import data"),
        ("genrec.visualization", "import matplotlib"),
        ("genrec.histories", "try:\n    import polars\nexcept ImportError:\n    pass"),
        ("genrec.histories", "import scipy"),
        ("genrec.data.splits", "import torch"),
        ("genrec.data.splits", "def f():\n    from torch import Tensor"),
        ("genrec.data.splits", "import genrec.training"),
        ("genrec.data.datasets", "import pooch"),
        ("genrec.modules.losses", "from genrec.data import Split"),
        ("genrec.modules.losses", "import polars as pl"),
        ("genrec.modules.saving", "import importlib\nimportlib.import_module('genrec_models.sasrec')"),
        ("genrec.training.fit", "def f():\n    from genrec_models import MODELS"),
        ("genrec.training.fit", "from rich import progress"),
        ("genrec.training.fit", "import polars"),
        ("genrec_models.sasrec", "from genrec_export.tracing import trace"),
        ("genrec_models.sasrec", "import lightning"),
        ("genrec_models.sasrec", "import genrec_runtime"),
        ("genrec_export.tracing", "from genrec.training import fit"),
        ("genrec_export.tracing", "import onnxruntime"),
        ("genrec_runtime.engine", "def f():\n    import torch"),
        ("genrec_runtime.engine", "from genrec.visualization import attention_figure"),
        ("genrec_runtime.engine", "from genrec.modules import load"),
        ("genrec_runtime.engine", "from genrec_models import MODELS"),
        ("genrec_runtime.engine", "import genrec_export.writer"),
        ("genrec_runtime.engine", "import onnx"),
        ("genrec_runtime.engine", "import click"),
        ("genrec_runtime.engine", "class A:\n    import starlette"),
        ("genrec_runtime.engine", "if True:\n    import ray"),
        ("genrec_runtime.engine", "from . import errors"),
        ("genrec.cli", "import torch"),
        (
            "genrec.training.fit",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import rich",
        ),
    ],
)
def test_a_planted_fault_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("genrec.metrics", "import json\nimport numpy as np\nfrom numpy.typing import NDArray"),
        ("genrec.metrics", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
        ("genrec.metrics", "import typing\nif typing.TYPE_CHECKING:\n    import genrec_models"),
        ("genrec.visualization", "def f():\n    from matplotlib.figure import Figure"),
        ("genrec.data.splits", "import polars as pl\nfrom genrec.histories import Ragged"),
        ("genrec.data.datasets", "async def f():\n    import pooch"),
        ("genrec.modules.saving", "import torch\nfrom safetensors.torch import save_file"),
        ("genrec.training.fit", "import lightning\nfrom genrec.data import Split\nfrom genrec.modules import top_k"),
        ("genrec_models.run", "import torch\nfrom genrec.modules import TransformerEncoder\nimport genrec.data"),
        ("genrec_export.parity", "import onnx, torch\nfrom genrec_runtime.engine import Engine\nimport genrec_models"),
        ("genrec_runtime.engine", "import onnxruntime\nfrom genrec.histories import ItemIds\nimport genrec.metrics"),
        ("genrec_runtime.cli", "import click\nfrom genrec import __version__"),
        ("genrec.cli", "import click\ndef f():\n    from genrec_export import export_recommender\n    import torch"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_a_planted_circle_is_found() -> None:
    straight = {"genrec.a": "from genrec import b", "genrec.b": "import genrec.c", "genrec.c": "", "genrec": ""}
    assert circle(straight) == []
    assert set(circle({**straight, "genrec.c": "from genrec.a import thing"})) == {"genrec.a", "genrec.b", "genrec.c"}
    assert circle({**straight, "genrec.c": "def f():\n    from genrec.a import thing"}) == []


# --- fresh processes, since another test may have imported torch already


def run_without(missing: list[str], code: str) -> None:
    """Runs code in a new interpreter where the missing packages cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", block + code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_runtime_and_what_it_shares_import_without_torch() -> None:
    run_without(["torch"], "import genrec.metrics, genrec.histories, genrec.visualization, genrec_runtime")


def test_the_data_and_the_names_of_the_models_import_without_torch() -> None:
    run_without(["torch"], "import genrec.data; from genrec_models import MODELS; assert 'sasrec' in MODELS")


def test_the_base_install_is_enough_for_metrics_comparisons_and_histories() -> None:
    run_without(
        [*OPTIONAL, "click"],
        "from genrec.histories import ItemIds\n"
        "from genrec.results import compare, read_result\n"
        "from genrec.modules import AttentionVisualization, RecommendationMetrics\n"
        "assert RecommendationMetrics.recall_at_k([[1]], [[1]], 1) == 1.0",
    )


def test_a_torch_class_without_torch_names_the_install_command() -> None:
    run_without(
        ["torch"],
        "try:\n"
        "    from genrec.modules import TransformerEncoder\n"
        "except ImportError as error:\n"
        "    assert \"pip install 'genrec[train]'\" in str(error), error\n"
        "else:\n"
        "    raise SystemExit('TransformerEncoder came without torch')",
    )


def test_importing_the_modules_does_not_import_torch() -> None:
    run_without([], "import sys, genrec.modules, genrec_runtime; assert 'torch' not in sys.modules")


@pytest.mark.parametrize("command", [name for name in MODULES if name.endswith(".cli")])
def test_a_command_imports_nothing_heavy_by_itself(command: str) -> None:
    run_without(OPTIONAL, f"import {command}")
