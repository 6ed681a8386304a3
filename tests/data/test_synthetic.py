"""The embedded shop and its ceiling."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import genrec.data
from genrec.data import Interactions, SequenceData, Shop, Split, leave_one_out, load_data, make_shop, write_split
from genrec.data.synthetic import CATEGORIES
from genrec.histories import Ragged

K = 10


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop()


def scores_of(ranks: Any) -> tuple[float, float]:
    """Recall@10 and NDCG@10."""
    hits = ranks <= K
    return float(hits.mean()), float(np.where(hits, 1 / np.log2(ranks + 1), 0).mean())


def popularity_ranks(split: Split) -> list[int]:
    order = split.catalogue().cold_start
    told = zip(split.histories(split.test).rows(), split.targets(split.test), strict=True)
    return [int(np.flatnonzero(order[~np.isin(order, seen)] == target)[0]) + 1 for seen, target in told]


def test_the_ceiling_is_what_the_oracle_scores(shop: Shop) -> None:
    ceiling = shop.ceiling()
    recall, ndcg = scores_of(shop.oracle_ranks())
    assert abs(recall - ceiling.recall) < 2 * ceiling.recall_error
    assert abs(ndcg - ceiling.ndcg) < 2 * ceiling.ndcg_error


def test_the_errors_are_how_far_oracles_scatter() -> None:
    """Over many small shops the oracle's distance from the ceiling, in errors, has a mean of 0 and a deviation of 1."""
    distances = []
    for seed in range(60):
        small = make_shop(users=60, seed=seed)
        ceiling, (recall, ndcg) = small.ceiling(), scores_of(small.oracle_ranks())
        distances.append([(recall - ceiling.recall) / ceiling.recall_error, (ndcg - ceiling.ndcg) / ceiling.ndcg_error])
    mean, deviation = np.mean(distances, axis=0), np.std(distances, axis=0)
    assert np.all(np.abs(mean) < 4 / np.sqrt(60))  # four standard errors of the mean
    assert np.all(np.abs(deviation - 1) < 4 / np.sqrt(2 * 60))  # and of the deviation


def test_the_ceiling_agrees_with_the_formula_where_nothing_was_bought_twice() -> None:
    """Ten items of the expected category and hardly any seen: p + (1 - p) / 20 is found, ranks 1 to 10 are alike."""
    ceiling = make_shop(items=200, events=(3, 3), p=0.8).ceiling()
    share = 0.8 + 0.2 / 20
    gain = np.mean(1 / np.log2(np.arange(2, 12)))
    assert abs(ceiling.recall - share) < 0.01  # two of 200 items seen
    assert abs(ceiling.ndcg - share * gain) < 0.01


def test_popularity_is_far_below_the_ceiling(shop: Shop) -> None:
    recall, ndcg = scores_of(np.array(popularity_ranks(leave_one_out(shop.data))))
    assert recall < 0.1 < 0.7 < shop.ceiling().recall
    assert ndcg < 0.05 < 0.3 < shop.ceiling().ndcg


def test_the_true_distribution_follows_the_category_two_steps_back(shop: Shop) -> None:
    first, second = (int(np.flatnonzero(shop.category == kind)[0]) for kind in (4, 9))
    chances = shop.next_item(Ragged.from_rows([[first, second], [second], []]))
    expected = (shop.category == shop.successor[4]) & ~np.isin(np.arange(201), [first, second])
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert set(np.flatnonzero(chances[0] == chances[0].max())) == set(np.flatnonzero(expected))
    assert chances[0][first] == chances[0][second] == chances[0][0] == 0
    assert chances[0].max() / chances[0][chances[0] > 0].min() == pytest.approx(1 + 20 * 0.8 / 0.2)
    assert set(np.round(chances[1], 12)) == {0, round(1 / 199, 12)}  # too short a history: anything unseen
    assert set(np.round(chances[2], 12)) == {0, round(1 / 200, 12)}


def test_the_shop_is_as_described(shop: Shop) -> None:
    lengths = shop.data.events.lengths
    assert (len(shop.data.user_ids), len(shop.data.items)) == (3000, 200)
    assert (lengths.min(), lengths.max()) == (20, 30)
    assert all(len(set(row.tolist())) == len(row) for row in shop.data.events.rows())  # nothing bought twice
    assert shop.data.titles is not None
    assert all(re.fullmatch(r"[A-Z][a-z]+( [a-z]+)? ([1-9]|10)", title) for title in shop.data.titles)
    assert len(set(shop.data.titles)) == 200
    assert shop.data.times is not None
    starts = shop.data.events.offsets[1:-1]
    assert np.delete(np.diff(shop.data.times), starts - 1).min() > 0


def test_equal_seeds_give_equal_shops(shop: Shop) -> None:
    assert make_shop().data.content_hash == shop.data.content_hash != make_shop(seed=1).data.content_hash


def test_quickstart_is_the_shop(shop: Shop) -> None:
    data = load_data("quickstart")
    assert data.content_hash == shop.data.content_hash
    assert data.titles == shop.data.titles
    assert data.filters == {"events_read": len(shop.data.events.values), "dedup": "first", "k_core": 0}
    assert shop.ceiling(leave_one_out(data)) == shop.ceiling()


def test_the_ceiling_is_of_this_shops_data_only(shop: Shop) -> None:
    other = leave_one_out(make_shop(users=50).data)
    with pytest.raises(ValueError, match="split must be of this shop's own data"):
        shop.ceiling(other)


def test_items_that_nobody_bought_are_left_out() -> None:
    small = make_shop(users=9, seed=5)
    assert len(small.data.items) < 200
    assert small.data.titles is not None
    kinds = [CATEGORIES[kind] for kind in small.category[1:]]
    assert [title.rpartition(" ")[0] for title in small.data.titles] == kinds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": 1}, r"users \(1\) must be at least 2"),
        ({"categories": 21}, r"categories \(21\) must lie in 2\.\.20"),
        ({"items": 201}, r"items \(201\) must be a multiple of categories \(20\)"),
        ({"p": 1.0}, r"p \(1.0\) must be at least 0 and less than 1"),
        ({"lag": 0}, r"lag \(0\) must be at least 1"),
        ({"events": (5, 200)}, r"events \(5, 200\) must rise"),
    ],
)
def test_faulty_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_shop(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_data("quickstart", min_rating=3), "min_rating=3 needs ratings"),
        (lambda: load_data("quickstart", user_col="x"), "user_col: the columns of 'quickstart' are known"),
    ],
)
def test_options_for_files_are_refused(call: Callable[[], SequenceData], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_public_names_are_these() -> None:
    assert sorted(genrec.data.__all__) == genrec.data.__all__
    assert {Interactions, write_split} <= {getattr(genrec.data, name) for name in genrec.data.__all__}
