"""Reading a manifest: strict JSON, then what its types cannot say: safe names, weights inside their file, sizes that agree."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from genrec_runtime.errors import BundleCorrupt, BundleVersionError, Unsupported
from genrec_runtime.manifest import (
    FORMAT,
    FORMAT_VERSION,
    FP32,
    READABLE_MAJORS,
    Manifest,
    Semantics,
    Signature,
    TensorSpec,
    Variant,
    content_of,
    identity,
)
from genrec_runtime.strictjson import decode, parse

ALIGNMENT = 64  # bytes; where tensors lie in a weights file, and files in memory
ONNX_TYPES = {  # numpy's name of a dtype: onnxruntime's name of the tensor
    "bool": "tensor(bool)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
    "int16": "tensor(int16)",
    "uint16": "tensor(uint16)",
    "int32": "tensor(int32)",
    "uint32": "tensor(uint32)",
    "int64": "tensor(int64)",
    "uint64": "tensor(uint64)",
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
}
FURTHER = ("timestamps", "request_time", "users")  # what graphs of histories may take beside the items
TIME_LIMIT = 10**11  # seconds before and after 1970, some 3,000 years: milliseconds of these days lie beyond
GRAPHS = {  # of a recommender: what this runtime feeds each graph in any case, and reads from it
    "recommend": (("item_ids", "exclude", "available"), ("items", "scores")),
    "score": (("item_ids", "candidates"), ("scores",)),
    "encode": (("item_ids",), ("states",)),
    "item_vectors": (("item",), ("vectors",)),
    "similar": (("item", "available"), ("items", "scores")),
}
FILE_NAME = re.compile(r"(golden/)?[A-Za-z0-9_-][A-Za-z0-9._-]*[A-Za-z0-9_-]")


def read_manifest(blob: bytes) -> Manifest:
    """Reads and checks ``manifest.json``.

    Raises:
        BundleCorrupt: if it is no strict JSON, a key is missing, a value has the wrong type or range, or
            ``bundle_id`` or ``content_id`` is not that of the content.
        BundleVersionError: if the format's major version is not readable here.
        Unsupported: if it needs a feature that this runtime does not have.
    """
    data = parse(blob)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleCorrupt(f"manifest.json does not describe a {FORMAT}")
    version = decode(tuple[int, ...], data.get("format_version"), "/format_version")
    if not version or version[0] not in READABLE_MAJORS:
        raise BundleVersionError(
            f"the bundle has format {'.'.join(map(str, version))}, this runtime reads majors "
            f"{', '.join(map(str, READABLE_MAJORS))}; upgrade genrec, or export the model again"
        )
    unknown = decode(tuple[str, ...], data.get("must_understand", []), "/must_understand")
    if unknown:
        raise Unsupported(f"the bundle needs {', '.join(unknown)}, which this runtime does not have; upgrade genrec")
    manifest: Manifest = decode(Manifest, data, "")
    if manifest.bundle_id != identity(data):
        raise BundleCorrupt("manifest.json was changed: /bundle_id is not that of its content")
    if version <= FORMAT_VERSION and manifest.content_id != content_of(data):  # a newer minor may leave out more
        raise BundleCorrupt("/content_id is not that of what is served")
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """Refuses a manifest that contradicts itself.

    Raises:
        BundleCorrupt: naming the place.
        Unsupported: if a graph takes inputs that this runtime does not feed.
    """
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name) or name == "manifest.json":
            raise BundleCorrupt(
                f"manifest.json lists {name!r}, which is no file name of a bundle", code="bundle_unsafe"
            )
    main = "recommend" if manifest.kind == "recommender" else "module"
    if main not in manifest.graphs:
        raise BundleCorrupt(f"/graphs: a bundle of kind {manifest.kind!r} needs a graph {main!r}")
    for graph, variants in manifest.graphs.items():
        _check_graph(manifest, graph, variants)
    for name, variant in manifest.variants.items():
        _check_variant(manifest, name, variant)
    _check_weights(manifest)
    if min(manifest.tolerance.atol, manifest.tolerance.rtol) < 0:
        raise BundleCorrupt(f"/tolerance must not be negative, got {manifest.tolerance}")
    if manifest.kind == "recommender":
        _check_recommender(manifest)


def _check_graph(manifest: Manifest, graph: str, variants: Mapping[str, str]) -> None:
    if FP32 not in variants:
        raise BundleCorrupt(f"/graphs/{graph} has no {FP32!r} file")
    for variant, file in variants.items():
        if file not in manifest.files:
            raise BundleCorrupt(f"graph {graph!r} names {file!r}, which /files does not list")
        if variant != FP32 and variant not in manifest.variants:
            raise BundleCorrupt(f"/graphs/{graph} has a file for {variant!r}, which /variants does not describe")
    if graph not in manifest.signature:
        raise BundleCorrupt(f"graph {graph!r} has no /signature")
    signature = manifest.signature[graph]
    for specs in (signature.inputs, signature.outputs):
        if not specs or len({spec.name for spec in specs}) != len(specs):
            raise BundleCorrupt(f"/signature/{graph} must have inputs and outputs, each with a name of its own")
        for spec in specs:
            if spec.dtype not in ONNX_TYPES:
                raise BundleCorrupt(f"/signature/{graph}: {spec.name} has the unknown dtype {spec.dtype!r}")
    if min(signature.limits.values(), default=1) < 1:
        raise BundleCorrupt(f"/signature/{graph}/limits must be at least 1, got {dict(signature.limits)}")


def _check_variant(manifest: Manifest, name: str, variant: Variant) -> None:
    others = {file for files in manifest.graphs.values() for other, file in files.items() if other != name}
    for file in variant.files:
        if file not in manifest.files or file in others:
            raise BundleCorrupt(f"/variants/{name}/files: {file!r} is not listed in /files, or another variant's graph")
    if name == FP32 or min(variant.tolerance.atol, variant.tolerance.rtol) < 0 or not 0 <= variant.gate <= 1:
        raise BundleCorrupt(f"/variants/{name} is not described as a variant: {variant}")


def _check_weights(manifest: Manifest) -> None:
    names = [weight.name for weights in manifest.weights.values() for weight in weights]
    if len(set(names)) != len(names):
        raise BundleCorrupt("/weights: a name occurs twice")
    for file, weights in manifest.weights.items():
        if file not in manifest.files:
            raise BundleCorrupt(f"/weights names {file!r}, which /files does not list")
        for weight in weights:
            if weight.dtype not in ONNX_TYPES:
                raise BundleCorrupt(f"/weights: {weight.name!r} has the unknown dtype {weight.dtype!r}")
            if weight.offset < 0 or weight.offset % ALIGNMENT or min(weight.shape, default=0) < 0:
                raise BundleCorrupt(
                    f"/weights: {weight.name!r} has a negative size, or an offset that is no multiple of {ALIGNMENT}"
                )
            end = weight.offset + math.prod(weight.shape) * np.dtype(weight.dtype).itemsize
            if end > manifest.files[file].size:
                raise BundleCorrupt(f"/weights: {weight.name!r} ends at byte {end}, beyond the end of {file}")


def _check_recommender(manifest: Manifest) -> None:
    semantics = manifest.semantics
    if semantics is None:
        raise BundleCorrupt("/semantics is missing, which a recommender needs")
    if semantics.num_items < 1 or semantics.max_seq_length < 1 or semantics.pad_id != 0:
        raise BundleCorrupt("/semantics: num_items and max_seq_length must be at least 1, pad_id 0")
    if not 1 <= semantics.k_max <= semantics.num_items:
        raise BundleCorrupt(f"/semantics/k_max ({semantics.k_max}) must lie in 1..{semantics.num_items}")
    if not 1 <= manifest.defaults.k <= semantics.k_max:
        raise BundleCorrupt(f"/defaults/k ({manifest.defaults.k}) must lie in 1..{semantics.k_max}")
    for graph in manifest.graphs.keys() & GRAPHS.keys():
        signature, (inputs, outputs) = manifest.signature[graph], GRAPHS[graph]
        further = FURTHER if "item_ids" in inputs else ()
        more = {spec.name for spec in signature.inputs} - set(inputs) - set(further)
        if more:
            raise Unsupported(
                f"graph {graph!r} takes {', '.join(sorted(more))}, which this runtime does not feed; upgrade genrec"
            )
        fed, read = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]
        if not set(inputs) <= set(fed) or set(read) != set(outputs):
            raise BundleCorrupt(f"/signature/{graph} must take {', '.join(inputs)} and give {', '.join(outputs)}")
        _check_limits(graph, signature, semantics)
        for spec in (*signature.inputs, *signature.outputs):
            _check_tensor(graph, spec, semantics)
    _check_further(manifest, semantics)


def _check_further(manifest: Manifest, semantics: Semantics) -> None:
    """All graphs of histories take the same further inputs, and the manifest says so in every place."""
    taken = {
        graph: {spec.name: spec for spec in manifest.signature[graph].inputs if spec.name in FURTHER}
        for graph in manifest.graphs.keys() & GRAPHS.keys()
        if "item_ids" in GRAPHS[graph][0]
    }
    read = taken["recommend"]
    for graph, specs in taken.items():
        if specs != read:
            stated = f"{', '.join(specs) or 'nothing'}, and recommend {', '.join(read) or 'nothing'}"
            raise BundleCorrupt(f"/signature/{graph} takes beside the items {stated}: these inputs must be the same")
    if set(manifest.capabilities) & set(FURTHER) != set(read):
        raise BundleCorrupt(
            f"/capabilities must name what the graphs take beside the items, {', '.join(read) or 'nothing'}; "
            f"got {', '.join(manifest.capabilities)}"
        )
    if "request_time" in read and "timestamps" not in read:
        raise BundleCorrupt("/signature/recommend takes request_time without timestamps")
    if (semantics.time_unit is not None) != ("timestamps" in read):
        unit = "'s'" if "timestamps" in read else "null"
        raise BundleCorrupt(f"/semantics/time_unit must be {unit}, got {semantics.time_unit!r}")


def _check_limits(graph: str, signature: Signature, semantics: Semantics) -> None:
    """Requests are cut to ``max_seq_length`` and to nothing else, so no other limit can be kept."""
    longest = semantics.max_seq_length
    if set(signature.limits) - {"length"} or signature.limits.get("length", longest) < longest:
        raise BundleCorrupt(
            f"/signature/{graph}/limits may only hold a length of at least {longest}, got {dict(signature.limits)}"
        )


def _check_tensor(graph: str, spec: TensorSpec, semantics: Semantics) -> None:
    """What a recommender's tensors must be, so that each can be fed and no index can lie outside the catalogue."""
    items, k = semantics.num_items, semantics.k_max
    length = "length" if semantics.window == "bucketed" else semantics.max_seq_length
    width = next((axis for axis in spec.axes[1:] if isinstance(axis, int)), 0)  # the model's own, of states
    users = max(1, spec.high or 0)  # as many as the model has tokens for
    wanted = (
        TensorSpec("item_ids", "int64", ("batch", length), 0, items),
        TensorSpec("timestamps", "int64", ("batch", length), -TIME_LIMIT, TIME_LIMIT),
        TensorSpec("request_time", "int64", ("batch",), -TIME_LIMIT, TIME_LIMIT),
        TensorSpec("users", "int64", ("batch",), 0, users),
        TensorSpec("exclude", "int64", ("batch", "excluded"), 0, items),
        TensorSpec("candidates", "int64", ("batch", "candidates"), 0, items),
        TensorSpec("available", "bool", (items + 1,)),
        TensorSpec("items", "int64", ("batch", k)),
        TensorSpec("scores", "float32", ("batch", "candidates" if graph == "score" else k)),
        TensorSpec("states", "float32", ("batch", width)),
        TensorSpec("item", "int64", ("batch",), 1, items),
        TensorSpec("vectors", "float32", ("batch", width)),
    )
    if spec not in wanted:
        raise BundleCorrupt(f"/signature/{graph}: {spec.name} does not fit {items} items: {spec}")
