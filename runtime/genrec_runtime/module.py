"""Serving a plain module: named arrays in, named arrays out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.errors import Unsupported
from genrec_runtime.recommender import Recommender, require_equal

GRAPH = "module"


class Module:
    """A loaded bundle of kind ``module``: a TransformerEncoder, a MultiHeadAttention or any other exported module."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        if bundle.manifest.kind != "module":
            raise Unsupported(
                f"{bundle.path} is a bundle of kind {bundle.manifest.kind!r}; open it with Recommender.load"
            )
        self.manifest = bundle.manifest
        self.device_report = engine.report
        self._engine = engine

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        expect_digest: str | None = None,
    ) -> Module:
        """Opens, verifies and starts a bundle; arguments and errors as ``Recommender.load``."""
        bundle = Bundle.open(path, expect_digest=expect_digest)
        return cls(bundle, Engine(bundle, device, threads))

    def run(self, **inputs: Any) -> dict[str, NDArray[Any]]:
        """One run.

        Args:
            inputs: an array for each input that the manifest's signature names, of the dtype and shape stated there.
                Whole numbers of any width are widened where int64 is asked for.

        Returns:
            An array for every output of the signature.

        Raises:
            InputError: if an input is missing, unknown, or has another dtype, shape or range.
            InferenceError: if onnxruntime fails.
        """
        dtypes = {spec.name: np.dtype(spec.dtype) for spec in self.manifest.signature[GRAPH].inputs}
        arrays = {name: _widen(np.asarray(value), dtypes.get(name)) for name, value in inputs.items()}
        return self._engine.run(GRAPH, arrays)

    def selftest(self) -> None:
        """Replays the bundle's golden inputs on this machine; errors as ``Recommender.selftest``."""
        require_equal(self._engine)


def load(
    path: str | os.PathLike[str], *, device: str = "auto", threads: int | None = None, expect_digest: str | None = None
) -> Recommender | Module:
    """Opens a bundle as what it is; arguments and errors as ``Recommender.load``."""
    bundle = Bundle.open(path, expect_digest=expect_digest)
    engine = Engine(bundle, device, threads)
    return Module(bundle, engine) if bundle.manifest.kind == "module" else Recommender(bundle, engine)


def _widen(array: NDArray[Any], dtype: np.dtype[Any] | None) -> NDArray[Any]:
    narrow = array.dtype.kind in "iu" and array.dtype != np.uint64
    return array.astype(np.int64) if narrow and dtype == np.int64 else array
