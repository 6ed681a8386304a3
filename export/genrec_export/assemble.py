"""From graphs to a published bundle: trace, check, write, prove on what was written, then publish or refuse."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from genrec import __version__
from genrec_export.card import card
from genrec_export.checks import check_file
from genrec_export.draft import Draft, Traced, VariantDraft, trace_draft
from genrec_export.errors import ExportError
from genrec_export.parting import first_parting
from genrec_export.report import Report, npz
from genrec_export.surgery import operators, packed_bytes, weights_file
from genrec_export.writer import publish, staging, write_files, write_manifest
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.errors import GenrecError
from genrec_runtime.graphcheck import check_graph
from genrec_runtime.manifest import Manifest, Tolerance, Variant
from genrec_runtime.options import Options

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)
# The oldest that serves, by opset. What 1.24 to 1.27 make of Attention differs: a query that sees no key gets the mean of all.
ONNXRUNTIME = {20: "1.24", 23: "1.28"}
SUSPECTS = {
    "graph": "an operator whose onnxruntime kernel differs, or a branch that tracing fixed",
    "product": "padding side, window, item numbering, seen filter: serving prepares histories otherwise than reference",
    "variant": "a precision that this model does not bear, or one that is not trained: its scores lie too close together",
    "search": "what search makes of exclude and available, or a score that is not the one of score_candidates",
    "padding": "positions counted from the window's start, or padding that is not masked",
}

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export made.

    Attributes:
        path: the bundle's folder in the store.
        version: its name there.
        manifest: what the bundle in the store says of itself.
        report: every comparison that was made.
        is_new: False where the store had this version already.
    """

    path: Path
    version: str
    manifest: Manifest
    report: Report
    is_new: bool


Prove = Callable[[Path, Engine, Report], Mapping[str, Any]]


def export_draft(draft: Draft, store: Path, report: Report, prove: Prove, *, promote: bool, say: Say) -> Exported:
    """Makes a bundle of a draft and publishes it, if it proves equal to torch.

    Args:
        draft: the model and what is known of it.
        store: the folder of versions.
        report: comparisons made so far.
        prove: adds to the report, given the written bundle and an engine on it; returns what it measured beside, JSON values.
        promote: make ``current`` point to this version even if it points to another.
        say: told what is being done.

    Raises:
        ExportError: if a check or a comparison fails; nothing is published then.
    """
    with staging(store) as folder:
        say("tracing")
        traced = trace_draft(draft)
        files = {name: model.SerializeToString(deterministic=True) for name, model in traced.models.items()}
        files |= {f"golden/{name}.npz": npz(arrays) for name, arrays in draft.goldens.items()}
        entries = write_files(folder, files | dict(traced.blobs) | dict(draft.files))
        manifest = replace(
            draft.manifest,
            graphs=draft.file_names(),
            variants={name: _described(name, variant, traced) for name, variant in draft.variants.items()},
            signature={name: graph.signature for name, graph in draft.graphs.items()},
            weights=traced.weights,
            memory={name: packed_bytes(model) for name, model in traced.models.items()},
            ir_version=max(model.ir_version for model in traced.models.values()),
            ops=operators(list(traced.models.values())),
            files=entries,
        )
        write_manifest(folder, manifest)
        for name in traced.models:
            check_file(folder / name)
        _check_readable(folder)
        say("comparing with torch")
        measured = prove(folder, _engine(folder), report)
        if not report.passed:
            _look_inside(report, draft, traced, folder)
            raise refusal(report)
        facts = {**manifest.provenance, **draft.facts}
        manifest = replace(manifest, parity=report.summary(), measured=measured, provenance=facts)
        texts = {"report.json": report.to_json(), "README.md": card(manifest, report, draft.facts).encode()}
        manifest = write_manifest(folder, replace(manifest, files=entries | write_files(folder, texts)))
        published = publish(folder, store, manifest, promote=promote)
    stored = manifest if published.is_new else Bundle.read_manifest(published.path)
    return Exported(published.path, stored.version, stored, report, published.is_new)


def refusal(report: Report) -> ExportError:
    """Says in three lines which comparison failed, by how much, and the suspect."""
    worst = max((cell for cell in report.cells if not cell.passed), key=lambda cell: cell.excess)
    return ExportError(
        f"parity failed at {worst.level} level: {worst.what}, {worst.case}, row {worst.row}\n"
        f"the answers differ by {worst.error:.3g}, {worst.excess:.3g} times the tolerance\n"
        f"suspect: {report.parting.text if report.parting else SUSPECTS[worst.level]}"
    )


def blank_manifest(kind: str, name: str, config: Mapping[str, Any], opset: int) -> dict[str, Any]:
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
        "opset": opset,
        "ir_version": 0,
        "ops": {},
        "tolerance": TOLERANCE,
        "requires": {"onnxruntime": ONNXRUNTIME[opset]},
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


def _described(name: str, variant: VariantDraft, traced: Traced) -> Variant:
    """A variant for the manifest."""
    own = [f"{graph}.{name}.onnx" for graph in variant.graphs]
    own += [file for file in traced.blobs if file == weights_file(name)]
    return Variant(tuple(own), variant.tolerance, variant.k, variant.gate)


def _look_inside(report: Report, draft: Draft, traced: Traced, folder: Path) -> None:
    """Finds where inside the model the two part, for the smallest input that failed."""
    graph = draft.graphs.get(report.failing_graph)
    if graph is not None:
        file = folder / f"{report.failing_graph}.onnx"
        report.parting = first_parting(draft.module, graph, file, traced.scopes, report.failing, report.tolerance)


def _check_readable(folder: Path) -> None:
    """Holds every graph to what the runtime holds it to before it opens it."""
    bundle = Bundle.open(folder)
    try:
        for graph, files in bundle.manifest.graphs.items():
            for file in files.values():
                check_graph(bundle.manifest, graph, file, bundle.bytes(file))
    except GenrecError as error:
        raise ExportError(f"the runtime would not serve this: {error}") from error


def _engine(folder: Path) -> Engine:
    try:
        return Engine(Bundle.open(folder), Options("cpu"), trusting=True)
    except GenrecError as error:
        raise ExportError(f"the written bundle cannot be opened: {error}") from error
