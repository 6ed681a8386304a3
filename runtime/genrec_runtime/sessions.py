"""Opening a bundle's graphs with onnxruntime, over one copy of the weights."""

from __future__ import annotations

import contextlib
from typing import Any

from genrec_runtime.bundle import Bundle
from genrec_runtime.device import quiet
from genrec_runtime.errors import BundleError, BundleVersionError, DeviceUnavailable, GenrecError, Unsupported
from genrec_runtime.options import Options
from genrec_runtime.placement import RECORD
from genrec_runtime.signatures import check_session

# What a graph multiplies by is packed anew for the CPU when its session opens: up to a third faster for single requests, hardly
# for batches, and once more in memory. From this many bytes on memory counts for more, unless it is the lesser part of the
# weights, as the small integers of int8 are (benchmarks/graphs.py).
PREPACK_BELOW = 128 << 20
MAX_FOLDED = 16 << 20  # bytes of a constant that onnxruntime may compute from others when it opens a graph


def packs(multiplied: int, weights: int) -> bool:
    """Whether a graph that multiplies by so many bytes of so many bytes of weights is packed anew."""
    return multiplied < PREPACK_BELOW or multiplied < weights / 2


class Sessions:
    """Opens sessions for the graphs of one bundle; they share every weight.

    Args:
        onnxruntime: the module.
        bundle: a verified bundle.
        options: how it is to be served.
        threads: threads within an operator on the CPU.
        providers: execution providers in the order of preference, as onnxruntime takes them.
    """

    def __init__(self, onnxruntime: Any, bundle: Bundle, options: Options, threads: int, providers: list[Any]) -> None:
        self._ort, self._bundle, self._options = onnxruntime, bundle, options
        self._threads, self._providers = threads, providers
        self._weights: dict[str, Any] = {}

    def open(self, graph: str, file: str) -> Any:
        """A session for one graph.

        Raises:
            BundleCorrupt: if the graph takes or gives other tensors than the manifest says.
            BundleVersionError: if its opset or IR version is too new for this onnxruntime.
            Unsupported: if onnxruntime lacks an operator of it.
            DeviceUnavailable: if CUDA fails.
            BundleError: if onnxruntime does not open it for another reason.
        """
        content = self._bundle.bytes(file)
        own = {"enable_fallback": 0, "read_config_from_model": 0}
        try:
            with quiet(self._ort) if len(self._providers) > 1 else contextlib.nullcontext():
                session = self._ort.InferenceSession(content, self._settings(file), providers=self._providers, **own)
        except Exception as error:
            raise self._refusal(graph, error) from error
        check_session(graph, self._bundle.manifest.signature[graph], session)
        return session

    def _refusal(self, graph: str, error: Exception) -> GenrecError:
        """What onnxruntime's refusal to open a graph means."""
        text = " ".join(str(error).split())
        if "IR version" in text or "opset" in text.lower():
            manifest = self._bundle.manifest
            return BundleVersionError(
                f"graph {graph!r} has opset {manifest.opset} and IR version {manifest.ir_version}, which onnxruntime "
                f"{self._ort.__version__} does not read; upgrade it ({text})"
            )
        if "not a registered function/op" in text:
            return Unsupported(f"onnxruntime {self._ort.__version__} has no such operator: {text}")
        if len(self._providers) > 1 and "CUDA" in text:
            return DeviceUnavailable(text)
        return BundleError(f"onnxruntime cannot open graph {graph!r}: {text}", code="graph_refused")

    def _settings(self, file: str) -> Any:
        settings = self._ort.SessionOptions()
        settings.intra_op_num_threads = self._threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # what matters is checked and raised, not logged
        for key, value in {
            "session.intra_op.allow_spinning": str(int(self._options.dedicated)),
            "session.load_model_format": "ONNX",
            "session.disable_prepacking": str(int(not self._packs(file))),
            "optimization.constant_folding_max_output_size_in_bytes": str(MAX_FOLDED),
            RECORD: "1",
        }.items():
            settings.add_session_config_entry(key, value)
        for name in self._weight_files():  # onnxruntime then looks for no file, and takes the tensors below
            content = self._bundle.files[name]
            settings.add_external_initializers_from_files_in_memory([name], [content], [content.nbytes])
        for name, value in self._initializers().items():
            settings.add_initializer(name, value)
        return settings

    def _packs(self, file: str) -> bool:
        weights = sum(self._bundle.files[name].nbytes for name in self._weight_files())
        return packs(self._bundle.manifest.memory.get(file, 0), weights)

    def _initializers(self) -> dict[str, Any]:
        """Every weight of the opened files as an OrtValue over the bundle's verified bytes, shared by all sessions."""
        if not self._weights:
            for file in self._weight_files():
                for weight in self._bundle.manifest.weights[file]:
                    array = self._bundle.weight(file, weight)
                    self._weights[weight.name] = self._ort.OrtValue.ortvalue_from_numpy(array)
        return self._weights

    def _weight_files(self) -> list[str]:
        return [file for file in self._bundle.manifest.weights if file in self._bundle.files]
