"""Replaying the golden requests: does this machine answer as torch did when the bundle was made?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference, compare_outputs
from genrec_runtime.errors import BundleCorrupt, InferenceError, InputError
from genrec_runtime.manifest import Signature

Arrays = dict[str, NDArray[Any]]


def replay(
    bundle: Bundle, graph: str, variant: str, run: Callable[[Arrays], Arrays], most: int | None = None
) -> Difference:
    """Runs the recorded inputs of a graph.

    Args:
        bundle: holds the recorded requests.
        graph: the graph's name.
        variant: whose tolerance counts.
        run: answers the inputs of the graph.
        most: replay so many rows of a case at most, from the first to the last; None replays all.

    Returns:
        The worst difference to the recorded outputs.

    Raises:
        BundleCorrupt: if recorded requests are missing, damaged or do not fit the graph's signature.
        InferenceError: if onnxruntime fails.
    """
    tolerance = bundle.manifest.tolerance_of(variant)
    cases = bundle.golden(graph)
    if not cases:
        raise BundleCorrupt(f"{bundle.path}: golden/{graph}.npz holds no request")
    worst = Difference(0.0, 0.0, -1)
    for inputs, expected in cases:
        if most is not None:
            inputs, expected = (_some(bundle.manifest.signature[graph], values, most) for values in (inputs, expected))
        try:
            found = run(inputs)
        except InputError as error:
            raise BundleCorrupt(f"{bundle.path}: golden/{graph}.npz does not fit the graph: {error}") from error
        _check_recorded(bundle, graph, expected, found)
        difference = compare_outputs(graph, found, expected, tolerance)
        worst = max(worst, difference, key=lambda difference: difference.excess)
    return worst


def require_same(name: str, difference: Difference) -> None:
    """Refuses to go on with answers that differ from the recorded ones.

    Args:
        name: of the graph and its variant, for the error.
        difference: what ``replay`` found.

    Raises:
        InferenceError: naming the graph and the difference.
    """
    if not difference.same:
        raise InferenceError(
            f"graph {name!r} answers the golden requests differently here: error {difference.error:.3g}, "
            f"{difference.excess:.1f} times the tolerance, in row {difference.row}",
            code="golden_mismatch",
        )


def _some(signature: Signature, values: Mapping[str, NDArray[Any]], most: int) -> Arrays:
    """At most ``most`` rows of whatever has rows."""
    by_row = {spec.name for spec in (*signature.inputs, *signature.outputs) if spec.axes[:1] == ("batch",)}
    some: Arrays = {}
    for name, array in values.items():
        chosen = np.linspace(0, len(array) - 1, min(most, len(array))).astype(np.int64) if array.ndim else None
        some[name] = array[chosen] if name in by_row and chosen is not None else array
    return some


def _check_recorded(bundle: Bundle, graph: str, expected: Mapping[str, NDArray[Any]], found: Arrays) -> None:
    signature = bundle.manifest.signature[graph]
    for spec in signature.outputs:
        recorded = expected.get(spec.name)
        if recorded is None or recorded.dtype != spec.dtype or recorded.shape != found[spec.name].shape:
            raise BundleCorrupt(
                f"{bundle.path}: golden/{graph}.npz has no {spec.name} of the shape {found[spec.name].shape}"
            )
    if len(expected) != len(signature.outputs):
        raise BundleCorrupt(f"{bundle.path}: golden/{graph}.npz records more than the graph's outputs")
