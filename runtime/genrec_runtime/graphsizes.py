"""How large a tensor the numbers written in a graph can ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from genrec_runtime.errors import BundleCorrupt
from genrec_runtime.onnxfile import Graph, Node

MAX_MADE = 1 << 24  # elements, in all tensors together whose sizes a graph states
MAX_NUMBERS = 64  # in a constant that is a size
SIZED_BY = {  # operators whose result is as large as the values of these inputs say
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Tile": (1,),
}
OF_ALL = ("Add", "Concat", "Div", "Max", "Min", "Mod", "Mul", "Sub")  # a size computed from several
OF_THE_FIRST = ("Cast", "Gather", "Identity", "Neg", "ReduceProd", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze")


def check_sizes(graph: Graph) -> None:
    """Refuses a graph in which a few bytes ask for gigabytes, be it at loading: a constant of 2**40 elements, say.

    A size's bound is the product of its numbers, each with one added; that of a size computed from others the product of
    theirs. A free axis counts as one: how large a request is, its caller says. A size that comes from neither constants nor
    shapes has no bound.

    Raises:
        BundleCorrupt: naming the operator.
    """
    bounds: dict[str, float] = {}  # of values that may be sizes
    made: dict[str, float] = {}  # of tensors: how many elements they were made of
    for tensor in graph.initializer:
        if not tensor.data_location:
            _note(bounds, [tensor.name], tensor.values())
    for node in graph.node:
        read = [bounds.get(value, math.inf) for value in node.input]
        if node.op_type == "Constant":
            _note(bounds, node.output, _constant(node))
        elif node.op_type == "Shape":
            bounds |= dict.fromkeys(node.output, math.prod(made.get(value, 1.0) for value in node.input))
        elif node.op_type in OF_ALL + OF_THE_FIRST:
            bound = math.prod(read if node.op_type in OF_ALL else read[:1])
            bounds |= dict.fromkeys(node.output, bound)
        if node.op_type in SIZED_BY or node.op_type == "Conv":
            made |= dict.fromkeys(node.output, _elements(node, read))
    total = sum(made.values())
    if total > MAX_MADE:
        worst = max(graph.node, key=lambda node: made.get(node.output[0], 0.0) if node.output else 0.0)
        raise BundleCorrupt(
            f"asks by {worst.op_type} {worst.name!r} and the like for tensors of {total:.3g} elements, whatever is requested; "
            f"at most {MAX_MADE} are served",
            code="bundle_unsafe",
        )


def _elements(node: Node, read: list[float]) -> float:
    """How many elements the sizes in a graph ask of a node."""
    if node.op_type == "Conv":
        return math.prod(_bound(attribute.ints) for attribute in node.attribute if attribute.name == "pads")
    return math.prod(read[place] for place in SIZED_BY[node.op_type] if place < len(read))


def _note(bounds: dict[str, float], names: Iterable[str], values: ArrayLike) -> None:
    numbers = np.asarray(values)
    if numbers.size <= MAX_NUMBERS and numbers.dtype.kind in "iuf":
        bounds |= dict.fromkeys(names, _bound(numbers.ravel().tolist()))


def _bound(numbers: Iterable[float]) -> float:
    """A fraction counts as its inverse: steps of 1e-9 are many."""
    sizes = [abs(float(number)) for number in numbers]
    return math.prod(
        1 + max(size, 1 / size if 0 < size < 1 else 0.0) if size < math.inf else math.inf for size in sizes
    )


def _constant(node: Node) -> ArrayLike:
    """The numbers of a Constant; none where it holds something else, or nothing."""
    numbers: tuple[float, ...] = ()
    for attribute in node.attribute:
        if attribute.t is not None:
            return attribute.t.values()
        numbers = (*attribute.ints, *attribute.floats) or (attribute.i, attribute.f)
    return numbers
