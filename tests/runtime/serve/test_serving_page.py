"""docs/serving.md is held to the code: options and their defaults, metrics and their labels, statuses and codes."""

import ast
import re
from pathlib import Path

import click
import pytest

from genrec_runtime import cli_serve
from genrec_runtime.serve import metrics, tensors
from genrec_runtime.serve.batcher import Overloaded
from genrec_runtime.serve.service import NotReady
from genrec_runtime.serve.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
PACKAGE = Path(metrics.__file__).parent


def rows(title: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their first two lines."""
    part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in part.splitlines() if re.match(r"\| [`0-9]", line)]
    return [[cell.strip() for cell in cells] for cells in lines]


def test_every_option_is_on_the_page_with_its_default() -> None:
    options = {p.opts[0]: p for p in cli_serve.serve.params if isinstance(p, click.Option)}
    listed = {re.findall(r"`([^`]+)`", row[0])[0]: row[1] for row in rows("Options")}
    assert set(listed) == set(options)
    for name, default in listed.items():
        told = options[name].default
        if isinstance(told, (int, float)) and not isinstance(told, bool):
            assert float(default) == told, name


def test_the_commands_defaults_are_those_of_the_settings() -> None:
    defaults = {p.name: p.default for p in cli_serve.serve.params if isinstance(p, click.Option)}
    defaults["threads"] = defaults.pop("parallel")
    for name, value in defaults.items():
        if name in Settings.__dataclass_fields__:
            assert Settings.__dataclass_fields__[name].default == (
                value or None if name in ("name", "availability") else value
            )


def test_every_metric_is_on_the_page_with_its_labels() -> None:
    found = {}
    for family in metrics.Metrics().registry.collect():
        if not family.name.startswith("process_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = family
    listed = {row[0].strip("`"): row[1] for row in rows("Metrics")}
    assert set(listed) == set(found)
    labels = {"genrec_requests_total": "endpoint, code", "genrec_bundle_info": "model, version, digest, providers"}
    assert {name: listed[name] for name in labels} == labels


def test_every_code_of_a_refusal_is_on_the_page_with_its_status() -> None:
    raised = {(503, NotReady.code), (429, Overloaded.code)}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refusal":
                status, code = (argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant))
                raised.add((status, code))
    listed = {(int(row[0]), row[1].strip("`")) for row in rows("Errors")}
    assert raised <= listed
    runtime = {(413, "too_large"), (503, "closed"), (504, "deadline_exceeded"), (404, "not_found"), (500, "internal")}
    assert {pair for pair in listed if "those of" not in pair[1]} == raised | runtime | {(405, "method_not_allowed")}


@pytest.mark.parametrize("name", [*tensors.OUTPUTS, "history", "lengths", "k", "timestamps", "request_time", "users"])
def test_every_tensor_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in PAGE
