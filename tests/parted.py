"""Nets whose parts are called in every way, as an export has them before their graphs are compared, and faults to plant there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from genrec_export.graphs import Serving
from genrec_export.parting import first_parting, scopes
from genrec_export.report import Arrays, Parting
from genrec_export.surgery import anonymise, cut
from genrec_export.tracing import Graph, trace
from genrec_runtime.manifest import TensorSpec, Tolerance

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)
WIDTH = 6
IDS = np.array([[1, 7, 3], [8, 0, 5]])

Change = Callable[[onnx.ModelProto], None]


class Layer(nn.Module):
    """A layer with two parts and a sum of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.mix(self.norm(x)))


class Logs(nn.Module):
    """NaN wherever its input is negative."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class Ignored(nn.Module):
    """Half of its inside does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = nn.Linear(WIDTH, WIDTH)
        self.does_not = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.counts(x) + 1e-12 * self.does_not(x)


class Pair(nn.Module):
    """Two outputs, of which the second ends on a transpose that is undone outside, so that the exporter drops both."""

    def __init__(self) -> None:
        super().__init__()
        self.calm = nn.Linear(WIDTH, WIDTH)
        self.wild = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.calm(x), self.wild(x).transpose(1, 2)


class Net(nn.Module):
    """Parts called once, twice, under two names; folded away, changed in place, with several outputs, NaN, without effect."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(9, WIDTH)
        self.dropout = nn.Dropout(0.5)
        self.first = Layer()
        self.twice = Layer()
        self.between = nn.Linear(WIDTH, WIDTH)
        self.other_name = self.first
        self.logs = Logs()
        self.ignored = Ignored()
        self.pair = Pair()
        self.memory = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.scale = nn.Parameter(torch.linspace(1, 2, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.first(self.dropout(self.embed(ids)).mul_(0.5))
        x = self.twice(self.between(self.twice(x)))
        x = self.other_name(x)
        x = x + torch.where(x > 0, self.logs(x), 0.0)
        x, y = self.pair(self.ignored(x))
        x, _ = self.memory(x + y.transpose(1, 2))
        return x * self.scale


class Flat(nn.Module):
    """What ``export_module`` traces a module in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


@dataclass(frozen=True, eq=False)
class Traced:
    """A module as an export has it before its graphs are compared."""

    module: nn.Module
    graphs: dict[str, Graph]
    whole: onnx.ModelProto
    scopes: dict[str, list[str]]

    def write(self, folder: Path, change: Change | None = None, name: str = "module") -> Path:
        """One graph, its weights in a file beside it."""
        model = cut(self.whole, name, self.graphs[name])
        if change is not None:
            change(model)
        file = folder / f"{name}.onnx"
        onnx.save_model(model, file, save_as_external_data=True, location="weights.bin", size_threshold=64)
        return file

    def part(self, file: Path, inputs: Arrays | None = None) -> Parting | None:
        """Where this graph parts."""
        graph = self.graphs[file.stem]
        given = {spec.name: INPUTS[spec.name] for spec in graph.inputs}
        return first_parting(self.module, graph, file, self.scopes, inputs or given, TOLERANCE)


def traced(module: nn.Module, graphs: dict[str, Graph]) -> Traced:
    names = [spec.name for graph in graphs.values() for spec in graph.inputs]
    whole = trace(module.eval(), graphs, {name: torch.from_numpy(INPUTS[name]) for name in dict.fromkeys(names)})
    found = scopes(whole)
    anonymise(whole)
    assert scopes(whole) == {}
    return Traced(module, graphs, whole, found)


ITEM_IDS = TensorSpec("item_ids", "int64", ("batch", "length"), 0, 8)
INPUTS: Arrays = {
    "item_ids": IDS,
    "exclude": np.array([[1, 2, 3, 4], [0, 0, 0, 0]]),
    "available": np.ones(9, np.bool_),
    "candidates": np.array([[5, 6, 1, 2, 3], [4, 7, 8, 2, 3]]),
}


def traced_flat(net: nn.Module) -> Traced:
    flat = Flat(net)
    output = TensorSpec("output", "float32", ("batch", "length", WIDTH))
    return traced(flat, {"module": Graph(flat, (ITEM_IDS,), (output,), {})})


class Sly(nn.Module):
    """Adds something to what its part gives, but only when traced."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.part(x)
        return y + 0.5 if torch.compiler.is_exporting() else y


class Ranker(nn.Module):
    """A caller's model with a state and a head of its own, both methods."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.items = nn.Embedding(9, WIDTH)
        self.encoder = Layer()
        self.out = nn.Linear(WIDTH, 9)

    def state(self, item_ids: Tensor) -> Tensor:
        return self.encoder(self.items(item_ids)).sum(dim=1)  # type: ignore[no-any-return]  # a module gives anything

    def logits(self, states: Tensor) -> Tensor:
        return self.out(states)  # type: ignore[no-any-return]  # a module gives anything


def specs(*names: str) -> tuple[TensorSpec, ...]:
    known = {
        "exclude": TensorSpec("exclude", "int64", ("batch", "excluded"), 0, 8),
        "available": TensorSpec("available", "bool", (9,)),
        "candidates": TensorSpec("candidates", "int64", ("batch", "candidates"), 0, 8),
        "items": TensorSpec("items", "int64", ("batch", 8)),
        "scores": TensorSpec("scores", "float32", ("batch", 8)),
        "states": TensorSpec("states", "float32", ("batch", WIDTH)),
    }
    return tuple(known.get(name, ITEM_IDS) for name in names)


def traced_serving(encoder: nn.Module, table: Tensor | None, head: nn.Module | None) -> Traced:
    serving = Serving(encoder, table, head, None, None, 8)
    scores = (TensorSpec("scores", "float32", ("batch", "candidates")),)
    graphs = {
        "recommend": Graph(serving.recommend, specs("item_ids", "exclude", "available"), specs("items", "scores"), {}),
        "score": Graph(serving.score, specs("item_ids", "candidates"), scores, {}),
        "encode": Graph(serving.encode, specs("item_ids"), specs("states"), {}),
    }
    return traced(serving, graphs)


def spoil(values: list[str], call: int = 0) -> Change:
    """Changes a weight of the operators that make some values, for one call of a part that has several, and for it alone."""

    def change(model: onnx.ModelProto) -> None:
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        nodes = [node for node in model.graph.node if set(node.output) & set(values)]
        uses = [
            (node, place)
            for node in nodes
            for place, name in enumerate(node.input)
            if name in weights and weights[name].data_type == onnx.TensorProto.FLOAT
        ]
        node, place = uses[call * len(uses) // 2]
        wrong = numpy_helper.to_array(weights[node.input[place]]) * np.float32(1.3) + np.float32(0.2)
        node.input[place] += ", wrong"
        model.graph.initializer.append(numpy_helper.from_array(wrong, node.input[place]))

    return change
