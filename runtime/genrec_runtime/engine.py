"""Running a bundle's graphs with onnxruntime: one session a graph, one copy of the weights for all."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference, compare_lists, compare_values
from genrec_runtime.device import (
    CPU,
    CUDA,
    DeviceReport,
    available_threads,
    check_provider,
    cuda_options,
    fall_back,
    import_onnxruntime,
    parse_device,
)
from genrec_runtime.errors import BundleVersionError, GenrecError, InferenceError, InputError, Unsupported
from genrec_runtime.manifest import Signature, TensorSpec

Arrays = dict[str, NDArray[Any]]


class Engine:
    """The graphs of one bundle on one device. Sessions are opened when first used; calls may come from any thread.

    Args:
        bundle: a verified bundle.
        device: "cpu", "cuda", "cuda:N" are strict; "auto" takes a GPU if one starts and warns if not.
        threads: threads within an operator on the CPU; None takes what the process may use.

    Raises:
        DeviceUnavailable: if a device asked for by name does not start.
        ValueError: if ``device`` is no device, or ``threads`` is below 1.
        BundleVersionError: if onnxruntime is older than the bundle requires.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None) -> None:
        kind, number = parse_device(device)
        if threads is not None and threads < 1:
            raise ValueError(f"threads ({threads}) must be at least 1")
        self.bundle = bundle
        self._ort = import_onnxruntime()
        _check_version(bundle, self._ort.__version__)
        self._threads = threads or available_threads()
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}
        reason = ""
        if kind == "auto":
            kind, reason = self._choose()
        self._providers: list[Any] = [(CUDA, cuda_options(number)), CPU] if kind == "cuda" else [CPU]
        if kind == "cuda" and CUDA not in self._ort.get_available_providers():
            check_provider(kind, self._ort.get_available_providers())  # the CPU build: onnxruntime would only warn
        main = "recommend" if bundle.manifest.kind == "recommender" else "module"
        started = self._session(main).get_providers()
        if reason == "" and kind == "cuda" and device == "auto" and CUDA not in started:
            reason = fall_back("the GPU build of onnxruntime could not start CUDA")
        elif kind == "cuda":
            check_provider(kind, started)
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
            InputError: if an input is missing, unknown, or has another dtype, shape or range than stated.
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

    def selftest(self) -> dict[str, Difference]:
        """Replays the golden inputs of every graph on this machine; per graph the worst difference to what is recorded.

        Raises:
            BundleCorrupt: if goldens are missing or damaged.
        """
        return {graph: self._replay(graph) for graph in self.bundle.manifest.graphs}

    def _replay(self, graph: str) -> Difference:
        tolerance = self.bundle.manifest.tolerance
        worst = Difference(0.0, 0.0, -1)
        for inputs, expected in self.bundle.golden(graph):
            found = self.run(graph, inputs)
            if graph == "recommend":
                lists = (found["items"], found["scores"], expected["items"], expected["scores"])
                differences = [compare_lists(*lists, tolerance)]
            else:
                differences = [compare_values(found[name], expected[name], tolerance) for name in expected]
            worst = max([worst, *differences], key=lambda difference: difference.excess)
        return worst

    def _choose(self) -> tuple[str, str]:
        """The device of "auto": CUDA where this build of onnxruntime has it, else the CPU and why."""
        if CUDA in self._ort.get_available_providers():
            return "cuda", ""
        return "cpu", "this onnxruntime is the CPU build"

    def _session(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def _open(self, graph: str) -> Any:
        manifest = self.bundle.manifest
        if graph not in manifest.graphs:
            raise Unsupported(f"this bundle has no graph {graph!r}; it has {', '.join(manifest.graphs)}")
        content = self.bundle.bytes(manifest.graphs[graph]["fp32"])
        try:
            return self._ort.InferenceSession(content, self._options(), providers=self._providers, enable_fallback=0)
        except Exception as error:
            raise GenrecError(f"onnxruntime cannot open graph {graph!r}: {error}", code="graph_refused") from error

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is checked and raised, not logged
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        for file in self.bundle.manifest.weights:  # onnxruntime then looks for no file, and takes the tensors below
            content = self.bundle.files[file]
            options.add_external_initializers_from_files_in_memory([file], [content], [content.nbytes])
        for name, value in self._initializers().items():
            options.add_initializer(name, value)
        return options

    def _initializers(self) -> dict[str, Any]:
        """Every weight as an OrtValue over the bundle's verified bytes, shared by all sessions."""
        if not self._weights:
            for file, weights in self.bundle.manifest.weights.items():
                for weight in weights:
                    array = self.bundle.weight(file, weight)
                    self._weights[weight.name] = self._ort.OrtValue.ortvalue_from_numpy(array)
        return self._weights


def check_inputs(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> None:
    """What onnxruntime does not check, or only on some devices: names, dtypes, equal axes, largest sizes, index ranges.

    Raises:
        InputError: naming the input, what it is and what it should be.
    """
    names = [spec.name for spec in signature.inputs]
    if set(inputs) != set(names):
        raise InputError(
            f"the inputs must be {', '.join(names)}; got {', '.join(inputs) or 'none'}", code="input_names"
        )
    sizes: dict[str | int, int] = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(f"{spec.name} must be {spec.dtype}, not {array.dtype}", code="input_dtype")
        if array.ndim != len(spec.axes):
            raise InputError(f"{spec.name} must have the axes {spec.axes}, got shape {array.shape}", code="input_shape")
        for axis, size in zip(spec.axes, array.shape, strict=True):
            expected = sizes.setdefault(axis, axis if isinstance(axis, int) else size)
            if size != expected:
                raise InputError(
                    f"{spec.name} has {size} along {axis!r} where {expected} is needed (shape {array.shape})",
                    code="input_shape",
                )
            if size > signature.limits.get(str(axis), size):
                raise InputError(
                    f"{spec.name} has {size} along {axis!r}, at most {signature.limits[str(axis)]} are served"
                )
        if array.size and (spec.low is not None or spec.high is not None):
            _check_range(spec, array)


def _check_range(spec: TensorSpec, array: NDArray[Any]) -> None:
    low, high = array.min(), array.max()
    if (spec.low is not None and low < spec.low) or (spec.high is not None and high > spec.high):
        raise InputError(
            f"{spec.name} holds values from {low} to {high}, allowed are {spec.low} to {spec.high}",
            code="id_out_of_range",
        )


def _check_version(bundle: Bundle, version: str) -> None:
    needed = bundle.manifest.requires.get("onnxruntime", "0")
    if _numbers(version) < _numbers(needed):
        raise BundleVersionError(f"the bundle needs onnxruntime {needed} or newer, this is {version}; upgrade it")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
