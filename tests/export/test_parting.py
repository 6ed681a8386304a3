"""Where inside a model torch and onnxruntime part: faults planted in written graphs, nets that answer otherwise when traced."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from genrec_export.foreign import Method
from genrec_export.report import Parting
from parted import WIDTH, Layer, Net, Ranker, Sly, Traced, spoil, traced_flat, traced_serving


@pytest.fixture(scope="module")
def net() -> Traced:
    """Parts called in every way."""
    return traced_flat(Net())


def test_scopes_hold_the_values_of_each_part_and_of_the_parts_in_it(net: Traced) -> None:
    found = net.scopes
    everything = {path for path, _ in net.module.named_modules(remove_duplicate=False)}
    assert everything - set(found) == {"", "module.dropout"}  # the whole, and what is folded away
    assert set(found) <= everything
    assert set(found["module.first.norm"]) | set(found["module.first.mix"]) < set(found["module.first"])
    assert set(found["module.first"]) < set(found["module"])
    assert len(found["module.twice"]) == 2 * len(found["module.first"]) == 2 * len(found["module.other_name"])
    order = [value for node in net.whole.graph.node for value in node.output]
    for values in found.values():
        assert values == sorted(values, key=order.index)


@pytest.mark.parametrize(
    ("path", "kind", "after"),
    [
        ("embed", "Embedding", ""),
        ("first.norm", "LayerNorm", "embed"),
        ("first.mix", "Linear", "first.norm"),
        ("between", "Linear", "twice"),
        ("ignored.counts", "Linear", "logs"),
        ("pair.wild", "Linear", "pair.calm"),
        ("memory", "GRU", "pair"),
    ],
)
def test_a_wrong_weight_is_found_in_its_part(net: Traced, tmp_path: Path, path: str, kind: str, after: str) -> None:
    parting = net.part(net.write(tmp_path, spoil(net.scopes[f"module.{path}"])))
    assert parting is not None
    assert (parting.path, parting.kind, parting.after) == (path, kind, after)
    assert parting.error > 1e-3
    before = f"; {after}, before it, agrees" if after else ""
    assert parting.text == f"the first part to differ is {path} ({kind}): error {parting.error:.3g}{before}"


def test_the_error_is_that_of_the_part(net: Traced, tmp_path: Path) -> None:
    def lift(model: onnx.ModelProto) -> None:
        (table,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [9, WIDTH])
        wrong = numpy_helper.to_array(table).copy()
        wrong[7, 4] += 0.25
        table.CopyFrom(numpy_helper.from_array(wrong, table.name))

    parting = net.part(net.write(tmp_path, lift))
    assert parting is not None
    assert parting.path == "embed"
    assert parting.error == pytest.approx(0.25, rel=1e-5)  # float32


@pytest.mark.parametrize("call", [0, 1], ids=["the first call", "the second call"])
@pytest.mark.parametrize(("path", "after"), [("twice.norm", ("first", "between")), ("twice.mix", ("twice.norm",) * 2)])
def test_each_call_of_a_part_is_compared_in_its_turn(
    net: Traced, tmp_path: Path, path: str, after: tuple[str, str], call: int
) -> None:
    parting = net.part(net.write(tmp_path, spoil(net.scopes[f"module.{path}"], call)))
    assert parting is not None
    assert (parting.path, parting.after) == (path, after[call])


def test_a_part_under_two_names_has_its_first(net: Traced, tmp_path: Path) -> None:
    parting = net.part(net.write(tmp_path, spoil(net.scopes["module.other_name.mix"])))
    assert parting is not None
    assert (parting.path, parting.after) == ("first.mix", "first.norm")


def test_a_difference_that_does_not_count_is_not_blamed(net: Traced, tmp_path: Path) -> None:
    def both(model: onnx.ModelProto) -> None:
        for part in ("ignored.does_not", "memory"):
            spoil(net.scopes[f"module.{part}"])(model)

    parting = net.part(net.write(tmp_path, both))
    assert parting is not None
    assert (parting.path, parting.after) == ("memory", "pair")


def test_code_between_the_parts_is_that_of_the_module_around_them(net: Traced, tmp_path: Path) -> None:
    def wrong_scale(model: onnx.ModelProto) -> None:
        spoil([model.graph.output[0].name])(model)

    parting = net.part(net.write(tmp_path, wrong_scale))
    assert parting is not None
    assert (parting.path, parting.kind, parting.after) == ("module", "Net", "memory")


def test_where_nothing_differs_it_says_so(net: Traced, tmp_path: Path) -> None:
    parting = net.part(net.write(tmp_path))
    assert parting == Parting("", "", 0.0, "module", end_agrees=True)
    assert parting.text.startswith("every part agrees, and so does the end while parts are watched")
    assert not any(part._forward_hooks for part in net.module.modules())


def test_what_onnxruntime_does_not_run_parts_nowhere(net: Traced, tmp_path: Path) -> None:
    def break_it(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Nonsense"

    assert net.part(net.write(tmp_path, break_it)) is None


def test_without_scopes_there_is_nothing_to_compare(net: Traced, tmp_path: Path) -> None:
    assert replace(net, scopes={}).part(net.write(tmp_path)) is None


# --- nets that answer otherwise when traced


@pytest.mark.parametrize(("part", "path"), [(0, "0"), (1, "1.mix")], ids=["shallow", "deep"])
def test_a_part_that_answers_otherwise_when_traced_is_found(tmp_path: Path, part: int, path: str) -> None:
    torch.manual_seed(4)
    layers = nn.Sequential(nn.Embedding(9, WIDTH), Layer(), Layer())
    if part:
        layers[part].mix = Sly(layers[part].mix)  # type: ignore[assignment, arg-type]  # a Layer
    else:
        layers[0] = Sly(layers[0])
    net = traced_flat(layers)
    parting = net.part(net.write(tmp_path))
    assert parting is not None
    assert (parting.path, parting.kind) == (path, "Sly")
    assert parting.after == f"{path}.part"  # what it wraps agrees
    assert parting.error == pytest.approx(0.5, rel=1e-5)  # float32


# --- recommenders


@pytest.fixture(scope="module")
def ranker() -> Traced:
    """State and head by methods of one model."""
    model = Ranker().eval()
    return traced_serving(Method(model, "state"), None, Method(model, "logits"))


@pytest.mark.parametrize("graph", ["recommend", "score", "encode"])
def test_parts_of_a_recommender_have_the_callers_names(ranker: Traced, tmp_path: Path, graph: str) -> None:
    parting = ranker.part(ranker.write(tmp_path, name=graph))
    assert parting is not None
    assert parting.path == ""
    file = ranker.write(tmp_path, spoil(ranker.scopes["encoder.owner.encoder.mix"]), graph)
    parting = ranker.part(file)
    assert parting is not None
    assert (parting.path, parting.kind, parting.after) == ("encoder.mix", "Linear", "encoder.norm")


def test_the_head_of_a_recommender_is_compared(ranker: Traced, tmp_path: Path) -> None:
    parting = ranker.part(ranker.write(tmp_path, spoil(ranker.scopes["head.owner.out"]), "recommend"))
    assert parting is not None
    assert (parting.path, parting.after) == ("out", "encode")


def test_a_difference_in_no_part_comes_after_the_last(tmp_path: Path) -> None:
    class State(nn.Sequential):
        def forward(self, item_ids: Tensor) -> Tensor:
            return super().forward(item_ids)[:, -1]  # type: ignore[no-any-return]  # a module gives anything

    torch.manual_seed(6)
    head = nn.Sequential(nn.Linear(WIDTH, 4), nn.Linear(4, 9))
    serving = traced_serving(State(nn.Embedding(9, WIDTH), Layer()), None, head)

    def worst_first(model: onnx.ModelProto) -> None:
        (largest,) = (attribute for attribute in model.graph.node[-1].attribute if attribute.name == "largest")
        largest.i = 0

    def fewer(model: onnx.ModelProto) -> None:
        model.graph.node[-1].input[1] = "fewer"
        model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "fewer"))
        for output in model.graph.output:
            del output.type.tensor_type.shape.dim[:]

    for change in (worst_first, fewer):
        parting = serving.part(serving.write(tmp_path, change, "recommend"))
        assert parting is not None
        assert parting.text == "every part agrees; the difference arises after score"
    parting = serving.part(serving.write(tmp_path, spoil(serving.scopes["head.1"]), "recommend"))
    assert parting is not None
    assert (parting.path, parting.after) == ("score: 1", "score: 0")
