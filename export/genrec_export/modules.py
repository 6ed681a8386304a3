"""Exporting a plain module: ``TransformerEncoder``, ``MultiHeadAttention``, or any other with a stated signature."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec.modules import MultiHeadAttention, TransformerEncoder
from genrec_export.assemble import TOLERANCE, Draft, Exported, blank_manifest, export_draft
from genrec_export.parity import Arrays, Report, check_graph, run_torch
from genrec_export.tracing import Graph, evaluating
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Manifest, Signature, TensorSpec
from genrec_runtime.module import GRAPH

FREE_AXIS = 16  # longest size tried on an axis without a limit


def export_module(
    module: nn.Module,
    *,
    out: str | os.PathLike[str],
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
    limits: Mapping[str, int] | None = None,
    name: str | None = None,
    promote: bool = False,
) -> Exported:
    """Exports a module to a store as one self-checking bundle, after proving that it answers as torch does.

    Args:
        module: called with the inputs in order; gives one tensor, or a tuple of them (None among them is left out).
        out: the store, a folder.
        inputs: name, dtype and axes of each input; may be left out for our own ``TransformerEncoder`` and
            ``MultiHeadAttention``. Axes with names stay free, those with numbers are fixed.
        outputs: the same of each output.
        limits: largest size of an axis.
        name: the module's name, for people; its class if not given.
        promote: make ``current`` point to this version even if it points to another.

    Raises:
        ExportError: if the module cannot be traced, or a comparison fails; nothing is published then.
        ValueError: if no signature is given for a module whose signature is not known.
    """
    signature = Signature(tuple(inputs), tuple(outputs), dict(limits or {})) if inputs else signature_of(module)
    with evaluating(module):
        flat = _Flat(module)
        graph = Graph(flat, signature.inputs, signature.outputs, signature.limits)
        random = np.random.default_rng(0)
        example = _inputs(graph, {axis: 2 + i for i, axis in enumerate(_axes(graph))}, "mixed", random)
        draft = Draft(
            module=flat,
            graphs={GRAPH: graph},
            example={key: torch.from_numpy(value) for key, value in example.items()},
            goldens={GRAPH: _goldens(graph)},
            manifest=Manifest(
                **blank_manifest("module", name or type(module).__name__, getattr(module, "arguments", {})),
                capabilities=("run",),
                semantics=None,
            ),
        )
        return export_draft(draft, Path(out), Report(TOLERANCE), functools.partial(_prove, graph), promote=promote)


def signature_of(module: nn.Module) -> Signature:
    """The signature of our own encoder and attention.

    Raises:
        ValueError: for any other module; its inputs and outputs must be stated.
    """
    if isinstance(module, TransformerEncoder):
        vocab_size, width = module.embedding.weight.shape
        return Signature(
            inputs=(
                TensorSpec("input_ids", "int64", ("batch", "length"), 0, vocab_size - 1),
                TensorSpec("attention_mask", "int64", ("batch", "length"), 0, 1),
            ),
            outputs=(TensorSpec("encoded", "float32", ("batch", "length", width)),),
            limits={"length": module.max_seq_length},
        )
    if isinstance(module, MultiHeadAttention):
        width, q, k = module.embedding_dim, "query_length", "key_length"
        weights = TensorSpec("weights", "float32", ("batch", module.num_heads, q, k))
        return Signature(
            inputs=(
                TensorSpec("query", "float32", ("batch", q, width)),
                TensorSpec("key", "float32", ("batch", k, width)),
                TensorSpec("value", "float32", ("batch", k, width)),
                TensorSpec("mask", "int64", ("batch", q, k), 0, 1),
            ),
            outputs=(
                TensorSpec("output", "float32", ("batch", q, width)),
                *((weights,) if module.need_weights else ()),
            ),
        )
    raise ValueError(
        f"the inputs and outputs of {type(module).__name__} are not known; state them: export_module(module, out=..., "
        "inputs=[TensorSpec(...)], outputs=[TensorSpec(...)])"
    )


def parse_signature(stated: Mapping[str, Any]) -> Signature:
    """A signature as ``genrec.modules.save(..., signature=...)`` keeps it: JSON with ``inputs``, ``outputs``, ``limits``.

    Raises:
        ValueError: if it is no such thing.
    """
    try:
        inputs, outputs = (
            tuple(
                TensorSpec(spec["name"], spec["dtype"], tuple(spec["axes"]), spec.get("low"), spec.get("high"))
                for spec in stated[way]
            )
            for way in ("inputs", "outputs")
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"a signature needs inputs and outputs, each a list of name, dtype, axes; got {stated}"
        ) from error
    return Signature(inputs, outputs, dict(stated.get("limits", {})))


class _Flat(nn.Module):
    """A module whose outputs are tensors only: those that are None are left out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The module's outputs."""
        outputs = self.module(*inputs)
        return tuple(output for output in outputs if output is not None) if isinstance(outputs, tuple) else outputs


def _prove(graph: Graph, folder: Path, engine: Engine, report: Report) -> None:
    check_graph(report, GRAPH, graph, engine, _cases(graph))


def _cases(graph: Graph) -> Iterator[tuple[str, Arrays]]:
    """The grid: sizes 1, 2, 5 of the batch, 1, 2 and the largest two of other axes; all high, all low, mixed values."""
    random = np.random.default_rng(1)
    choices = {}
    for axis in _axes(graph):
        largest = graph.limits.get(axis, FREE_AXIS)
        choices[axis] = [1, 2, 5] if axis == "batch" else sorted({1, 2, max(1, largest - 1), largest})
    for sizes in itertools.product(*choices.values()):
        named = dict(zip(choices, sizes, strict=True))
        for filling in ("mixed", "high", "low"):
            shown = " ".join(f"{axis}={size}" for axis, size in named.items())
            yield f"{shown}, {filling}", _inputs(graph, named, filling, random)


def _goldens(graph: Graph) -> Arrays:
    arrays: Arrays = {}
    for i, (_, inputs) in enumerate(itertools.islice(_cases(graph), 5, 200, 7)):
        arrays |= {f"{i}.in.{name}": value for name, value in inputs.items()}
        arrays |= {f"{i}.out.{name}": value for name, value in run_torch(graph, inputs).items()}
    return arrays


def _axes(graph: Graph) -> list[str]:
    return list(dict.fromkeys(axis for spec in graph.inputs for axis in spec.axes if isinstance(axis, str)))


def _inputs(graph: Graph, sizes: Mapping[str, int], filling: str, random: np.random.Generator) -> Arrays:
    return {spec.name: _values(spec, sizes, filling, random) for spec in graph.inputs}


def _values(spec: TensorSpec, sizes: Mapping[str, int], filling: str, random: np.random.Generator) -> NDArray[Any]:
    """Values in the range of an input: integers from low to high, floats normally distributed."""
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.axes]
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return random.standard_normal(shape).astype(spec.dtype)
    low, high = spec.low or 0, 1 if spec.high is None else spec.high
    low, high = {"mixed": (low, high), "high": (high, high), "low": (low, low)}[filling]
    return random.integers(low, high + 1, shape).astype(spec.dtype)
