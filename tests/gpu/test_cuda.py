"""What only a CUDA device can show; ``pytest -m gpu`` where there is one. The ways to look are tried on the CPU in every run."""

import numpy as np
import onnxruntime
import pytest

from genrec.histories import Ragged
from genrec_export.cases import recommender_cases
from genrec_export.foreign import serving_of
from genrec_export.histories import Requests
from genrec_export.interface import graphs_of
from genrec_export.parity import run_torch
from genrec_export.tracing import Graph
from genrec_runtime import DeviceUnavailable, Recommender
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference, compare_outputs
from genrec_runtime.device import CPU, CUDA, cuda_options
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Tolerance
from genrec_runtime.options import Options
from genrec_runtime.placement import Placement, placement
from genrec_runtime.sessions import Sessions
from tiny import ITEMS, MAX_SEQ_LENGTH, Tiny

ON_CUDA = Tolerance(atol=1e-4, rtol=1e-4)  # other kernels, other order of sums; TF32 is off
ON_CPU = Tolerance(atol=1e-5, rtol=1e-5)
DEVICES = [
    pytest.param("cpu", ON_CPU, id="cpu"),
    pytest.param("cuda", ON_CUDA, marks=pytest.mark.gpu, id="cuda"),
]


def graphs(tiny: Tiny) -> dict[str, Graph]:
    """The graphs of the tiny bundle, in torch."""
    index = tiny.torch_path.catalogue.items
    serving = serving_of(
        tiny.model.user_state,
        tiny.model.item_vectors(),
        None,
        ITEMS,
        index,
        first_item=1,
        pad_index=0,
        max_seq_length=MAX_SEQ_LENGTH,
        k_max=20,
    )
    assert tiny.exported.manifest.semantics is not None
    return graphs_of(serving, tiny.exported.manifest.semantics)


def worst(tiny: Tiny, device: str, variant: str, tolerance: Tolerance) -> Difference:
    """The largest difference to torch over the grid of the export, all graphs."""
    engine = Engine(Bundle.open(tiny.path, variant=variant), Options(device, variant=variant))
    index = tiny.torch_path.catalogue.items.index
    histories = Requests(Ragged.from_rows([index(history) for history in tiny.histories]))
    found = Difference(0.0, 0.0, -1)
    for name, graph in graphs(tiny).items():
        for _, inputs in recommender_cases(name, len(ITEMS), [1, 2, 5, 6], "left", histories):
            answer = compare_outputs(name, engine.run(name, inputs), run_torch(graph, inputs), tolerance)
            found = max(found, answer, key=lambda difference: difference.excess)
    return found


def placed(bundle: Bundle, graph: str, device: str) -> Placement:
    """Where the nodes of one graph run."""
    providers = [(CUDA, cuda_options(0)), CPU] if device == "cuda" else [CPU]
    return placement(Sessions(onnxruntime, bundle, Options(device), 1, providers).open(graph, f"{graph}.onnx"))


@pytest.mark.parametrize(("device", "tolerance"), DEVICES)
def test_the_grid_of_the_export_agrees_with_torch(tiny: Tiny, device: str, tolerance: Tolerance) -> None:
    found = worst(tiny, device, "fp32", tolerance)
    assert found.same, found
    assert found.row >= 0


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("graph", ["recommend", "score", "encode", "item_vectors", "similar"])
def test_every_node_is_on_the_device_asked_for(tiny: Tiny, graph: str, device: str) -> None:
    seen = placed(Bundle.open(tiny.path), graph, device)
    taken, wanted = seen.operators, CUDA if device == "cuda" else CPU
    work = {"Gather"} if graph == "item_vectors" else {"MatMul", "Gemm", "FusedMatMul"}
    assert work & set(taken[wanted])
    assert seen.problem == ""
    shapes = {"Shape", "Gather", "Unsqueeze", "Concat", "Squeeze", "Slice", "Cast", "Range"}  # of sizes, on the host
    assert all(set(operators) <= shapes for provider, operators in taken.items() if provider != wanted), taken
    assert not any("Memcpy" in operator for operators in taken.values() for operator in operators)


@pytest.fixture(scope="module")
def on_cuda(tiny: Tiny) -> Recommender:
    """The tiny bundle on the first GPU; a named device is strict, so this is no silent CPU."""
    return Recommender.load(tiny.path, device="cuda")


@pytest.mark.gpu
def test_the_provider_is_cuda(on_cuda: Recommender) -> None:
    assert on_cuda.device_report.providers[0] == CUDA
    assert on_cuda.device_report.reason == ""
    assert on_cuda.device_report.heavy_on_cpu == ()


@pytest.mark.gpu
def test_cuda_answers_as_torch_does(tiny: Tiny, on_cuda: Recommender) -> None:
    answer = on_cuda.recommend(tiny.histories, k=20)
    for items, scores, (expected, values) in zip(
        answer.items, answer.scores, tiny.torch_path.recommend(tiny.histories, 20), strict=True
    ):
        index = on_cuda.catalogue.items.index
        ours = {"items": index(items)[None], "scores": scores[None]}
        theirs = {"items": index(expected)[None], "scores": np.array([values], np.float32)}
        assert compare_outputs("recommend", ours, theirs, ON_CUDA).same


@pytest.mark.gpu
def test_a_gpu_that_is_not_there_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(DeviceUnavailable):
        Recommender.load(tiny.path, device="cuda:99")
