"""What recommenders and modules have in common: loading, warming up, testing themselves, travelling, closing."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.errors import Unsupported
from genrec_runtime.manifest import FP32
from genrec_runtime.options import Options


class Served:
    """A loaded bundle. Calls may come from any thread; a pickled copy opens the bundle again, which must still be the same.

    Args:
        bundle: a verified bundle.
        engine: that runs it.

    Raises:
        Unsupported: if the bundle is of the other kind.
    """

    kind: ClassVar[Literal["recommender", "module"]]

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        if bundle.manifest.kind != self.kind:
            other = "Module" if self.kind == "recommender" else "Recommender"
            raise Unsupported(f"{bundle.path} is a bundle of kind {bundle.manifest.kind!r}; open it with {other}.load")
        self.manifest = bundle.manifest
        self.path = bundle.path
        self.digest = bundle.digest
        self.device_report = engine.report
        self._engine = engine

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        variant: str = FP32,
        dedicated: bool = False,
        cuda_graphs: bool = False,
        expect_digest: str | None = None,
    ) -> Self:
        """Opens, verifies and starts a bundle; it answers the golden requests here before any other.

        Args:
            path: the bundle's folder, or a link to it such as ``store/current``.
            device: "cpu", "cuda", "cuda:N" are strict; "auto" takes a GPU if one starts, and warns if it does not.
            threads: threads within an operator on the CPU; None takes what the process may use.
            variant: "fp32", or a cheaper form that the bundle has, such as "fp16" or "int8".
            dedicated: let idle threads spin: quicker on a machine of its own, far slower where others compute too.
            cuda_graphs: replay each shape's kernels as one CUDA graph: less overhead for small batches, one call at a time.
            expect_digest: "sha256:..." of the manifest, to accept this bundle and no other.

        Raises:
            BundleError: if the bundle is missing, damaged or of a version not readable here.
            DeviceUnavailable: if a device asked for by name does not start.
            InferenceError: if it answers the golden requests differently here.
            Unsupported: if the bundle has no such variant, or is of the other kind.
            ValueError: if an option is none of the above.
        """
        return cls._load(path, Options(device, threads, variant, dedicated, cuda_graphs), expect_digest)

    @classmethod
    def _load(cls, path: str | os.PathLike[str], options: Options, expect_digest: str | None) -> Self:
        bundle = Bundle.open(path, variant=options.variant, expect_digest=expect_digest)
        return cls(bundle, Engine(bundle, options))

    def selftest(self) -> None:
        """Replays the bundle's golden requests on this machine and device.

        Raises:
            BundleCorrupt: if the recorded requests are missing or damaged.
            InferenceError: if an answer differs from the recorded one by more than the tolerance.
        """
        self._engine.replay()

    def close(self) -> None:
        """Waits for the calls under way, then frees the graphs and weights; later calls raise ``Closed``."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.path, self._engine.options, self.digest)


def _reopen(kind: type[Served], path: os.PathLike[str], options: Options, digest: str) -> Served:
    return kind._load(path, options, digest)
