"""Running a session on buffers that stay where they are: one set of inputs and outputs on the device for each shape."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.manifest import Signature

Arrays = dict[str, NDArray[Any]]
Shapes = tuple[tuple[int, ...], ...]

SHAPES = 128  # whose buffers are kept


class Bindings:
    """The buffers of one graph. Calls may come from any thread; a set of buffers is lent to one run at a time.

    Args:
        onnxruntime: the module.
        session: of the graph.
        signature: of the graph.
        device: onnxruntime's name of a device and its number, such as ("cuda", 0).
        captured: the session replays each shape as a CUDA graph: runs then wait for one another.
    """

    def __init__(
        self, onnxruntime: Any, session: Any, signature: Signature, device: tuple[str, int], *, captured: bool = False
    ) -> None:
        self._ort, self._session, self._signature, self._device = onnxruntime, session, signature, device
        self._alone = threading.Lock() if captured else None
        self._lock = threading.Lock()
        self._free: OrderedDict[Shapes, list[_Buffers]] = OrderedDict()
        self._made = 0

    def run(self, inputs: Mapping[str, NDArray[Any]], options: Any = None) -> Arrays:
        """One run; what it returns is the caller's own.

        Args:
            inputs: an array for every input. A read-only one that the last run on the same buffers had too is not copied
                again: its values must stay as they are.
            options: onnxruntime's RunOptions, or None.
        """
        if self._alone is None:
            return self._lend(inputs, options)
        with self._alone:  # a captured graph is not for two threads
            return self._lend(inputs, self._ort.RunOptions() if options is None else options)

    def _lend(self, inputs: Mapping[str, NDArray[Any]], options: Any) -> Arrays:
        shapes = tuple(inputs[spec.name].shape for spec in self._signature.inputs)
        buffers = self._take(shapes)
        try:
            if self._alone is not None:
                options.add_run_config_entry("gpu_graph_id", str(buffers.number))
            return buffers.run(self._session, inputs, options)
        finally:
            self._give_back(shapes, buffers)

    def _take(self, shapes: Shapes) -> _Buffers:
        with self._lock:
            free = self._free.get(shapes)
            if free:
                return free.pop()
            self._made += 1
            number = self._made  # of these buffers for ever: a graph captured under it holds their addresses
        return _Buffers(self._ort, self._session, self._signature, self._device, shapes, number)

    def _give_back(self, shapes: Shapes, buffers: _Buffers) -> None:
        with self._lock:
            self._free.setdefault(shapes, []).append(buffers)
            self._free.move_to_end(shapes)
            if len(self._free) > SHAPES:
                self._free.popitem(last=False)


class _Buffers:
    """Inputs and outputs of one shape on the device, bound once."""

    def __init__(
        self,
        onnxruntime: Any,
        session: Any,
        signature: Signature,
        device: tuple[str, int],
        shapes: Shapes,
        number: int,
    ) -> None:
        self.number = number
        self._device = device
        self._binding = session.io_binding()
        self._inputs: dict[str, Any] = {}
        self._fed: dict[str, NDArray[Any]] = {}
        self._outputs = [spec.name for spec in signature.outputs]  # the binding gives them in the order they were bound
        self._unsized: list[str] = []
        sizes: dict[str | int, int] = {}
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        for spec, shape in zip(signature.inputs, shapes, strict=True):
            sizes |= zip(spec.axes, shape, strict=True)
            self._inputs[spec.name] = make(list(shape), np.dtype(spec.dtype).type, *device)
            self._binding.bind_ortvalue_input(spec.name, self._inputs[spec.name])
        for spec in signature.outputs:
            dims = [axis if isinstance(axis, int) else sizes.get(axis) for axis in spec.axes]
            if None in dims:  # an axis of its own, known when it was computed
                self._unsized.append(spec.name)
                self._binding.bind_output(spec.name, *device)
            else:
                self._binding.bind_ortvalue_output(spec.name, make(dims, np.dtype(spec.dtype).type, *device))

    def run(self, session: Any, inputs: Mapping[str, NDArray[Any]], options: Any) -> Arrays:
        for name, value in self._inputs.items():
            array = inputs[name]
            fed = self._fed.pop(name, None)
            if array.flags.writeable or fed is not array:
                value.update_inplace(np.asarray(array, order="C"))
            if not array.flags.writeable:
                self._fed[name] = array
        for name in self._unsized:  # or the last run's size would be asked of this one
            self._binding.bind_output(name, *self._device)
        session.run_with_iobinding(self._binding, options)
        return dict(zip(self._outputs, [np.array(value.numpy()) for value in self._binding.get_outputs()], strict=True))
