"""Where inside a model torch and onnxruntime part: what hooks see of its submodules in torch against values of the graph."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec_export.foreign import Method
from genrec_export.parity import run_torch
from genrec_export.report import Arrays, Parting
from genrec_export.tracing import Graph
from genrec_runtime.compare import Difference, compare_outputs, compare_values
from genrec_runtime.device import available_threads, import_onnxruntime
from genrec_runtime.manifest import Tolerance

SCOPES = "pkg.torch.onnx.name_scopes"  # torch's list of the submodules around an operator, outermost first, then its own name
NOWHERE = "_empty_nn_module_stack_from_metadata_hook"  # what torch writes there for an operator of no module
FOLDER = "session.model_external_initializers_file_folder_path"
ARGUMENTS = {
    "encoder": "encode",
    "head": "score",
    "searcher": "search",
    "scorer": "score_candidates",
}  # what we call the caller's models, and what the caller does


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a submodule, as torch made it.

    Attributes:
        module: what was called.
        paths: its names; a shared submodule has several.
        outputs: the tensors that it gave.
        before: how many calls had finished when it began; those that finished since were made inside it.
    """

    module: nn.Module
    paths: tuple[str, ...]
    outputs: list[NDArray[Any]]
    before: int


@dataclass(frozen=True, eq=False)
class _Compared:
    """One call whose output was found in the graph.

    Attributes:
        call: the call.
        difference: the largest of those outputs that were found.
        whole: whether all of them were.
    """

    call: _Call
    difference: Difference
    whole: bool


def scopes(model: onnx.ModelProto) -> dict[str, list[str]]:
    """For each submodule's path the values that are made inside it, in order; of all its calls, and of the submodules in it.

    Args:
        model: as torch's exporter gives it, with the metadata that ``anonymise`` removes.
    """
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        stack = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        for path in ast.literal_eval(stack)[:-1]:
            if path not in ("", NOWHERE):
                found.setdefault(path, []).extend(node.output)
    return found


def first_parting(
    module: nn.Module,
    graph: Graph,
    model_file: Path,
    scopes: Mapping[str, Sequence[str]],
    inputs: Arrays,
    tolerance: Tolerance,
) -> Parting | None:
    """Finds the submodule that is the first to answer otherwise in onnxruntime than in torch.

    Submodules are compared in the order in which torch finishes them, so that the innermost comes first. One is passed over
    whose output the exporter folded away, or around which another agrees: its difference did not reach the end. What is
    computed between ``after`` and the submodule found may be to blame as well: inputs are not compared.

    Args:
        module: what was traced, as a whole, in eval mode.
        graph: the graph that fails.
        model_file: the graph as it was written, its weights beside it.
        scopes: the values of each submodule, from the model as it was traced.
        inputs: on which the two differ.
        tolerance: how far values may differ.

    Returns:
        Where they part; None if no submodule can be compared, or onnxruntime does not run the graph.

    Raises:
        ExportError: if the model fails in torch on these inputs.
    """
    with _watched(module) as calls:
        expected = run_torch(graph, inputs)
    model = onnx.load(model_file, load_external_data=False)
    values = _values(model.graph, calls, scopes)
    try:
        found = _run(model, model_file.parent, {name for names in values for name in names}, inputs)
    except Exception:  # onnxruntime raises many types; that it fails was said already
        return None
    compared = [
        _compare(call, [found[name] for name in names], tolerance) for call, names in zip(calls, values, strict=True)
    ]
    parting = _first(module, compared)
    if parting is not None and not parting.path:
        with contextlib.suppress(ValueError):  # the end has another shape, so it differs
            end = compare_outputs(model.graph.name, found, expected, tolerance)
            return dataclasses.replace(parting, end_agrees=end.same)
    return parting


def _first(module: nn.Module, compared: Sequence[_Compared | None]) -> Parting | None:
    """The first call that differs, but for those made inside one that agrees."""
    agreeing = [
        (place, one.call.before) for place, one in enumerate(compared) if one and one.whole and one.difference.same
    ]
    after = None
    for place, one in enumerate(compared):
        if one is None:
            continue
        name = _name(module, one.call.paths[0])
        if one.difference.same:
            after = name
        elif not any(before <= place < around for around, before in agreeing):
            return Parting(name, _kind(one.call.module), one.difference.error, after or "")
    return None if after is None else Parting("", "", 0.0, after)


@contextlib.contextmanager
def _watched(module: nn.Module) -> Iterator[list[_Call]]:
    """The calls of submodules made inside the context, in the order in which they finished."""
    calls: list[_Call] = []
    paths: dict[nn.Module, tuple[str, ...]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        if path:
            paths[part] = (*paths.get(part, ()), path)

    begun: list[int] = []

    def begin(*_: object) -> None:
        begun.append(len(calls))

    def finish(part: nn.Module, _: object, output: object) -> None:
        calls.append(_Call(part, paths[part], list(_arrays(output)), begun.pop()))

    hooks = [part.register_forward_pre_hook(begin) for part in paths]
    hooks += [part.register_forward_hook(finish) for part in paths]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _arrays(output: object) -> Iterator[NDArray[Any]]:
    """Copies of all tensors in what a module gave; numpy has no bfloat16."""
    if isinstance(output, Tensor) and output.dtype != torch.bfloat16:
        yield np.atleast_1d(output.detach().clone().numpy())
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _arrays(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _arrays(value)


def _values(body: onnx.GraphProto, calls: Sequence[_Call], scopes: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """For each call the values that may be its outputs, made inside it and used outside; none where it was folded away."""
    renamed = {f"{body.name}/{value.name}": value.name for value in body.output}  # as ``cut`` does
    maker = {value: place for place, node in enumerate(body.node) for value in node.output}
    users: dict[str, set[int]] = {value.name: {len(body.node)} for value in body.output}
    for place, node in enumerate(body.node):
        for value in node.input:
            users.setdefault(value, set()).add(place)
    total, begun = Counter(call.module for call in calls), Counter[nn.Module]()
    found = []
    for call in calls:
        names = {renamed.get(value, value) for path in call.paths for value in scopes.get(path, ())}
        places = sorted({maker[name] for name in names & maker.keys()})
        own = _share(body, places, begun[call.module], total[call.module])
        begun[call.module] += 1
        made = [value for place in own for value in body.node[place].output]
        found.append([value for value in made if users.get(value, set()).difference(own)])
    return found


def _share(body: onnx.GraphProto, places: list[int], call: int, calls: int) -> list[int]:
    """The operators of one of several calls of a submodule, which the exporter does not tell apart.

    They are dealt out in order if that gives all calls the same operators; else all stand for the last call.
    """
    size = len(places) // calls
    parts = [places[i * size : (i + 1) * size] for i in range(calls)]
    if size * calls == len(places) and len({tuple(body.node[place].op_type for place in part) for part in parts}) == 1:
        return parts[call]
    return places if call == calls - 1 else []


def _run(model: onnx.ModelProto, folder: Path, watched: set[str], inputs: Arrays) -> Arrays:
    """A graph's outputs and some values inside it, by onnxruntime as it serves: fused wherever no watched value is lost."""
    names = [value.name for value in model.graph.output]
    more = sorted(watched.difference(names))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)  # onnxruntime finds the type
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_threads()
    options.log_severity_level = 4  # what fails is raised
    options.add_session_config_entry(FOLDER, str(folder))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    needed = {name: inputs[name] for name in (value.name for value in model.graph.input)}
    return dict(zip([*names, *more], session.run([*names, *more], needed), strict=True))


def _compare(call: _Call, candidates: Sequence[NDArray[Any]], tolerance: Tolerance) -> _Compared | None:
    """Each output with the nearest value of its shape and dtype; None where there is no such value for any."""
    differences = []
    for output in call.outputs:
        fitting = [np.atleast_1d(value) for value in candidates]
        fitting = [value for value in fitting if (value.shape, value.dtype) == (output.shape, output.dtype)]
        if fitting:
            near = (_difference(value, output, tolerance) for value in fitting)
            differences.append(min(near, key=lambda difference: difference.excess))
    if not differences:
        return None
    worst = max(differences, key=lambda difference: difference.excess)
    return _Compared(call, worst, len(differences) == len(call.outputs))


def _difference(found: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance) -> Difference:
    """As ``compare_values``, but inside a model NaN equals NaN: what is masked later may well be none."""
    both = (found != found) & (expected != expected)
    return compare_values(np.where(both, 0, found), np.where(both, 0, expected), tolerance)


def _name(module: nn.Module, path: str) -> str:
    """A submodule's path as the caller knows it: without the names that ``Serving`` and others gave to what it wraps."""
    wrapper, _, rest = path.partition(".")
    if isinstance(module.get_submodule(wrapper), Method):
        rest = rest.partition(".")[2]
    argument = ARGUMENTS.get(wrapper, wrapper)
    if wrapper == "head" and rest:
        return f"{argument}: {rest}"
    return rest or argument


def _kind(module: nn.Module) -> str:
    return f"{type(module.owner).__name__}.{module.name}" if isinstance(module, Method) else type(module).__name__
