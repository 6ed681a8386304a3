from collections import Counter
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from onnx import TensorProto, helper

from genrec_runtime.device import CPU, CUDA
from genrec_runtime.placement import RECORD, Placement, placement

AZURE = "AzureExecutionProvider"  # one that takes no node of standard operators, in the build for the CPU
NODES = [
    helper.make_node("MatMul", ["users", "items"], ["scores"]),
    helper.make_node("Shape", ["scores"], ["shape"]),
    helper.make_node("ReduceMax", ["shape"], ["most"]),
    helper.make_node("Softmax", ["scores"], ["shares"]),
    helper.make_node("TopK", ["shares", "k"], ["values", "places"]),
    helper.make_node("MatMul", ["users", "items"], ["again"]),
]


def session_of(*providers: str, record: bool = True) -> Any:
    """A session of NODES, each as it stands in the graph."""
    floats = {"users": [2, 3], "items": [3, 5]}
    outputs = {"again": TensorProto.FLOAT, "values": TensorProto.FLOAT, "most": TensorProto.INT64}
    graph = helper.make_graph(
        NODES,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
        + [helper.make_tensor_value_info("k", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if record:
        options.add_session_config_entry(RECORD, "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=list(providers))


class FakeSession:
    """A session in which CUDA took some nodes and the CPU others."""

    def __init__(self, *parts: tuple[str, list[str]]) -> None:
        self.parts = parts

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda types=types: [SimpleNamespace(op_type=t) for t in types])
            for name, types in self.parts
        ]


def test_every_node_is_counted_where_it_runs() -> None:
    seen = placement(session_of(CPU))
    assert seen.operators == {CPU: Counter(node.op_type for node in NODES)}
    assert seen.nodes == {CPU: len(NODES)}
    assert seen.providers == (CPU,)


def test_heavy_operators_on_the_cpu_are_no_complaint_where_only_the_cpu_was_asked_for() -> None:
    seen = placement(session_of(CPU))
    assert (seen.heavy_on_cpu, seen.problem) == ((), "")


def test_fault_89_heavy_operators_that_fell_to_the_cpu_are_named() -> None:
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this build has no provider that starts everywhere and takes nothing")
    seen = placement(session_of(AZURE, CPU))
    assert seen.providers[0] == AZURE
    assert seen.heavy_on_cpu == ("MatMul", "Softmax", "TopK")
    assert seen.problem == f"{AZURE} started, but these operators run on the CPU: MatMul (2), Softmax (1), TopK (1)"


@pytest.mark.parametrize(
    ("parts", "heavy"),
    [
        ([(CUDA, ["MatMul", "TopK"]), (CPU, ["Shape", "Gather", "Concat", "Unsqueeze", "Cast"])], ()),
        (
            [(CUDA, ["MatMul"]), (CPU, ["TopK"]), (CUDA, ["Add"]), (CPU, ["Shape", "FusedMatMul"])],
            ("FusedMatMul", "TopK"),
        ),
        ([(CPU, ["SkipLayerNormalization", "MultiHeadAttention", "QGemm"])], None),
        ([(CUDA, ["MatMulInteger"])], ()),
    ],
)
def test_fault_89_shape_arithmetic_may_run_on_the_cpu_beside_cuda(
    parts: list[tuple[str, list[str]]], heavy: tuple[str, ...] | None
) -> None:
    seen = placement(FakeSession(*parts))
    on_cpu = [operator for provider, types in parts for operator in types if provider == CPU]
    assert seen.heavy_on_cpu == (tuple(sorted(on_cpu)) if heavy is None else heavy)
    assert bool(seen.problem) == bool(seen.heavy_on_cpu)
    assert sum(seen.nodes.values()) == sum(len(types) for _, types in parts)


@pytest.mark.parametrize(
    "session",
    [
        pytest.param(lambda: session_of(CPU, record=False), id="not recorded"),
        pytest.param(lambda: SimpleNamespace(get_providers=lambda: [CPU]), id="an onnxruntime without the call"),
    ],
)
def test_where_it_is_not_known_there_is_nothing_to_say(session: Any) -> None:
    assert placement(session()) == Placement((CPU,))
    assert placement(session()).nodes == {}
