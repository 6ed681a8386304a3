"""Running a bundle's graphs on one device: checked inputs, prepared buffers, deadlines, an orderly end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from genrec_runtime.binding import Bindings
from genrec_runtime.buckets import cut_down, pad_up
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference
from genrec_runtime.deadlines import stopping_at
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
    unavailable,
)
from genrec_runtime.errors import (
    BundleVersionError,
    Closed,
    DeviceUnavailable,
    GenrecError,
    InferenceError,
    Unsupported,
)
from genrec_runtime.forks import keep_in_forks, require_process
from genrec_runtime.golden import replay, require_same
from genrec_runtime.graphcheck import check_graph
from genrec_runtime.manifest import FP32
from genrec_runtime.options import DEFAULT, Options
from genrec_runtime.placement import placement
from genrec_runtime.sessions import Sessions
from genrec_runtime.signatures import check_inputs

Arrays = dict[str, NDArray[Any]]

PROVEN_SCORES = 1 << 20  # scores that one case of the golden requests may take to compute when a graph opens


class Engine:
    """The graphs of one bundle on one device. Calls may come from any thread.

    A session is opened when its graph is first used, the main one at once, and answers no request before it has answered the
    golden ones as recorded.

    Args:
        bundle: a verified bundle.
        options: how to serve it.
        trusting: leaves out the look at each graph and its golden requests, for who has made the bundle and compares it himself.

    Raises:
        DeviceUnavailable: if a device asked for by name does not start.
        BundleVersionError: if onnxruntime is older than the bundle requires.
        BundleError: if onnxruntime does not open the graph.
        InferenceError: if it answers the golden requests differently.
        GenrecError: if there is not exactly one build of onnxruntime.
    """

    def __init__(self, bundle: Bundle, options: Options = DEFAULT, *, trusting: bool = False) -> None:
        self.bundle = bundle
        self.options = options
        self._trusting = trusting
        self._ort = import_onnxruntime()
        _check_version(bundle, self._ort.__version__)
        self._threads = options.threads or available_threads()
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._sessions: dict[str, Any] = {}
        self._bindings: dict[str, Bindings] = {}
        self._calls = 0
        self._closed = False
        self._idle = threading.Condition()
        self._thread = threading.local()
        keep_in_forks(self)
        self._gpu: tuple[str, int] | None = None
        self._opener = self._sessions_of([CPU])
        kind, number = parse_device(options.device)
        reason = "" if kind == "cpu" else self._start_cuda(number)
        if reason and kind == "cuda":
            raise unavailable(options.device, reason)
        if reason and CUDA in self._ort.get_available_providers():  # a GPU build was installed, so a GPU was meant
            warnings.warn(f"serving on the CPU: {reason}", RuntimeWarning, stacklevel=4)
        main = self._session(self._main)
        placed = placement(main)
        if placed.problem:
            warnings.warn(placed.problem, RuntimeWarning, stacklevel=4)
        self.report = DeviceReport(
            options.device,
            tuple(main.get_providers()),
            self._threads,
            reason,
            self._ort.__version__,
            placed.nodes,
            placed.heavy_on_cpu,
        )

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]], deadline: float | None = None) -> Arrays:
        """One run of one graph, its inputs checked against the signature first.

        Args:
            graph: a graph's name, such as "recommend".
            inputs: an array for every input that the signature names.
            deadline: an instant of ``time.monotonic()``; the run stops when it passes.

        Returns:
            An array for every output.

        Raises:
            Unsupported: if the bundle has no such graph.
            InputError: if an input is missing, unknown, or has another dtype, shape or range than stated, or a float
                that is no number.
            DeadlineExceeded: if the deadline passes first.
            InferenceError: if onnxruntime fails.
            Closed: if the engine was closed.
            ForkedProcessError: if this process was forked since.
        """
        with self.call():
            session = self._session(graph)
            check_inputs(self.bundle.manifest.signature[graph], inputs)
            if deadline is None:
                return self._execute(graph, session, inputs, None)
            with stopping_at(self._ort, deadline) as run_options:
                return self._execute(graph, session, inputs, run_options)

    def replay(self) -> dict[str, Difference]:
        """Runs the recorded inputs of every graph.

        Returns:
            By file, such as "recommend" or "recommend.int8", the worst difference to the recorded outputs.

        Raises:
            BundleCorrupt: if recorded requests are missing, damaged or do not fit the graph's signature.
            InferenceError: if an answer differs by more than the tolerance, or onnxruntime fails.
            Closed: if the engine was closed.
        """
        differences = {}
        with self.call():
            for graph in self.bundle.manifest.graphs:
                name, run = self.file(graph).removesuffix(".onnx"), functools.partial(self.run, graph)
                differences[name] = replay(self.bundle, graph, self.options.variant, run)
                require_same(name, differences[name])
        return differences

    def file(self, graph: str) -> str:
        """The name of the file that a graph is run from.

        Raises:
            Unsupported: if the bundle has no such graph.
        """
        graphs = self.bundle.manifest.graphs
        if graph not in graphs:
            raise Unsupported(f"this bundle has no graph {graph!r}; it has {', '.join(graphs)}")
        return graphs[graph].get(self.options.variant, graphs[graph][FP32])

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call of several runs: ``close`` waits for its end, and refuses none of its runs.

        Raises:
            Closed: if the engine was closed.
            ForkedProcessError: if this process was forked since it was made.
        """
        require_process(self._pid)
        if getattr(self._thread, "calling", False):
            yield
            return
        with self._idle:
            if self._closed:
                raise Closed("this was closed; load the bundle again")
            self._calls += 1
        try:
            self._thread.calling = True
            yield
        finally:
            self._thread.calling = False
            with self._idle:
                self._calls -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """Waits for the calls under way, then lets go of sessions and weights; does nothing the second time, and in a fork."""
        if os.getpid() != self._pid:
            return
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: self._calls == 0)
            self._sessions.clear()
            self._bindings.clear()
            self.bundle = dataclasses.replace(self.bundle, files={})
            self._opener = self._sessions_of([CPU])

    @property
    def on_gpu(self) -> bool:
        """Whether CUDA was started."""
        return self._gpu is not None

    @property
    def _main(self) -> str:
        return "recommend" if self.bundle.manifest.kind == "recommender" else "module"

    def _execute(self, graph: str, session: Any, inputs: Mapping[str, NDArray[Any]], run_options: Any) -> Arrays:
        signature, bindings = self.bundle.manifest.signature[graph], self._bindings.get(graph)
        try:
            if bindings is None:
                outputs = session.run([spec.name for spec in signature.outputs], dict(inputs), run_options)
                return {spec.name: output for spec, output in zip(signature.outputs, outputs, strict=True)}
            if self.bundle.manifest.kind == "module":
                return bindings.run(inputs, run_options)
            padded, sizes = pad_up(signature, inputs)
            return cut_down(signature, bindings.run(padded, run_options), sizes)
        except Exception as error:  # onnxruntime raises many types, a bare UnicodeDecodeError among them
            raise _failure(graph, error) from error

    def _session(self, graph: str) -> Any:
        session = self._sessions.get(graph)
        if session is not None:
            return session
        with self._opening:
            if graph not in self._sessions:
                file = self.file(graph)
                if not self._trusting:
                    check_graph(self.bundle.manifest, graph, file, self.bundle.bytes(file))
                session = self._opener.open(graph, file)
                self._bind(graph, session)
                if not self._trusting:
                    self._prove(graph, session)
                self._sessions[graph] = session
            return self._sessions[graph]

    def _bind(self, graph: str, session: Any) -> None:
        if self._gpu is not None and CUDA in session.get_providers():  # on the CPU, copies gain nothing
            signature, captured = self.bundle.manifest.signature[graph], self.options.cuda_graphs
            self._bindings[graph] = Bindings(self._ort, session, signature, self._gpu, captured=captured)

    def _prove(self, graph: str, session: Any) -> None:
        """Replays the golden requests of a graph that was just opened, some of their rows where the catalogue is large."""
        signature = self.bundle.manifest.signature[graph]

        def run(inputs: Arrays) -> Arrays:
            check_inputs(signature, inputs)
            return self._execute(graph, session, inputs, None)

        semantics = self.bundle.manifest.semantics
        most = None if semantics is None else max(1, PROVEN_SCORES // semantics.num_items)
        difference = replay(self.bundle, graph, self.options.variant, run, most)
        require_same(self.file(graph).removesuffix(".onnx"), difference)

    def _start_cuda(self, number: int) -> str:
        """Opens the main graph on a GPU; or says why not, and leaves the engine on the CPU."""
        reason = cuda_problem(self._ort, number)
        if reason:
            return reason
        missing = preload_cuda(self._ort)
        settings = cuda_options(number) | ({"enable_cuda_graph": "1"} if self.options.cuda_graphs else {})
        self._opener, self._gpu = self._sessions_of([(CUDA, settings), CPU]), ("cuda", number)
        try:
            if CUDA in self._session(self._main).get_providers():  # asking is not getting: onnxruntime only logs
                return ""
            reason = missing or "onnxruntime could not start CUDA"
        except DeviceUnavailable as error:
            reason = str(error)
        self._opener, self._gpu = self._sessions_of([CPU]), None
        self._sessions.clear()
        self._bindings.clear()
        return reason

    def _sessions_of(self, providers: list[Any]) -> Sessions:
        return Sessions(self._ort, self.bundle, self.options, self._threads, providers)


def _failure(graph: str, error: Exception) -> GenrecError:
    """What onnxruntime's failure of a run means."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "Failed to allocate memory" in text or "out of memory" in text.lower():
        return InferenceError(f"graph {graph!r} found no memory: {text}", code="out_of_memory")
    if "CUDA failure" in text or "CUDA error" in text:
        return InferenceError(f"graph {graph!r} lost its GPU; start the process anew: {text}", code="device_lost")
    return InferenceError(f"graph {graph!r} failed: {text}")


def _check_version(bundle: Bundle, version: str) -> None:
    needed = bundle.manifest.requires.get("onnxruntime", "0")
    if _numbers(version) < _numbers(needed):
        raise BundleVersionError(f"the bundle needs onnxruntime {needed} or newer, this is {version}; upgrade it")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
