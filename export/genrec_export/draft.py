"""A bundle before it is written: what is known of it, and its traced, checked graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from torch import Tensor, nn

from genrec_export.checks import check_model, check_sizes
from genrec_export.parting import scopes
from genrec_export.report import Arrays
from genrec_export.surgery import anonymise, cut, measure_on_first, move_weights
from genrec_export.tracing import Graph, trace
from genrec_runtime.manifest import FP32, Manifest, Tolerance, Weight


@dataclass(frozen=True, eq=False)
class VariantDraft:
    """A cheaper form of some graphs, before it is made.

    Attributes:
        add: adds the outputs "GRAPH.VARIANT/OUTPUT" to a freshly traced model.
        graphs: the graphs that have this form.
        tolerance: how far its scores may lie from torch's.
        gate: least share of the best ``k`` that it must have in common with "fp32".
        k: length of the lists compared.
    """

    add: Callable[[onnx.ModelProto], None]
    graphs: tuple[str, ...]
    tolerance: Tolerance
    gate: float
    k: int


@dataclass(frozen=True, eq=False)
class Draft:
    """A bundle before it is traced.

    Attributes:
        module: in eval mode; takes the inputs of ``example`` and gives every output of all graphs, in their order.
        graphs: what each graph computes, with its signature.
        example: inputs to trace on, at least 2 long on every free axis.
        goldens: per graph recorded inputs and torch's answers.
        manifest: what is known before tracing; its opset is traced to.
        files: further files, such as the catalogue's.
        facts: JSON values for the card: data, metrics.
        variants: further forms of the graphs, by name.
    """

    module: nn.Module
    graphs: Mapping[str, Graph]
    example: Mapping[str, Tensor]
    goldens: Mapping[str, Arrays]
    manifest: Manifest
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, VariantDraft] = field(default_factory=dict)

    def file_names(self) -> dict[str, dict[str, str]]:
        """For each graph the file of each of its variants."""
        return {
            graph: {FP32: f"{graph}.onnx"}
            | {name: f"{graph}.{name}.onnx" for name, variant in self.variants.items() if graph in variant.graphs}
            for graph in self.graphs
        }


@dataclass(frozen=True, eq=False)
class Traced:
    """The graphs of a draft.

    Attributes:
        models: by name of the file, their tensors outside.
        blobs: the content of the files that hold those tensors.
        weights: where each tensor lies in them.
        scopes: for each submodule the values made inside it, in order.
    """

    models: Mapping[str, onnx.ModelProto]
    blobs: Mapping[str, bytes]
    weights: Mapping[str, tuple[Weight, ...]]
    scopes: Mapping[str, list[str]]


def trace_draft(draft: Draft) -> Traced:
    """Traces a draft once for all its graphs, adds its variants, takes it apart and checks the parts.

    Raises:
        ExportError: if torch cannot trace it, or a graph is not as serving relies on.
    """
    whole = trace(draft.module, draft.graphs, draft.example, draft.manifest.opset)
    inside = scopes(whole)
    for variant in draft.variants.values():
        variant.add(whole)
    anonymise(whole)
    specs = {spec.name: spec for graph in draft.graphs.values() for spec in graph.inputs}
    measure_on_first(whole, [specs[name] for name in draft.example])
    blobs, weights = move_weights(whole)
    models = {}
    for graph, files in draft.file_names().items():
        for file in files.values():
            name = file.removesuffix(".onnx")
            models[file] = cut(whole, name, draft.graphs[graph])
            check_model(name, models[file], draft.graphs[graph])
    check_sizes(draft.module, models, blobs)
    return Traced(models, blobs, weights, inside)
