"""Looking at a graph before onnxruntime does: what it may be made of, what it may read, how large a tensor it may make.

None of this replaces the trust in whoever made a bundle: docs/security.md says what is defended and what is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from genrec_runtime.errors import BundleCorrupt, BundleVersionError, Unsupported
from genrec_runtime.graphsizes import check_sizes
from genrec_runtime.manifest import Manifest, Signature, Weight
from genrec_runtime.onnxfile import Graph, Model, Node, Tensor, read_model

MICROSOFT = "com.microsoft"  # operators that onnxruntime brings along
# By domain the operators that a graph may be made of: ONNX's own without control flow or randomness, and of onnxruntime's those
# that only the int8 variant may use.
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        """
        Abs Add And ArgMax ArgMin Attention Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum Div Einsum
        Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual HardSigmoid
        Identity IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max Mean Min Mish
        Mod Mul Neg Not OneHot Or Pad Pow Range RMSNormalization Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum Relu Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Slice Softmax Softplus Sqrt Split Squeeze
        Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
        """.split()  # noqa: SIM905  # ninety names read better as words than as a list of strings
    ),
    MICROSOFT: frozenset({"MatMulIntegerToFloat"}),
}
INT8 = "int8"
MAX_GRAPH_BYTES = 16 << 20  # without the tensors that lie in a weights file; ours have some 10 kB
MIN_OPSET = 20
ATTRIBUTE_TYPES = range(1, 9)  # float, int, string, tensor, and lists of the first three; 5, a graph, is left out below
SUBGRAPH = 5


def check_graph(manifest: Manifest, graph: str, file: str, content: bytes) -> None:
    """Refuses a graph that no exporter writes; to be called with the very bytes that onnxruntime is given.

    Args:
        manifest: what the bundle says of itself, checked.
        graph: the graph's name, such as "recommend".
        file: the name of its file, such as "recommend.int8.onnx".
        content: the file's bytes.

    Raises:
        BundleCorrupt: if it is no ONNX file, does not agree with the manifest, or could do harm.
        BundleVersionError: if its opset is older than any bundle's.
        Unsupported: if it uses an operator that bundles do not have.
    """
    try:
        if len(content) > MAX_GRAPH_BYTES:
            raise BundleCorrupt(f"has {len(content)} bytes, more than {MAX_GRAPH_BYTES}", code="bundle_unsafe")
        model = _read(content)
        variants = [name for name, other in manifest.graphs[graph].items() if other == file]
        _check_versions(model, manifest)
        _check_operators(model, int8=variants == [INT8])
        if model.graph is None or model.unread or model.graph.unread:
            raise BundleCorrupt("has functions, metadata or sparse tensors, or no nodes", code="bundle_unsafe")
        _check_names(model.graph, manifest.signature[graph])
        _check_tensors(model.graph, _weights_of(manifest, variants))
        check_sizes(model.graph)
    except (BundleCorrupt, BundleVersionError, Unsupported) as error:
        raise type(error)(f"graph {graph!r} {error}", code=error.code) from error


def _read(content: bytes) -> Model:
    try:
        return read_model(content)
    except BundleCorrupt as error:
        raise BundleCorrupt(f"is no ONNX file: {error}") from error


def _check_versions(model: Model, manifest: Manifest) -> None:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if len(versions) != len(model.opset_import) or versions.get("") != manifest.opset:
        raise BundleCorrupt(f"has the opsets {versions}, the manifest says {manifest.opset}")
    if not 0 < model.ir_version <= manifest.ir_version:
        raise BundleCorrupt(f"has IR version {model.ir_version}, the manifest says at most {manifest.ir_version}")
    if manifest.opset < MIN_OPSET:
        raise BundleVersionError(f"has opset {manifest.opset}, bundles have {MIN_OPSET} or newer; export it again")


def _check_operators(model: Model, *, int8: bool) -> None:
    allowed = {domain: names for domain, names in OPERATORS.items() if not domain or int8}
    for node in model.graph.node if model.graph else ():
        if node.op_type not in allowed.get(node.domain, ()):
            raise Unsupported(f"uses the operator {node.domain or 'onnx'}::{node.op_type}, which is not served")
        _check_attributes(node)
    strange = {entry.domain for entry in model.opset_import} - set(allowed)
    if strange:
        raise Unsupported(f"uses the domain {', '.join(sorted(strange))}, which is not served")


def _check_attributes(node: Node) -> None:
    names = [attribute.name for attribute in node.attribute]
    if node.unread or len(set(names)) != len(names):
        raise BundleCorrupt(f"has metadata, or a setting twice, in {node.op_type} {node.name!r}", code="bundle_unsafe")
    for attribute in node.attribute:
        if attribute.unread or attribute.type not in ATTRIBUTE_TYPES or attribute.type == SUBGRAPH:
            raise BundleCorrupt(
                f"has a subgraph, or what else no node may hold, in {node.op_type}", code="bundle_unsafe"
            )
        if attribute.t is not None:
            attribute.t.values()


def _check_names(graph: Graph, signature: Signature) -> None:
    """Inputs and outputs are the signature's; every value is made once, before it is read."""
    for way, values, specs in (("inputs", graph.input, signature.inputs), ("outputs", graph.output, signature.outputs)):
        found, stated = [value.name for value in values], [spec.name for spec in specs]
        if sorted(found) != sorted(stated):
            raise BundleCorrupt(f"has the {way} {', '.join(found)}, the manifest says {', '.join(stated)}")
        if any(value.unread for value in values):
            raise BundleCorrupt(f"has metadata in its {way}", code="bundle_unsafe")
    known: set[str] = set()
    _add(known, (value.name for value in graph.input))
    _add(known, (tensor.name for tensor in graph.initializer))
    for node in graph.node:
        if not known.issuperset(filter(None, node.input)):
            raise BundleCorrupt(f"has a {node.op_type} {node.name!r} that reads a value which is not there yet")
        _add(known, filter(None, node.output))
    if not known.issuperset(value.name for value in graph.output):
        raise BundleCorrupt("makes not all of its outputs")


def _add(known: set[str], names: Iterable[str]) -> None:
    for name in names:
        if not name or name in known:
            raise BundleCorrupt(f"makes the value {name!r} twice, or one without a name")
        known.add(name)


def _weights_of(manifest: Manifest, variants: Collection[str]) -> dict[str, tuple[str, Weight]]:
    """The weights that a file of these variants may read, by name, each with the file that holds it."""
    others = {file for name, one in manifest.variants.items() if [name] != list(variants) for file in one.files}
    return {
        weight.name: (file, weight) for file, all_ in manifest.weights.items() if file not in others for weight in all_
    }


def _check_tensors(graph: Graph, weights: Mapping[str, tuple[str, Weight]]) -> None:
    for tensor in graph.initializer:
        if (tensor.data_location == 1) != (tensor.name in weights):
            raise BundleCorrupt(f"has the tensor {tensor.name!r} elsewhere than the manifest says")
        if tensor.name in weights:
            _check_external(tensor, *weights[tensor.name])
        else:
            tensor.values()


def _check_external(tensor: Tensor, file: str, weight: Weight) -> None:
    size = math.prod(weight.shape) * np.dtype(weight.dtype).itemsize
    stated = {"location": file, "offset": str(weight.offset), "length": str(size)}
    entries = {entry.key: entry.value for entry in tensor.external_data}
    same = (tensor.dtype, tensor.dims, entries) == (weight.dtype, weight.shape, stated)
    inside = tensor.raw_data is not None or tensor.unread or len(entries) != len(tensor.external_data)
    if not same or inside:
        raise BundleCorrupt(
            f"has the tensor {tensor.name!r} as {tensor.dtype or tensor.data_type} {list(tensor.dims)} at {entries}, "
            f"the manifest says {weight.dtype} {list(weight.shape)} at {stated}"
        )
