"""From graphs to a published bundle: trace, check, write, prove on what was written, then publish or refuse."""

from __future__ import annotations

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
from genrec_export.checks import check_model, check_weights
from genrec_export.errors import ExportError
from genrec_export.parity import Arrays, Report
from genrec_export.tracing import OPSET, Graph, operators, share_weights, trace
from genrec_export.writer import npz, publish, staging, write, write_failure
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Manifest, Tolerance

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)
ONNXRUNTIME = "1.24"  # the oldest that serves
SUSPECTS = {
    "graph": "an operator whose onnxruntime kernel differs, or a branch that tracing fixed",
    "product": "padding side, window, item numbering, seen filter: serving prepares histories otherwise than reference",
    "padding": "positions counted from the window's start, or padding that is not masked",
}


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


def export_draft(draft: Draft, store: Path, report: Report, prove: Prove, *, promote: bool) -> Exported:
    """Makes a bundle of a draft and publishes it, if it proves equal to torch.

    Args:
        draft: the model and what is known of it.
        store: the folder of versions.
        report: comparisons made so far.
        prove: adds to the report, given the written bundle and an engine on it.
        promote: make ``current`` point to this version even if it points to another.

    Raises:
        ExportError: if a check or a comparison fails; ``STORE.failed/`` then says more, and nothing is published.
    """
    check_weights(draft.module)
    with staging(store) as folder:  # first: a store that cannot be written is said before the long work
        models = trace(draft.module, draft.graphs, draft.example)
        for name, graph in draft.graphs.items():
            check_model(name, models[name], graph)
        blob, weights = share_weights(models)
        files = {f"{name}.onnx": model.SerializeToString(deterministic=True) for name, model in models.items()}
        files |= {f"golden/{name}.npz": npz(arrays) for name, arrays in draft.goldens.items()}
        files |= {"weights.bin": blob} | dict(draft.files)
        manifest = replace(
            draft.manifest,
            graphs={name: {"fp32": f"{name}.onnx"} for name in draft.graphs},
            signature={name: graph.signature for name, graph in draft.graphs.items()},
            weights={"weights.bin": weights},
            ir_version=max(model.ir_version for model in models.values()),
            ops=operators(list(models.values())),
        )
        write(folder, manifest, files)
        prove(folder, Engine(Bundle.open(folder), "cpu"), report)
        if not report.passed:
            raise refusal(report, store)
        manifest = replace(manifest, parity=report.summary(), provenance={**manifest.provenance, **draft.facts})
        files |= {"report.json": report.to_json(), "README.md": card(manifest, report, draft.facts).encode()}
        manifest = write(folder, manifest, files)
        path = publish(folder, store, manifest.version, promote=promote)
    return Exported(path, manifest.version, manifest, report)


def refusal(report: Report, store: Path) -> ExportError:
    """Leaves ``STORE.failed/`` and says in three lines which comparison failed, by how much, and the suspect."""
    worst = max((cell for cell in report.cells if not cell.passed), key=lambda cell: cell.excess)
    folder = write_failure(store, report)
    return ExportError(
        f"parity failed at {worst.level} level: {worst.what}, {worst.case}, row {worst.row}\n"
        f"the answers differ by {worst.error:.3g}, {worst.excess:.3g} times the tolerance\n"
        f"suspect: {SUSPECTS[worst.level]}; report and failing input in {folder}"
    )


def blank_manifest(kind: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest that every export fills alike."""
    return {
        "kind": kind,
        "model": {"name": name, "config": dict(config)},
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
