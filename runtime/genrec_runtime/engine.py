"""Running a bundle's graphs with onnxruntime: one session a graph, one copy of the weights for all."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from genrec_runtime.bundle import Bundle
from genrec_runtime.device import (
    CPU,
    CUDA,
    DeviceReport,
    available_threads,
    cuda_options,
    cuda_problem,
    import_onnxruntime,
    parse_device,
    preload_cuda,
    quiet,
    unavailable,
)
from genrec_runtime.errors import (
    BundleError,
    BundleVersionError,
    DeviceUnavailable,
    GenrecError,
    InferenceError,
    Unsupported,
)
from genrec_runtime.manifest import FP32
from genrec_runtime.signatures import check_inputs, check_session

Arrays = dict[str, NDArray[Any]]

# What a graph multiplies by is packed anew for the CPU when its session opens: up to a third faster for single requests, hardly
# for batches, and once more in memory. From this many bytes on memory counts for more (benchmarks/graphs.py).
PREPACK_BELOW = 512 << 20


class Engine:
    """The graphs of one bundle on one device. Sessions are opened when first used; calls may come from any thread.

    Args:
        bundle: a verified bundle.
        device: "cpu", "cuda", "cuda:N" are strict; "auto" takes a GPU if one starts and warns if not.
        threads: threads within an operator on the CPU; None takes what the process may use.
        variant: which form of the graphs to run; a graph that has no such form runs as "fp32".

    Raises:
        DeviceUnavailable: if a device asked for by name does not start.
        ValueError: if ``device`` is no device, or ``threads`` is no whole number of at least 1.
        BundleVersionError: if onnxruntime is older than the bundle requires.
        BundleError: if onnxruntime does not open the graph.
        GenrecError: if there is not exactly one build of onnxruntime.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None, variant: str = FP32) -> None:
        kind, number = parse_device(device)
        if threads is not None and (type(threads) is not int or threads < 1):
            raise ValueError(f"threads ({threads!r}) must be a whole number of at least 1")
        self.bundle = bundle
        self.variant = variant
        self._ort = import_onnxruntime()
        _check_version(bundle, self._ort.__version__)
        self._threads = threads or available_threads()
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}
        self._providers: list[Any] = [CPU]
        reason = "" if kind == "cpu" else self._start_cuda(number)
        if reason and kind == "cuda":
            raise unavailable(device, reason)
        if reason and CUDA in self._ort.get_available_providers():  # a GPU build was installed, so a GPU was meant
            warnings.warn(f"serving on the CPU: {reason}", RuntimeWarning, stacklevel=3)
        started = self._session(self._main).get_providers()
        self.report = DeviceReport(device, tuple(started), self._threads, reason, self._ort.__version__)

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """One run of one graph, its inputs checked against the signature first.

        Args:
            graph: a graph's name, such as "recommend".
            inputs: an array for every input that the signature names.

        Returns:
            An array for every output.

        Raises:
            Unsupported: if the bundle has no such graph.
            InputError: if an input is missing, unknown, or has another dtype, shape or range than stated, or a float
                that is no number.
            InferenceError: if onnxruntime fails.
        """
        session = self._session(graph)
        signature = self.bundle.manifest.signature[graph]
        check_inputs(signature, inputs)
        try:
            outputs = session.run([spec.name for spec in signature.outputs], dict(inputs))
        except Exception as error:  # onnxruntime raises many types, a bare UnicodeDecodeError among them
            raise InferenceError(f"graph {graph!r} failed: {error}") from error
        return {spec.name: output for spec, output in zip(signature.outputs, outputs, strict=True)}

    def file(self, graph: str) -> str:
        """The name of the file that a graph is run from.

        Raises:
            Unsupported: if the bundle has no such graph.
        """
        graphs = self.bundle.manifest.graphs
        if graph not in graphs:
            raise Unsupported(f"this bundle has no graph {graph!r}; it has {', '.join(graphs)}")
        return graphs[graph].get(self.variant, graphs[graph][FP32])

    @property
    def _main(self) -> str:
        return "recommend" if self.bundle.manifest.kind == "recommender" else "module"

    def _start_cuda(self, number: int) -> str:
        """Opens the main graph on a GPU; or says why not, and leaves the engine on the CPU."""
        reason = cuda_problem(self._ort, number)
        if reason:
            return reason
        missing = preload_cuda(self._ort)
        self._providers = [(CUDA, cuda_options(number)), CPU]
        try:
            if CUDA in self._session(self._main).get_providers():  # asking is not getting: onnxruntime only logs
                return ""
            reason = missing or "onnxruntime could not start CUDA"
        except DeviceUnavailable as error:
            reason = str(error)
        self._providers = [CPU]
        self._sessions.clear()
        return reason

    def _session(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def _open(self, graph: str) -> Any:
        content = self.bundle.bytes(self.file(graph))
        own = {"enable_fallback": 0, "read_config_from_model": 0}
        try:
            with quiet(self._ort) if len(self._providers) > 1 else contextlib.nullcontext():
                session = self._ort.InferenceSession(content, self._options(graph), providers=self._providers, **own)
        except Exception as error:
            raise self._refusal(graph, error) from error
        check_session(graph, self.bundle.manifest.signature[graph], session)
        return session

    def _refusal(self, graph: str, error: Exception) -> GenrecError:
        """What onnxruntime's refusal to open a graph means."""
        text = " ".join(str(error).split())
        if "IR version" in text or "opset" in text.lower():
            manifest = self.bundle.manifest
            return BundleVersionError(
                f"graph {graph!r} has opset {manifest.opset} and IR version {manifest.ir_version}, which onnxruntime "
                f"{self._ort.__version__} does not read; upgrade it ({text})"
            )
        if "not a registered function/op" in text:
            return Unsupported(f"onnxruntime {self._ort.__version__} has no such operator: {text}")
        if len(self._providers) > 1 and "CUDA" in text:
            return DeviceUnavailable(text)
        return BundleError(f"onnxruntime cannot open graph {graph!r}: {text}", code="graph_refused")

    def _options(self, graph: str) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is checked and raised, not logged
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        packed = self.bundle.manifest.memory.get(self.file(graph), 0)
        options.add_session_config_entry("session.disable_prepacking", "0" if packed < PREPACK_BELOW else "1")
        for file in self._weight_files():  # onnxruntime then looks for no file, and takes the tensors below
            content = self.bundle.files[file]
            options.add_external_initializers_from_files_in_memory([file], [content], [content.nbytes])
        for name, value in self._initializers().items():
            options.add_initializer(name, value)
        return options

    def _initializers(self) -> dict[str, Any]:
        """Every weight of the opened files as an OrtValue over the bundle's verified bytes, shared by all sessions."""
        if not self._weights:
            for file in self._weight_files():
                for weight in self.bundle.manifest.weights[file]:
                    array = self.bundle.weight(file, weight)
                    self._weights[weight.name] = self._ort.OrtValue.ortvalue_from_numpy(array)
        return self._weights

    def _weight_files(self) -> list[str]:
        return [file for file in self.bundle.manifest.weights if file in self.bundle.files]


def _check_version(bundle: Bundle, version: str) -> None:
    needed = bundle.manifest.requires.get("onnxruntime", "0")
    if _numbers(version) < _numbers(needed):
        raise BundleVersionError(f"the bundle needs onnxruntime {needed} or newer, this is {version}; upgrade it")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
