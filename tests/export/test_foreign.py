"""From a model's own numbering to the catalogue's: every way to number, and what is refused."""

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.histories import ItemIds
from genrec_export.foreign import catalogue_of, module_of, serving_of

ITEM_IDS = ["pear", "fig", "kiwi", "apple", "lime"]  # in the model's order, which is not theirs
V, D, L = len(ITEM_IDS), 3, 4


class Net(nn.Module):
    """States from the newest two items; scores by a table, or by a head with a bias."""

    def __init__(self, tokens: int, columns: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.items = nn.Embedding(tokens, D)
        self.head = nn.Linear(D, columns)

    def forward(self, items: Tensor) -> Tensor:
        x = self.items(items)
        return torch.tanh(x[:, -1] + 0.5 * x[:, -2])

    def state(self, items: Tensor) -> Tensor:
        return self(items)


def serving(encode: Any, item_ids: Sequence[str] = ITEM_IDS, **options: Any) -> Any:
    arguments: dict[str, Any] = {
        "item_vectors": None,
        "score": None,
        "first_item": 1,
        "pad_index": 0,
        "max_seq_length": L,
        "k_max": 9,
    }
    arguments |= options
    vectors, score = arguments.pop("item_vectors"), arguments.pop("score")
    return serving_of(encode, vectors, score, item_ids, ItemIds(item_ids), **arguments)


NUMBERINGS = {  # first item, padding, tokens read, rows that score
    "default": (1, 0, V + 1, V + 1),
    "a mask token after padding": (2, 0, V + 2, V + 2),
    "a mask token at the end": (1, 0, V + 2, V + 2),
    "padding last": (0, V, V + 1, V + 1),
    "padding last, rows for items only": (0, V, V + 1, V),
    "rows for items only": (1, 0, V + 1, V),
}


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("by", ["vectors", "head"])
@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_every_numbering_gives_each_raw_id_its_own_score(numbering: str, by: str, order: str) -> None:
    first, padding, tokens, rows = NUMBERINGS[numbering]
    item_ids = sorted(ITEM_IDS) if order == "sorted" else ITEM_IDS
    net = Net(tokens, rows)
    table = nn.Parameter(torch.randn(rows, D))
    made = serving(
        net.state,
        item_ids,
        item_vectors=table if by == "vectors" else None,
        score=net.head if by == "head" else None,
        first_item=first,
        pad_index=padding,
    )
    items = ItemIds(item_ids)
    history = ["kiwi", "apple", "fig"]
    served = made.scores(made.encode(torch.tensor([[0, *items.index(history).tolist()]])))[0]

    own = torch.tensor([[padding, *(first + item_ids.index(item) for item in history)]])
    state = net(own)
    scores = (state @ table.T if by == "vectors" else net.head(state))[0]
    start = 0 if rows == V else first
    for place, raw in enumerate(item_ids):
        torch.testing.assert_close(served[items.index([raw])[0]], scores[start + place])


def test_a_table_in_the_catalogues_order_is_shared_with_the_model() -> None:
    net = Net(V + 1, V + 1)
    made = serving(net, sorted(ITEM_IDS), item_vectors=net.items.weight)
    assert made.table is net.items.weight
    assert (made.to_model, made.to_column) == (None, None)


def test_lists_are_no_longer_than_the_catalogue() -> None:
    net = Net(V + 1, V + 1)
    assert serving(net, item_vectors=net.items.weight, k_max=9).k == V
    assert serving(net, item_vectors=net.items.weight, k_max=2).k == 2


NET = Net(V + 1, V + 1)


class Wide(Net):
    def forward(self, items: Tensor) -> Tensor:
        return self.items(items)  # (B, L, D)


class Double(Net):
    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items).double()


@pytest.mark.parametrize(
    ("encode", "options", "message"),
    [
        (NET, {}, "item_vectors or score, one of them"),
        (NET, {"item_vectors": NET.items.weight, "score": NET.head}, "item_vectors or score, one of them"),
        (NET, {"item_vectors": NET.items.weight, "pad_index": 3}, r"pad_index \(3\) is an item's number: .* 1\.\.5"),
        (NET, {"item_vectors": NET.items.weight, "pad_index": -1}, r"pad_index \(-1\) must not be negative"),
        (NET, {"item_vectors": torch.ones(V - 1, D)}, "item_vectors has 4 rows, too few for 5 items from row 1 on"),
        (
            Net(V + 2, V),
            {"item_vectors": torch.ones(V + 1, D), "first_item": 2},
            "6 rows, too few for 5 items from row 2 on",
        ),
        (NET, {"item_vectors": torch.ones(V, D + 1)}, r"shape \(rows, 3\), as wide as the states.*\(5, 4\)"),
        (NET, {"item_vectors": torch.ones(V, D).half()}, "float32.*got torch.float16"),
        (NET, {"score": nn.Linear(D, V - 1)}, "score has 4 rows, too few"),
        (NET, {"score": lambda states: states}, "score must be a torch module or a method of one, got .*lambda"),
        (Wide(V + 1, V), {"item_vectors": NET.items.weight}, r"encode must give float32 of two axes.*\(2, 4, 3\)"),
        (Double(V + 1, V), {"item_vectors": NET.items.weight}, "encode must give float32.*torch.float64"),
        (Net(V + 1, V).to("meta"), {"item_vectors": NET.items.weight}, r"lies on meta; .* model\.cpu\(\)"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(encode: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        serving(encode, **options)


def test_a_function_is_refused_since_its_weights_would_not_be_found() -> None:
    with pytest.raises(ValueError, match=r"encode must be a torch module or a method of one, got .*lambda.*; wrap it"):
        module_of(lambda items: items, "encode")


class Fruit(enum.StrEnum):
    FIG = "fig"


def test_the_catalogue_counts_popularity_where_none_is_given() -> None:
    catalogue = catalogue_of(ITEM_IDS, [["fig", "lime"], ["fig", "unknown"], [Fruit.FIG]], None, {"fig": "A fig"})
    assert catalogue.items.raw(catalogue.cold_start) == ["fig", "lime", "apple", "kiwi", "pear"]  # ties by index
    assert catalogue.titles == ("apple", "A fig", "kiwi", "lime", "pear")


@pytest.mark.parametrize(
    ("item_ids", "cold_start", "message"),
    [
        ([*ITEM_IDS, "fig"], None, "item id 'fig' occurs twice"),
        (ITEM_IDS, ["fig"], "cold_start must hold each of the 5 items once"),
        (ITEM_IDS, ["fig", "fig", "kiwi", "apple", "lime"], "cold_start must hold each"),
        (ITEM_IDS, ["fig", "plum", "kiwi", "apple", "lime"], "cold_start must hold each of the 5 items once"),
    ],
)
def test_a_catalogue_that_is_none_is_refused(item_ids: list[str], cold_start: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalogue_of(item_ids, [], cold_start, None)


def test_integer_ids_of_arrays_are_numbered() -> None:
    catalogue = catalogue_of(np.array([30, 10, 20]), [[10, 10]], None, None)  # type: ignore[arg-type]  # wrong on purpose
    assert catalogue.items.all() == [10, 20, 30]
    assert catalogue.items.raw(catalogue.cold_start) == [10, 20, 30]
