"""From graphs to a published bundle: trace, check, write, prove on what was written, then publish or refuse."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from genrec import __version__
from genrec_export.card import card
from genrec_export.checks import check_file, check_model
from genrec_export.errors import ExportError
from genrec_export.report import Arrays, Report, npz
from genrec_export.surgery import WEIGHTS, anonymise, cut, measure_on_first, move_weights, operators
from genrec_export.tracing import OPSET, Graph, trace
from genrec_export.writer import publish, staging, write_files, write_manifest
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.errors import GenrecError
from genrec_runtime.manifest import Manifest, Tolerance, Weight

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)
ONNXRUNTIME = "1.24"  # the oldest that serves
SUSPECTS = {
    "graph": "an operator whose onnxruntime kernel differs, or a branch that tracing fixed",
    "product": "padding side, window, item numbering, seen filter: serving prepares histories otherwise than reference",
    "padding": "positions counted from the window's start, or padding that is not masked",
}

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Draft:
    """A bundle before it is traced.

    Attributes:
        module: in eval mode; takes the inputs of ``example`` and gives every output of all graphs, in their order.
        graphs: what each graph computes, with its signature.
        example: inputs to trace on, at least 2 long on every free axis.
        goldens: per graph recorded inputs and torch's answers.
        manifest: what is known before tracing.
        files: further files, such as the catalogue's.
        facts: JSON values for the card: data, metrics.
    """

    module: nn.Module
    graphs: Mapping[str, Graph]
    example: Mapping[str, Tensor]
    goldens: Mapping[str, Arrays]
    manifest: Manifest
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export made.

    Attributes:
        path: the bundle's folder in the store.
        version: its name there.
        manifest: what the bundle says of itself.
        report: every comparison that was made.
    """

    path: Path
    version: str
    manifest: Manifest
    report: Report


Prove = Callable[[Path, Engine, Report], None]


def export_draft(draft: Draft, store: Path, report: Report, prove: Prove, *, promote: bool, say: Say) -> Exported:
    """Makes a bundle of a draft and publishes it, if it proves equal to torch.

    Args:
        draft: the model and what is known of it.
        store: the folder of versions.
        report: comparisons made so far.
        prove: adds to the report, given the written bundle and an engine on it.
        promote: make ``current`` point to this version even if it points to another.
        say: told what is being done.

    Raises:
        ExportError: if a check or a comparison fails; nothing is published then.
    """
    with staging(store) as folder:
        say("tracing")
        models, blob, weights = _traced(draft)
        files = {f"{name}.onnx": model.SerializeToString(deterministic=True) for name, model in models.items()}
        files |= {f"golden/{name}.npz": npz(arrays) for name, arrays in draft.goldens.items()}
        entries = write_files(folder, files | {WEIGHTS: blob} | dict(draft.files))
        manifest = replace(
            draft.manifest,
            graphs={name: {"fp32": f"{name}.onnx"} for name in draft.graphs},
            signature={name: graph.signature for name, graph in draft.graphs.items()},
            weights={WEIGHTS: weights},
            ir_version=max(model.ir_version for model in models.values()),
            ops=operators(list(models.values())),
            files=entries,
        )
        write_manifest(folder, manifest)
        for name in models:
            check_file(folder / f"{name}.onnx")
        say("comparing with torch")
        prove(folder, _engine(folder), report)
        if not report.passed:
            raise refusal(report)
        manifest = replace(manifest, parity=report.summary(), provenance={**manifest.provenance, **draft.facts})
        texts = {"report.json": report.to_json(), "README.md": card(manifest, report, draft.facts).encode()}
        manifest = write_manifest(folder, replace(manifest, files=entries | write_files(folder, texts)))
        path = publish(folder, store, manifest.version, promote=promote)
    return Exported(path, manifest.version, manifest, report)


def refusal(report: Report) -> ExportError:
    """Says in three lines which comparison failed, by how much, and the suspect."""
    worst = max((cell for cell in report.cells if not cell.passed), key=lambda cell: cell.excess)
    return ExportError(
        f"parity failed at {worst.level} level: {worst.what}, {worst.case}, row {worst.row}\n"
        f"the answers differ by {worst.error:.3g}, {worst.excess:.3g} times the tolerance\n"
        f"suspect: {SUSPECTS[worst.level]}"
    )


def blank_manifest(kind: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest that every export fills alike.

    Raises:
        ValueError: if ``config`` holds something that JSON does not have.
    """
    return {
        "kind": kind,
        "model": {"name": name, "config": as_json("config", config)},
        "graphs": {},
        "signature": {},
        "files": {},
        "weights": {},
        "opset": OPSET,
        "ir_version": 0,
        "ops": {},
        "tolerance": TOLERANCE,
        "requires": {"onnxruntime": ONNXRUNTIME},
        "provenance": {
            "genrec": __version__,
            "torch": torch.__version__.split("+")[0],
            "onnx": onnx.__version__,
            "python": platform.python_version(),
        },
    }


def as_json(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from JSON.

    Raises:
        ValueError: if JSON has no such values; NaN is one.
    """
    try:
        content: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold JSON values: {error}") from error
    return content


def silent(text: str) -> None:
    """Says nothing."""


def _traced(draft: Draft) -> tuple[dict[str, onnx.ModelProto], bytes, tuple[Weight, ...]]:
    """The graphs, each checked, and their weights."""
    whole = trace(draft.module, draft.graphs, draft.example)
    anonymise(whole)
    specs = {spec.name: spec for graph in draft.graphs.values() for spec in graph.inputs}
    measure_on_first(whole, [specs[name] for name in draft.example])
    blob, weights = move_weights(whole)
    models = {name: cut(whole, name, graph) for name, graph in draft.graphs.items()}
    for name, graph in draft.graphs.items():
        check_model(name, models[name], graph)
    return models, blob, weights


def _engine(folder: Path) -> Engine:
    try:
        return Engine(Bundle.open(folder), "cpu")
    except GenrecError as error:
        raise ExportError(f"the written bundle cannot be opened: {error}") from error
