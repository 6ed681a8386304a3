"""Exporting a plain module: ``TransformerEncoder``, ``MultiHeadAttention``, or any other with a stated signature."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec_export.assemble import TOLERANCE, Exported, Say, blank_manifest, export_draft, silent
from genrec_export.checks import check_weights
from genrec_export.draft import Draft
from genrec_export.parity import check_graph, run_torch
from genrec_export.report import Arrays, Report
from genrec_export.signatures import check_outputs, signature_of, stated_signature
from genrec_export.tracing import Graph, evaluating
from genrec_export.variants import Opset, check_options
from genrec_export.writer import check_store, leaving_evidence
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Manifest, TensorSpec
from genrec_runtime.module import GRAPH

FREE_AXIS = 16  # longest size tried on an axis without a limit, and recorded on any
GOLDENS = 8


def export_module(
    module: nn.Module,
    *,
    out: str | os.PathLike[str],
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
    limits: Mapping[str, int] | None = None,
    name: str | None = None,
    opset: Opset = 20,
    promote: bool = False,
    say: Say | None = None,
) -> Exported:
    """Exports a module to a store as one self-checking bundle, after proving that it answers as torch does.

    Args:
        module: called with the inputs in order; gives one tensor, or a tuple of them (None among them is left out).
        out: the store, a folder.
        inputs: name, dtype and axes of each input, and the range of whole numbers; may be left out for our own
            ``TransformerEncoder`` and ``MultiHeadAttention``. Axes with names stay free, those with numbers are fixed.
        outputs: the same of each output; free axes are those of the inputs.
        limits: largest size of an axis.
        name: the module's name, for people; its class if not given.
        opset: version of ONNX's operators, 20 or 23; the latter has attention as one operator.
        promote: make ``current`` point to this version even if it points to another.
        say: told what is being done, a few words at a time.

    Raises:
        ExportError: if the module cannot be traced, or a comparison fails; nothing is published then, and
            ``OUT.failed/`` holds the report, the smallest input that failed, and the error in full.
        ValueError: if no signature is given for a module whose signature is not known, or the module does not keep it.
    """
    check_options((), opset, by_table=False)
    known = not (inputs or outputs or limits)
    signature = signature_of(module) if known else stated_signature(inputs, outputs, limits)
    check_weights(module)
    check_store(Path(out))  # before the long work
    report = Report(TOLERANCE)
    with leaving_evidence(Path(out), report), evaluating(module):
        flat = _Flat(module)
        graph = Graph(flat, signature.inputs, signature.outputs, signature.limits)
        sizes = {axis: min(2 + i, signature.limits.get(axis, 2 + i)) for i, axis in enumerate(_axes(graph))}
        example = _inputs(graph, sizes, "mixed", np.random.default_rng(0))
        check_outputs(graph, example, run_torch(graph, example))
        draft = Draft(
            module=flat,
            graphs={GRAPH: graph},
            example={key: torch.from_numpy(value) for key, value in example.items()},
            goldens={GRAPH: _goldens(graph)},
            manifest=Manifest(
                **blank_manifest("module", name or type(module).__name__, _arguments(module), opset),
                capabilities=("run",),
                semantics=None,
            ),
        )
        prove = functools.partial(_prove, graph)
        return export_draft(draft, Path(out), report, prove, promote=promote, say=say or silent)


def _arguments(module: nn.Module) -> dict[str, Any]:
    """The constructor's arguments, where the module keeps them as ours do."""
    arguments = getattr(module, "arguments", {})
    return arguments if isinstance(arguments, dict) else {}


class _Flat(nn.Module):
    """A module whose outputs are tensors only: those that are None are left out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The module's outputs."""
        outputs = self.module(*inputs)
        return tuple(output for output in outputs if output is not None) if isinstance(outputs, tuple) else outputs


def _prove(graph: Graph, folder: Path, engine: Engine, report: Report) -> dict[str, Any]:
    check_graph(report, GRAPH, graph, engine, _cases(graph, [*_grid(graph), *_coincidences(graph)]))
    return {}


def _grid(graph: Graph, longest: int = sys.maxsize) -> list[dict[str, int]]:
    """Sizes 1, 2, 5 of the batch, with 1, 2 and the largest two of other axes."""
    choices = {}
    for axis in _axes(graph):
        largest = min(graph.limits.get(axis, FREE_AXIS), longest)
        choices[axis] = [1, 2, 5] if axis == "batch" else sorted({1, 2, largest - 1, largest})
    return [dict(zip(choices, sizes, strict=True)) for sizes in itertools.product(*choices.values())]


def _coincidences(graph: Graph) -> list[dict[str, int]]:
    """Each free axis as long as each fixed one: a model that tells its inputs apart by shape may mistake them there."""
    axes = _axes(graph)
    fixed = sorted({axis for spec in graph.inputs for axis in spec.axes if isinstance(axis, int) and axis > 2})
    return [
        dict.fromkeys(axes, 2) | {axis: size}
        for axis, size in itertools.product(axes, fixed)
        if size <= graph.limits.get(axis, size)
    ]


def _cases(graph: Graph, sizes: Sequence[Mapping[str, int]]) -> Iterator[tuple[str, Arrays]]:
    """Inputs of each of the sizes: all high, all low, mixed values."""
    random = np.random.default_rng(1)
    for named in sizes:
        for filling in ("mixed", "high", "low"):
            shown = " ".join(f"{axis}={size}" for axis, size in named.items())
            yield f"{shown}, {filling}", _inputs(graph, named, filling, random)


def _goldens(graph: Graph) -> Arrays:
    """A few small cases of the grid, spread over it, with torch's answers: they are shipped with the bundle."""
    cases = [inputs for _, inputs in _cases(graph, _grid(graph, longest=FREE_AXIS))]
    arrays: Arrays = {}
    for i in np.unique(np.linspace(0, len(cases) - 1, GOLDENS).astype(np.int64)):
        arrays |= {f"{i}.in.{name}": value for name, value in cases[i].items()}
        arrays |= {f"{i}.out.{name}": value for name, value in run_torch(graph, cases[i]).items()}
    return arrays


def _axes(graph: Graph) -> list[str]:
    return list(dict.fromkeys(axis for spec in graph.inputs for axis in spec.axes if isinstance(axis, str)))


def _inputs(graph: Graph, sizes: Mapping[str, int], filling: str, random: np.random.Generator) -> Arrays:
    return {spec.name: _values(spec, sizes, filling, random) for spec in graph.inputs}


def _values(spec: TensorSpec, sizes: Mapping[str, int], filling: str, random: np.random.Generator) -> NDArray[Any]:
    """Values in the range of an input, from low to high; floats without one are normally distributed."""
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.axes]
    is_float = np.issubdtype(np.dtype(spec.dtype), np.floating)
    if is_float and spec.low is None:
        return random.standard_normal(shape).astype(spec.dtype)
    low, high = spec.low or 0, 1 if spec.high is None else spec.high
    low, high = {"mixed": (low, high), "high": (high, high), "low": (low, low)}[filling]
    values = random.uniform(low, high, shape) if is_float else random.integers(low, high + 1, shape)
    return values.astype(spec.dtype)
