"""Replaying the golden requests: does this machine answer as torch did when the bundle was made?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from genrec_runtime.compare import Difference, compare_outputs
from genrec_runtime.engine import Engine
from genrec_runtime.errors import BundleCorrupt, InferenceError, InputError
from genrec_runtime.manifest import Signature


def replay(engine: Engine) -> dict[str, Difference]:
    """Runs the recorded inputs of every graph; by file, such as "recommend", the worst difference to the recorded outputs.

    Raises:
        BundleCorrupt: if recorded requests are missing, damaged or do not fit the graph's signature.
        InferenceError: if onnxruntime fails.
    """
    return {engine.file(graph).removesuffix(".onnx"): _replay(engine, graph) for graph in engine.bundle.manifest.graphs}


def require_equal(engine: Engine) -> dict[str, Difference]:
    """Replays the goldens and refuses to go on where they differ; returns what ``replay`` does.

    Raises:
        BundleCorrupt: as ``replay``.
        InferenceError: naming the graph and the difference.
    """
    differences = replay(engine)
    for name, difference in differences.items():
        if not difference.same:
            raise InferenceError(
                f"graph {name!r} answers the golden requests differently here: error {difference.error:.3g}, "
                f"{difference.excess:.1f} times the tolerance, in row {difference.row}",
                code="golden_mismatch",
            )
    return differences


def _replay(engine: Engine, graph: str) -> Difference:
    bundle, tolerance = engine.bundle, engine.bundle.manifest.tolerance_of(engine.variant)
    cases = bundle.golden(graph)
    if not cases:
        raise BundleCorrupt(f"{bundle.path}: golden/{graph}.npz holds no request")
    worst = Difference(0.0, 0.0, -1)
    for inputs, expected in cases:
        try:
            found = engine.run(graph, inputs)
        except InputError as error:
            raise BundleCorrupt(f"{bundle.path}: golden/{graph}.npz does not fit the graph: {error}") from error
        _check_recorded(engine, graph, expected, found)
        difference = compare_outputs(graph, found, expected, tolerance)
        worst = max(worst, difference, key=lambda difference: difference.excess)
    return worst


def _check_recorded(
    engine: Engine, graph: str, expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
) -> None:
    signature: Signature = engine.bundle.manifest.signature[graph]
    for spec in signature.outputs:
        recorded = expected.get(spec.name)
        if recorded is None or recorded.dtype != spec.dtype or recorded.shape != found[spec.name].shape:
            raise BundleCorrupt(
                f"{engine.bundle.path}: golden/{graph}.npz has no {spec.name} of the shape {found[spec.name].shape}"
            )
    if len(expected) != len(signature.outputs):
        raise BundleCorrupt(f"{engine.bundle.path}: golden/{graph}.npz records more than the graph's outputs")
