"""evaluate: equal to the formulas and to the static methods, whatever the ids are and whatever the lists come in."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.histories import Ragged
from genrec.metrics import RecommendationMetrics, evaluate, hits, lists

Rows = list[list[Any]]
METRICS = ["recall", "precision", "ndcg", "hit_rate", "mrr", "map"]
TOLERANCE = 1e-12  # of means of at most some hundred sums in float64, each wrong by 1e-16 a term
ONE_KIND = [
    st.integers(-4, 4),
    st.integers(2**63 - 4, 2**63 - 1),
    st.integers(2**63 - 3, 2**63 + 3),
    st.integers(2**64 - 4, 2**64 + 3),
    st.integers(2**53 - 2, 2**53 + 2),
    st.sampled_from([2**12, 2**13, 2**14, 2**40, 2**41, 3 * 2**40, 0]),
    st.sampled_from("abcdef"),
    st.sampled_from([1, True, 1.0, "1", (1, 2), None, 2**70, -1, 2, "b"]),
]


def formulas(top: list[Any], wanted: list[Any], k: int) -> dict[str, float]:
    """One user's metrics by the definitions, slowly; NaN where the user is left out."""
    relevant = set(wanted)
    found = [top[i] in relevant and top[i] not in top[:i] for i in range(min(k, len(top)))]
    ranks = [rank for rank, one in enumerate(found, start=1) if one]
    ideal = min(len(relevant), k)
    if not k or not relevant:
        return {metric: 0.0 if k == 0 < len(relevant) or metric == "precision" else math.nan for metric in METRICS}
    return {
        "recall": len(ranks) / len(relevant),
        "precision": len(ranks) / k,
        "ndcg": sum(1 / math.log2(r + 1) for r in ranks) / sum(1 / math.log2(r + 1) for r in range(1, ideal + 1)),
        "hit_rate": 1.0 if ranks else 0.0,
        "mrr": 1 / min(ranks) if ranks else 0.0,
        "map": sum(sum(found[:rank]) / rank for rank in ranks) / ideal,
    }


def slow(predictions: Rows, targets: Rows, ks: list[int]) -> dict[str, list[float]]:
    """Every user's metrics, in the order that is promised."""
    by_k = {k: [formulas(top, row, k) for top, row in zip(predictions, targets, strict=True)] for k in ks}
    return {f"{metric}@{k}": [one[metric] for one in by_k[k]] for metric in METRICS for k in ks}


def mean(values: list[float]) -> float:
    counted = [value for value in values if not math.isnan(value)]
    return sum(counted) / len(counted) if counted else 0.0


@st.composite
def users(draw: st.DrawFn) -> tuple[Rows, Rows]:
    ids = draw(st.sampled_from(ONE_KIND))
    pairs = st.tuples(st.lists(ids, max_size=7), st.lists(ids, max_size=draw(st.sampled_from([1, 5]))))
    drawn = draw(st.lists(pairs, max_size=7))
    return [pair[0] for pair in drawn], [pair[1] for pair in drawn]


def fits(rows: Rows, dtype: Any) -> bool:
    kind = np.iinfo(dtype)
    return all(type(one) is int and kind.min <= one <= kind.max for row in rows for one in row)


def in_arrays(rows: Rows, dtype: Any) -> Any:
    return [np.array(row, dtype=dtype) for row in rows] if fits(rows, dtype) else rows


# --- equal to the definitions


@given(users(), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
def test_it_equals_the_formulas_and_the_static_methods(lists: tuple[Rows, Rows], ks: list[int]) -> None:
    expected = slow(*lists, ks)
    found, per_user = evaluate(*lists, ks), evaluate(*lists, ks, per_user=True)
    assert list(found) == list(per_user) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(per_user[name], np.array(values, dtype=np.float64), rtol=TOLERANCE, atol=0)
        assert found[name] == pytest.approx(mean(values), rel=TOLERANCE)
        metric, _, k = name.partition("@")
        assert getattr(RecommendationMetrics, f"{metric}_at_k")(*lists, int(k)) == pytest.approx(
            mean(values), rel=TOLERANCE
        )
        assert 0 <= found[name] <= 1


@given(users(), st.sampled_from([np.int64, np.uint64, np.int8]), st.sampled_from([np.int64, np.uint64, np.int16]))
def test_arrays_of_any_two_types_give_what_lists_give(lists: tuple[Rows, Rows], top: Any, want: Any) -> None:
    arrays = in_arrays(lists[0], top), in_arrays(lists[1], want)
    assert evaluate(*arrays, [1, 3, 5]) == evaluate(*lists, [1, 3, 5])


@given(users(), st.integers(1, 3), st.integers(1, 4))
def test_narrow_filters_and_blocks_of_any_size_change_nothing(lists: tuple[Rows, Rows], bits: int, size: int) -> None:
    expected = evaluate(*lists, [2, 5])
    arrays = in_arrays(lists[0], np.int64), in_arrays(lists[1], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hits, "_bits", lambda _lengths: bits)  # most ids of a user then share a slot
        patch.setattr(hits, "_SLOTS", 8)
        patch.setattr("genrec.metrics.lists.BLOCK_USERS", size)
        assert evaluate(*arrays, [2, 5]) == expected
        assert evaluate(*lists, [2, 5]) == expected


@pytest.mark.parametrize("most", [1, 20, 3000], ids=["one target", "some targets", "thousands of targets"])
def test_it_equals_the_formulas_at_size(most: int) -> None:
    rng = np.random.default_rng(most)
    predictions = rng.integers(0, 600, (70, 50))  # with repetitions
    targets = [rng.integers(0, 600, rng.integers(1, most + 1)) for _ in range(70)]
    found = evaluate(predictions, targets, [5, 50])
    plain = predictions.tolist(), [row.tolist() for row in targets]
    for name, values in slow(*plain, [5, 50]).items():
        assert found[name] == pytest.approx(mean(values), rel=TOLERANCE)
    assert found == evaluate(*plain, [5, 50])
    assert max(found.values()) > 0


def test_by_hand() -> None:
    found = evaluate([[7, 3, 5, 9], [4, 4, 2]], [[9, 3, 1], [2]], [2, 4])
    assert found["recall@2"] == (1 / 3 + 0) / 2
    assert found["recall@4"] == pytest.approx((2 / 3 + 1) / 2, rel=1e-15)
    assert found["precision@4"] == (2 / 4 + 1 / 4) / 2
    assert found["hit_rate@2"] == 1 / 2
    assert found["mrr@4"] == pytest.approx((1 / 2 + 1 / 3) / 2, rel=1e-15)
    assert found["map@2"] == (1 / 2) / 2 / 2
    assert found["map@4"] == pytest.approx(((1 / 2 + 2 / 4) / 3 + 1 / 3) / 2, rel=1e-15)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    assert found["ndcg@4"] == pytest.approx((gained / ideal + 1 / math.log2(4)) / 2, rel=1e-15)


def test_a_perfect_list_has_an_ndcg_of_exactly_one_at_every_cut_off() -> None:
    ks = [1, 2, 3, 5, 8, 13, 21, 100]
    found = evaluate([list(range(40))], [list(range(40))], ks)
    assert [found[f"ndcg@{k}"] for k in ks] == [1.0] * len(ks)
    assert [found[f"map@{k}"] for k in ks] == [1.0] * len(ks)


# --- the definitions table, where a user's own value tells


@pytest.mark.parametrize("form", [list, np.array], ids=["lists", "arrays"])
def test_edge_cases_of_the_definitions(form: Callable[[Rows], Any]) -> None:
    cases = [
        ("a short list", [4, -1, -2, -3], [4, 8], {"precision@6": 1 / 6, "recall@6": 1 / 2, "map@6": 1 / 2}),
        ("a repeated prediction", [7, 7, 7, 3], [3, 7], {"recall@3": 1 / 2, "map@3": 1 / 2, "map@6": (1 + 2 / 4) / 2}),
        ("a repeated target", [7, 3, 1, 2], [7, 7], {"recall@3": 1.0, "ndcg@3": 1.0, "map@3": 1.0, "precision@3": 1 / 3}),
        ("more targets than k", [1, 2, 3, 4], [4, 3], {"map@0": 0.0, "recall@0": 0.0, "precision@0": 0.0, "mrr@6": 1 / 3}),
    ]  # fmt: skip
    found = evaluate(form([one[1] for one in cases]), form([one[2] for one in cases]), [0, 3, 6], per_user=True)
    for user, (what, _, _, expected) in enumerate(cases):
        assert {name: found[name][user] for name in expected} == pytest.approx(expected, rel=1e-15), what


@pytest.mark.parametrize("form", [list, lambda rows: [np.array(row) for row in rows]], ids=["lists", "arrays"])
def test_a_user_without_targets_has_no_value_but_in_precision(form: Callable[[Rows], Any]) -> None:
    found = evaluate(form([[1, 2], [3], []]), form([[1], [], [3]]), [2], per_user=True)
    assert {name: np.isnan(values).tolist() for name, values in found.items()} == {
        f"{metric}@2": [False, metric != "precision", False] for metric in METRICS
    }
    assert found["precision@2"].tolist() == [1 / 2, 0, 0]
    means = evaluate(form([[1, 2], [3], []]), form([[1], [], [3]]), [2])
    assert (means["precision@2"], means["recall@2"]) == ((1 / 2) / 3, 1 / 2)


def test_names_come_in_the_order_asked_for_and_once() -> None:
    assert list(evaluate([[1]], [[1]], (10, 1, 10))) == [f"{metric}@{k}" for metric in METRICS for k in (10, 1)]
    assert evaluate([[2, 1]], [[1]], [10, 1])["recall@1"] == 0
    assert evaluate([[2, 1]], [[1]], [10, 1])["precision@10"] == 1 / 10


@pytest.mark.parametrize("per_user", [False, True])
def test_no_users_give_zeros_or_nothing(per_user: bool) -> None:
    found = evaluate([], [], [3], per_user)
    assert all(np.shape(value) == ((0,) if per_user else ()) for value in found.values())
    assert per_user or set(found.values()) == {0.0}
    assert list(found) == [f"{metric}@3" for metric in METRICS]


# --- whatever the lists come in


def batches(rows: Rows, size: int, form: Callable[[Rows], Any] = list) -> Iterator[Any]:
    return (form(rows[start : start + size]) for start in range(0, len(rows), size))


def as_tensor(rows: list[Any]) -> Any:
    return pytest.importorskip("torch").tensor(rows)


FORMS: dict[str, Callable[[Rows], Any]] = {
    "array": np.array,
    "big-endian": lambda rows: np.array(rows, dtype=">i8"),
    "big-endian unsigned": lambda rows: np.array(rows, dtype=">u8"),
    "int32": lambda rows: np.array(rows, dtype=np.int32),
    "uint8": lambda rows: np.array(rows, dtype=np.uint8),
    "floats": lambda rows: np.array(rows, dtype=np.float64),
    "objects": lambda rows: np.array(rows, dtype=object),
    "Fortran order": lambda rows: np.asfortranarray(rows),
    "every other column": lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    "rows in an object array": lambda rows: np.array([*rows, None], dtype=object)[:-1],
    "Ragged": Ragged.from_rows,
    "tensor": as_tensor,
    "int32 tensor": lambda rows: as_tensor(rows).int(),
    "arrays": lambda rows: [np.array(row) for row in rows],
    "arrays of two types": lambda rows: [np.array(row, dtype=f"i{4 + i % 2 * 4}") for i, row in enumerate(rows)],
    "tensors": lambda rows: list(as_tensor(rows)),
    "scalar tensors": lambda rows: [list(row) for row in as_tensor(rows)],
    "numpy scalars": lambda rows: [list(row) for row in np.array(rows)],
    "tuples": lambda rows: tuple(map(tuple, rows)),
    "lists and arrays": lambda rows: [np.array(row) if i % 2 else row for i, row in enumerate(rows)],
    "generator of lists": lambda rows: (row for row in rows),
    "generator of generators": lambda rows: ((one for one in row) for row in rows),
    "generator of arrays": lambda rows: (np.array(row) for row in rows),
    "generator of array batches": lambda rows: batches(rows, 2, np.array),
    "generator of list batches": lambda rows: batches(rows, 2),
    "generator of Ragged batches": lambda rows: batches(rows, 1, Ragged.from_rows),
    "generator of batches of tensors": lambda rows: batches(rows, 2, lambda part: list(as_tensor(part))),
    "rows between batches": lambda rows: iter([rows[0], np.array(rows[1:])]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_one_answer(form: Callable[[Rows], Any]) -> None:
    predictions, targets, ks = [[1, 2, 3, 9], [6, 7, 8, 9], [4, 5, 6, 6]], [[1, 3], [7, 9], [3, 2]], [1, 3, 9]
    expected = evaluate(predictions, targets, ks)
    assert expected["recall@3"] == (1 + 1 / 2 + 0) / 3
    assert evaluate(form(predictions), form(targets), ks) == expected
    assert evaluate(form(predictions), targets, ks) == expected
    assert evaluate(predictions, form(targets), ks) == expected
    assert evaluate(form(predictions), np.array(targets), ks) == expected
    for metric in METRICS:
        one = getattr(RecommendationMetrics, f"{metric}_at_k")(form(predictions), form(targets), 3)
        assert one == pytest.approx(expected[f"{metric}@3"], rel=TOLERANCE)


def test_wide_numbers_of_two_signs_do_not_meet_as_bits_or_floats() -> None:
    unsigned, signed = np.array([[2**64 - 1, 2**63 + 1]], np.uint64), np.array([[-1, -(2**63) + 1]], np.int64)
    assert set(evaluate(unsigned, signed, [2]).values()) == {0.0}
    assert set(evaluate(signed, unsigned, [2]).values()) == {0.0}
    assert evaluate(unsigned, [[2**64 - 1, 2**63 + 1]], [2])["recall@2"] == 1.0
    assert evaluate(unsigned, unsigned.astype(">u8"), [2])["recall@2"] == 1.0
    assert evaluate(np.array([[2**53 + 1]], np.uint64), np.array([[2**53]]), [1])["recall@1"] == 0.0
    mixed = [np.array([2**53 + 1], np.uint64), np.array([-1])]
    assert evaluate(mixed, [np.array([2**53]), np.array([-1])], [1])["recall@1"] == 1 / 2


def test_numbers_are_not_read_out_of_texts_or_cut_off_fractions() -> None:
    assert evaluate(np.array([[1, 2]]), [["1", "2"]], [2])["recall@2"] == 0.0
    assert evaluate(np.array([[1, 2]]), [[1.5, 2.5]], [2])["recall@2"] == 0.0
    assert evaluate([[1, 2]], [[1.5, 2.0]], [2])["recall@2"] == 1 / 2
    assert evaluate(np.array([[1, 2]]), [list(as_tensor([1.5, 2.0]))], [2])["recall@2"] == 1 / 2


def test_a_stream_is_read_no_further_ahead_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "BLOCK_USERS", 3)
    read: list[int] = []

    def stream() -> Iterator[list[int]]:
        for user in range(20):
            read.append(user)
            yield [user]

    blocks = lists.paired_blocks(stream(), (np.full((2, 1), 1) for _ in range(10)))
    for _ in range(3):
        next(blocks)
    assert len(read) <= 3 * 3


def test_predictions_and_targets_may_be_cut_into_batches_differently() -> None:
    predictions, targets = [[i, i + 1] for i in range(11)], [[i + 1] for i in range(11)]
    expected = evaluate(predictions, targets, [1, 2])
    assert evaluate(batches(predictions, 3), batches(targets, 4, np.array), [1, 2]) == expected
    assert evaluate(batches(predictions, 5, np.array), targets, [1, 2]) == expected


# --- what is refused


def test_different_numbers_of_users_are_refused() -> None:
    with pytest.raises(ValueError, match="predictions are of 2 users but targets of 1"):
        evaluate(np.ones((2, 1), int), [[1]], [1])
    with pytest.raises(ValueError, match="targets end after 2 users but predictions go on"):
        evaluate(iter([[1], [2], [3]]), [[1], [2]], [1])
    with pytest.raises(ValueError, match="predictions end after 2 users but targets go on"):
        evaluate(batches([[1], [2]], 1, np.array), iter([[1], [2], [3]]), [1])


@pytest.mark.parametrize("per_user", [False, True])
def test_wrong_cut_offs_are_refused(per_user: bool) -> None:
    with pytest.raises(ValueError, match=r"k \(-1\) must not be negative"):
        evaluate([[1]], [[1]], [3, -1], per_user)
    with pytest.raises(ValueError, match="ks must hold at least one cut-off"):
        evaluate([[1]], [[1]], [], per_user)
    with pytest.raises(TypeError, match="float"):
        evaluate([[1]], [[1]], [1.0], per_user)  # type: ignore[list-item]  # the fault under test


@pytest.mark.parametrize("form", [list, iter], ids=["list", "stream"])
def test_rows_that_are_no_lists_are_refused_by_their_place(form: Callable[[list[Any]], Any]) -> None:
    with pytest.raises(TypeError, match=r"targets\[1\] must be a list of ids, got 7"):
        evaluate([[1], [2]], form([[1], 7]), [1])
    with pytest.raises(TypeError, match=r"predictions\[0\] must be a list of ids, got 'abc'"):
        evaluate(form(["abc"]), [["a"]], [1])
    with pytest.raises(TypeError, match=r"predictions\[1\] must go from best to worst, but a set has no order"):
        evaluate(form([[1], {1, 2}]), [[1], [1]], [1])
    with pytest.raises(ValueError, match=r"predictions must have two axes, users and places, not shape \(3,\)"):
        evaluate(np.arange(3), [[1]] * 3, [1])
    with pytest.raises(ValueError, match=r"targets\[1\] must have one axis, not shape \(1, 2\)"):
        evaluate([[1], [2]], [[1], np.ones((1, 2))], [1])
