"""Serving a plain module: named arrays in, named arrays out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import FP32, TensorSpec
from genrec_runtime.options import Options
from genrec_runtime.recommender import Recommender
from genrec_runtime.rows import as_array
from genrec_runtime.served import Served

GRAPH = "module"


class Module(Served):
    """A loaded bundle of kind ``module``: a TransformerEncoder, a MultiHeadAttention or any other exported module.

    Load one with ``Module.load``; the constructor takes what that has opened.
    """

    kind = "module"

    def run(self, **inputs: Any) -> dict[str, NDArray[Any]]:
        """One run.

        Args:
            inputs: an array, or nested lists, for each input that the manifest's signature names, of the dtype and shape
                stated there. Narrower numbers of the same kind are widened; a mask of 0 and 1 may be bool.

        Returns:
            An array for every output of the signature.

        Raises:
            InputError: if an input is missing, unknown, or has another dtype, shape or range.
            InferenceError: if onnxruntime fails.
        """
        specs = {spec.name: spec for spec in self.manifest.signature[GRAPH].inputs}
        arrays = {name: _widened(as_array(value, name), specs.get(name)) for name, value in inputs.items()}
        return self._engine.run(GRAPH, arrays)


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    variant: str = FP32,
    dedicated: bool = False,
    cuda_graphs: bool = False,
    expect_digest: str | None = None,
) -> Recommender | Module:
    """Opens a bundle as what it is; arguments and errors as ``Recommender.load``."""
    options = Options(device, threads, variant, dedicated, cuda_graphs)
    bundle = Bundle.open(path, variant=variant, expect_digest=expect_digest)
    kind = Module if bundle.manifest.kind == "module" else Recommender
    return kind(bundle, Engine(bundle, options))


def _widened(array: NDArray[Any], spec: TensorSpec | None) -> NDArray[Any]:
    """The array in the dtype of its input where that loses nothing; else as it is, to be refused by the engine."""
    if spec is None:
        return array
    dtype, kind = np.dtype(spec.dtype), array.dtype.kind
    lossless = kind in {"i": "iu", "f": "f"}.get(dtype.kind, "") and np.can_cast(array.dtype, dtype, "safe")
    fits = array.dtype == np.uint64 and dtype == np.int64 and not np.any(array >= 2**63)
    is_mask = kind == "b" and dtype == np.int64 and (spec.low, spec.high) == (0, 1)
    return array.astype(dtype) if lossless or fits or is_mask else array
