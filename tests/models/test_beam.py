"""TIGER's search: the slow reference's items, in torch and as one ONNX graph, and the whole catalogue's order when wide."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import Dim

from genrec.modules import catalogue_scores, top_k
from genrec_models.beam import BeamSearch
from genrec_models.tiger import TIGER
from tests.models.tiny_tiger import ALL, CLOSE, NOTHING, C, L, V, best, histories, real, slow, tiger

os.environ["ORT_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="module")
def model() -> TIGER:
    return tiger()


@pytest.mark.parametrize("beam", [10, 20, 50])
def test_the_search_finds_what_the_slow_reference_finds(model: TIGER, beam: int) -> None:
    reference, item_ids, exclude = slow(model), histories(20, seed=beam), histories(20, seed=1)
    items, scores = model.serving_module(9, beam)(item_ids, exclude, ALL)
    for row, left_out, *found in zip(item_ids, exclude, items.tolist(), scores, strict=True):
        expected = reference.recommend(real(row), 9, beam, exclude=real(left_out))
        assert found[0] == [item for item, _ in expected]
        torch.testing.assert_close(found[1], torch.tensor([score for _, score in expected]), **CLOSE)


def test_with_as_many_beams_as_items_it_ranks_the_whole_catalogue(model: TIGER) -> None:
    item_ids, exclude = histories(8), histories(8, seed=1)
    exact = model.score(item_ids, torch.arange(V + 1).expand(8, -1))
    exact = exact.scatter(1, torch.cat([exclude, torch.zeros(8, 1, dtype=torch.int64)], dim=1), float("-inf"))
    ranking, values = top_k(exact, V)
    items, scores = model.serving_module(V)(item_ids, exclude, ALL)
    torch.testing.assert_close(scores, values, **CLOSE)
    assert torch.equal(items, ranking.masked_fill(values == float("-inf"), 0))


def test_a_list_is_full_whenever_so_many_items_are_left(model: TIGER) -> None:
    search = model.serving_module(4, 4)
    left = [8, 17, 33, 60]
    exclude = torch.tensor([[item for item in range(1, V + 1) if item not in left]])
    assert sorted(best(search, histories(1), exclude)[0]) == left
    available = torch.zeros(V + 1, dtype=torch.bool)
    available[left] = True
    assert sorted(best(search, histories(1), available=available)[0]) == left


def test_what_is_not_left_is_never_returned(model: TIGER) -> None:
    available = torch.zeros(V + 1, dtype=torch.bool)
    available[[8, 17, 33]] = True
    items, scores = model.serving_module(5)(histories(2), torch.tensor([[17, 0], [8, 33]]), available)
    assert [sorted(row) for row in items.tolist()] == [[0, 0, 0, 8, 33], [0, 0, 0, 0, 17]]
    assert torch.equal(scores == float("-inf"), items == 0)
    assert items[:, 0].all()


def test_items_that_differ_in_the_last_code_only_are_told_apart(model: TIGER) -> None:
    _, inverse, counts = model.codes[1:, :3].unique(dim=0, return_inverse=True, return_counts=True)
    shared = (inverse == counts.argmax()).nonzero().flatten() + 1
    assert len(shared) > 2
    available = torch.zeros(V + 1, dtype=torch.bool)
    available[shared] = True
    items, scores = model.serving_module(len(shared))(histories(1), NOTHING, available)
    assert sorted(items[0].tolist()) == shared.tolist()
    torch.testing.assert_close(scores, model.score(histories(1), items), **CLOSE)


@pytest.mark.parametrize("beam", [4, 11, V])
def test_a_model_that_scores_all_alike_gives_the_lowest_items(beam: int) -> None:
    indifferent = tiger()
    torch.nn.init.zeros_(indifferent.head.weight)
    items, scores = indifferent.serving_module(4, beam)(histories(2), NOTHING.expand(2, -1), ALL)
    assert items.tolist() == [[1, 2, 3, 4]] * 2
    torch.testing.assert_close(scores, torch.full((2, 4), -4 * math.log(C)))  # four levels, C codes each


def test_the_scores_of_the_catalogue_are_those_of_the_search(model: TIGER) -> None:
    item_ids, exclude = histories(3), torch.tensor([[1, 2], [3, 0], [0, 0]])
    items, scores = model.serving_module(20)(item_ids, exclude, ALL)
    dense = model.scores(item_ids, exclude)
    assert dense.shape == (3, V + 1)
    assert (dense > float("-inf")).sum(dim=1).tolist() == [20] * 3
    torch.testing.assert_close(dense.gather(1, items), scores, atol=0, rtol=0)
    torch.testing.assert_close(catalogue_scores(model, item_ids), model.scores(item_ids), atol=0, rtol=0)


def test_a_search_knows_the_codes_of_its_time() -> None:
    changed = tiger()
    before = best(changed.serving_module(6), histories(2))
    codes = torch.cat([changed.codes[:1], changed.codes[1:].flip(0)])
    changed.set_codes(codes)
    assert torch.equal(changed.codes, codes)
    assert best(changed.serving_module(6), histories(2)) != before
    items, scores = changed.serving_module(6)(histories(2), NOTHING.expand(2, -1), ALL)
    torch.testing.assert_close(scores, changed.score(histories(2), items), **CLOSE)


def test_lists_and_beams_out_of_range_are_refused(model: TIGER) -> None:
    for k, beam in ((0, 5), (V + 1, V + 1), (6, 5)):
        with pytest.raises(ValueError, match=rf"k \({k}\) must lie in 1..num_items \({V}\), and beam \({beam}\)"):
            BeamSearch(model, k, beam)
    assert model.serving_module(V + 100).k == V
    assert (model.serving_module(5).beam, model.serving_module(30).beam) == (20, 30)


# torch's own exporter calls what torch deprecated
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")  # torch's exporter on axes of one name
def test_the_exported_search_gives_every_item_that_torch_and_the_reference_give(tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiger(num_layers=1)
    search, reference = model.serving_module(9, 10), slow(model)
    batch, length, excluded = Dim("batch"), Dim("length", max=L), Dim("excluded")
    names = ["item_ids", "exclude", "available"]
    with torch.no_grad():
        torch.onnx.export(
            search,
            (histories(3), histories(3, seed=1)[:, :2], ALL),
            tmp_path / "search.onnx",
            dynamo=True,
            opset_version=20,
            input_names=names,
            output_names=["items", "scores"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: excluded}, {}),
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(tmp_path / "search.onnx").graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Loop", "If", "Scan", "NonZero", "GatherND", "Dropout"}
    assert {node.domain for node in graph.node} == {""}
    assert [axis.dim_param for axis in graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]

    session = onnxruntime.InferenceSession(tmp_path / "search.onnx", providers=["CPUExecutionProvider"])
    item_ids, exclude = histories(200, seed=5), histories(200, seed=6)
    for rows, width in ((slice(0, 1), L), (slice(1, 2), 1), (slice(2, 9), 2), (slice(9, 200), L)):
        tried, left_out = item_ids[rows, L - width :], exclude[rows, : 0 if width == 1 else L]
        items, scores = session.run(None, dict(zip(names, (x.numpy() for x in (tried, left_out, ALL)), strict=True)))
        in_torch = search(tried, left_out, ALL)
        np.testing.assert_array_equal(items, in_torch[0])
        np.testing.assert_allclose(scores, in_torch[1].detach(), **CLOSE)
        for row, banned, *found in zip(tried, left_out, items.tolist(), scores, strict=True):
            expected = reference.recommend(real(row), 9, 10, exclude=real(banned))
            assert found[0] == [item for item, _ in expected]
            np.testing.assert_allclose(found[1], [score for _, score in expected], **CLOSE)
