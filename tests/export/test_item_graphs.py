"""The graphs of items: vectors, and the highest cosines, in onnxruntime; held to numpy's cosine in double precision."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from genrec.histories import ItemIds
from genrec_export.foreign import serving_of
from genrec_export.graphs import BLOCK, FEW, Serving
from genrec_export.interface import example_of, graphs_of
from genrec_export.tracing import trace
from genrec_runtime import Recommender, Unsupported
from genrec_runtime.manifest import Semantics
from recent import Recent, export_recent

Table = NDArray[np.float32]
V, D = 23, 6
NO_ITEM = -np.inf
ROUNDING = 1e-6  # of a cosine: a few float32 products and sums of at most 1


class OfItems(nn.Module):
    """The two graphs of items alone."""

    def __init__(self, table: Table, k: int) -> None:
        super().__init__()
        self.serving = Serving(nn.Identity(), torch.from_numpy(table), None, None, None, k)

    def forward(self, available: Tensor, item: Tensor) -> tuple[Tensor, ...]:
        return self.serving.vectors(item), *self.serving.similar(item, available)


def semantics(items: int, k: int) -> Semantics:
    return Semantics(0, items, 4, "left", "keep_newest", "fixed", k, "lowest_index", "logit", None)


@functools.cache
def traced(items: int, width: int, k: int) -> onnx.ModelProto:
    """The graphs for a table of this shape."""
    random = np.random.default_rng(1)
    module = OfItems(random.standard_normal((items + 1, width), np.float32), k)
    serving = module.serving
    serving.encode = lambda item_ids: torch.zeros(len(item_ids), width)  # type: ignore[method-assign]  # only its width counts
    stated = graphs_of(serving, semantics(items, k))
    graphs = {name: stated[name] for name in ("item_vectors", "similar")}
    return trace(module, graphs, example_of(semantics(items, k), graphs))


def session(table: Table, k: int) -> Any:
    """The graphs over a table (V + 1, D), in onnxruntime: one trace serves all tables of a shape."""
    model = onnx.ModelProto()
    model.CopyFrom(traced(len(table) - 1, table.shape[1], k))
    buffers = {f"serving.{name}": buffer.numpy() for name, buffer in OfItems(table, k).serving.named_buffers()}
    others = [tensor for tensor in model.graph.initializer if tensor.name not in buffers]
    assert not any(tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 1 for tensor in others)
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    model.graph.initializer.extend(numpy_helper.from_array(buffer, name) for name, buffer in buffers.items())
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def nearest(
    table: Table, item: NDArray[np.int64], available: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k highest cosines by a stable sort, so the lower index first among equals; -inf for what is no answer."""
    vectors = table.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    cosines = (units[item][:, None, :] * units).sum(axis=2)  # (B, V + 1); equal vectors have equal sums
    cosines[:, ~available] = NO_ITEM
    cosines[:, 0] = NO_ITEM
    cosines[np.arange(len(item)), item] = NO_ITEM
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


def check(table: Table, k: int, item: NDArray[np.int64], available: NDArray[np.bool_] | None = None) -> None:
    available = np.ones(len(table), np.bool_) if available is None else available
    vectors, items, scores = session(table, k).run(None, {"item": item, "available": available})
    np.testing.assert_array_equal(vectors, table[item])
    expected_items, expected_scores = nearest(table, item, available, k)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=ROUNDING)
    answers = expected_scores > NO_ITEM
    np.testing.assert_array_equal(items[answers], expected_items[answers])
    assert ((items >= 0) & (items < len(table))).all()


def directions(scales: list[float]) -> Table:
    """Three directions, each several times at other lengths; row 0 would win every place if it were an item."""
    random = np.random.default_rng(2)
    directions = random.standard_normal((3, D)).astype(np.float32)
    rows = np.arange(V + 1)
    table = directions[rows % 3] * np.array(scales, np.float32)[rows % len(scales), None]
    table[0] = table[1]
    return table


def some_zeros(table: Table) -> Table:
    table[4:14:3] = 0
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "random": lambda: np.random.default_rng(0).standard_normal((V + 1, D), np.float32),
    "equal vectors": lambda: directions([1.0]),
    "equal directions": lambda: directions([1.0, 4.0, 0.5, 0.125]),  # powers of two: lengths lose no digit
    "opposite directions": lambda: directions([1.0, -1.0]),
    "some vectors of zeros": lambda: some_zeros(directions([1.0, 2.0])),
    "nothing but zeros": lambda: np.zeros((V + 1, D), np.float32),
    "tiny and huge": lambda: directions([2.0**-90, 1.0, 2.0**90, 2.0**-120, 2.0**120]),  # squares leave float32
}


@pytest.mark.parametrize("name", TABLES)
def test_the_whole_order_of_every_item_is_that_of_the_cosine_with_ties_to_the_lower_index(name: str) -> None:
    check(TABLES[name](), V, np.arange(1, V + 1))


def test_unavailable_items_are_in_no_list_not_even_of_themselves() -> None:
    random = np.random.default_rng(3)
    for available in (random.random(V + 1) < 0.4, np.zeros(V + 1, np.bool_), np.arange(V + 1) == V):
        check(TABLES["equal vectors"](), V, np.arange(1, V + 1), available)


@pytest.mark.parametrize("batch", [1, 2, 7, 40])
def test_every_row_is_answered_for_itself(batch: int) -> None:
    check(TABLES["random"](), V, np.random.default_rng(batch).integers(1, V + 1, batch))


def test_the_only_item_is_like_nothing() -> None:
    table = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]], np.float32)
    vectors, _, scores = session(table, 1).run(None, {"item": np.array([1, 1]), "available": np.array([True, True])})
    assert vectors.tolist() == [[1.0, 2.0, 2.0]] * 2
    assert scores.tolist() == [[NO_ITEM]] * 2


@pytest.mark.parametrize("ties", [False, True], ids=["random", "whole numbers"])
def test_a_catalogue_that_is_searched_by_blocks_gives_the_same(ties: bool) -> None:
    items, k = FEW * 2 * BLOCK + 45, 2  # the last block is not full
    random = np.random.default_rng(4)
    table = random.standard_normal((items + 1, 5), np.float32)
    if ties:
        table = table[random.integers(0, 40, items + 1)]  # each vector some 27 times
        table[-3:] = 0
    item = np.array([1, 2, items - 4, items - 1, items, *random.integers(1, items + 1, 30)])
    check(table, k, item)
    check(table, k, item, random.random(items + 1) < 0.1)
    check(table, k, item, np.arange(items + 1) == items)


# --- numberings of other models

IDS = ["pear", "fig", "kiwi", "apple", "lime"]
NUMBERINGS = {  # first item, padding, rows of the table
    "default": (1, 0, 6),
    "a mask token after padding": (2, 0, 7),
    "padding last": (0, 5, 6),
    "rows for items only": (1, 0, 5),
}


class Newest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(8, 3)

    def forward(self, items: Tensor) -> Tensor:
        state: Tensor = self.items(items)[:, -1]
        return state


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_every_numbering_gives_each_raw_id_its_own_vector_and_its_own_neighbours(numbering: str, order: str) -> None:
    first, padding, rows = NUMBERINGS[numbering]
    raw = sorted(IDS) if order == "sorted" else IDS
    own = np.random.default_rng(5).standard_normal((rows, 3)).astype(np.float32)
    served = serving_of(
        Newest(),
        torch.from_numpy(own),
        None,
        raw,
        ItemIds(raw),
        first_item=first,
        pad_index=padding,
        max_seq_length=4,
        k_max=5,
    )
    items = ItemIds(raw)
    start = 0 if rows == len(raw) else first
    by_id = {name: own[start + place].astype(np.float64) for place, name in enumerate(raw)}
    with torch.no_grad():
        vectors = served.vectors(torch.from_numpy(items.index(raw)))
        best, scores = served.similar(torch.from_numpy(items.index(raw)), torch.ones(6, dtype=torch.bool))
    np.testing.assert_array_equal(vectors, own[start : start + 5])
    for name, found, values in zip(raw, best.tolist(), scores.tolist(), strict=True):
        cosines = {
            other: by_id[name] @ vector / np.linalg.norm(by_id[name]) / np.linalg.norm(vector)
            for other, vector in by_id.items()
            if other != name
        }
        assert items.raw(found[:4]) == sorted(cosines, key=lambda other: -cosines[other])
        np.testing.assert_allclose(values[:4], sorted(cosines.values(), reverse=True), rtol=0, atol=ROUNDING)
        assert values[4] == NO_ITEM


# --- models without a table


@pytest.mark.usefixtures("quick")
def test_a_model_that_scores_by_a_head_has_no_graphs_of_items_and_says_so(tmp_path: Path) -> None:
    net = Recent().eval()
    head = nn.Linear(12, 32)
    head.weight = net.items.weight
    nn.init.zeros_(head.bias)  # the scores are those of the table
    exported = export_recent(tmp_path / "store", net=net, item_vectors=None, score=head)
    manifest = exported.manifest
    assert list(manifest.graphs) == ["recommend", "score", "encode"]
    assert not {"item_vectors", "similar"} & set(manifest.capabilities)
    recommender = Recommender.load(exported.path, device="cpu", threads=1)
    with pytest.raises(Unsupported, match=r"no graph 'similar'; it has encode, recommend, score$"):
        recommender.similar([3])
    with pytest.raises(Unsupported, match=r"no graph 'item_vectors'; it has encode, recommend, score$"):
        recommender.item_vectors()
    assert len(recommender.recommend([[3]], k=31).items[0]) == 30  # of 31, the history's own left out


@pytest.mark.usefixtures("quick")
def test_a_model_that_scores_by_a_table_offers_them(tmp_path: Path) -> None:
    manifest = export_recent(tmp_path / "store").manifest
    assert list(manifest.graphs) == ["recommend", "score", "encode", "item_vectors", "similar"]
    assert {"item_vectors", "similar"} <= set(manifest.capabilities)
