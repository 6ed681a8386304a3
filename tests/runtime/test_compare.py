import numpy as np
import pytest

from genrec_runtime.compare import Difference, compare_lists, compare_values
from genrec_runtime.manifest import Tolerance

TOLERANCE = Tolerance(atol=0.01, rtol=0.001)
EXACT = Tolerance(atol=0.0, rtol=0.0)
NONE = -np.inf


def lists(a: list[tuple[int, float]], b: list[tuple[int, float]], tolerance: Tolerance = TOLERANCE) -> Difference:
    """compare_lists of one row each, given as (item, score) pairs."""
    items_a, scores_a = (np.array([part]) for part in zip(*a, strict=True))
    items_b, scores_b = (np.array([part]) for part in zip(*b, strict=True))
    return compare_lists(items_a, scores_a, items_b, scores_b, tolerance)


def test_the_tolerance_grows_with_the_rows_largest_score() -> None:
    reference = np.array([[1.0, -100.0], [1.0, 2.0]])
    allowed = 0.01 + 0.001 * 100  # of the first row
    difference = compare_values(reference + np.array([[0.1, 0.0], [0.0, 0.0]]), reference, TOLERANCE)
    assert difference.excess == pytest.approx(0.1 / allowed)
    assert difference.same
    difference = compare_values(reference + np.array([[0.0, 0.0], [0.1, 0.0]]), reference, TOLERANCE)
    assert difference.excess == pytest.approx(0.1 / (0.01 + 0.001 * 2))
    assert (difference.row, difference.same) == (1, False)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([NONE, 1.0], [NONE, 1.0], True),
        ([NONE, 1.0], [0.0, 1.0], False),
        ([np.nan, 1.0], [np.nan, 1.0], False),
        ([np.nan, 1.0], [0.0, 1.0], False),
        ([np.inf, 1.0], [np.inf, 1.0], True),
        ([np.inf, 1.0], [NONE, 1.0], False),
    ],
)
def test_what_is_not_finite_must_be_equal_and_nan_equals_nothing(a: list[float], b: list[float], same: bool) -> None:
    difference = compare_values(np.array([a]), np.array([b]), TOLERANCE)
    assert difference.same == same
    assert difference.error == (0.0 if same else np.inf)


def test_integers_must_be_equal() -> None:
    assert compare_values(np.array([[1, 2]]), np.array([[1, 2]]), TOLERANCE).same
    assert not compare_values(np.array([[1, 2]]), np.array([[1, 3]]), Tolerance(9.0, 9.0)).same


def test_no_entries_are_the_same_and_other_shapes_an_error() -> None:
    assert compare_values(np.zeros((0, 3)), np.zeros((0, 3)), EXACT) == Difference(0.0, 0.0, -1)
    with pytest.raises(ValueError, match=r"the shapes \(1, 2\) and \(2, 1\) differ"):
        compare_values(np.zeros((1, 2)), np.zeros((2, 1)), EXACT)


def test_lists_may_swap_what_scores_alike_and_nothing_else() -> None:
    assert lists([(1, 5.0), (2, 5.001)], [(2, 5.0), (1, 5.001)]).same
    assert not lists([(1, 5.0), (2, 4.0)], [(2, 5.0), (1, 4.0)]).same


def test_the_last_places_may_hold_different_items_that_score_alike() -> None:
    assert lists([(1, 5.0), (2, 4.0)], [(1, 5.0), (3, 4.001)]).same
    assert not lists([(1, 5.0), (2, 4.0)], [(3, 5.0), (2, 4.0)]).same


def test_an_item_twice_is_never_the_same() -> None:
    assert lists([(1, 5.0), (1, 4.999)], [(1, 5.0), (2, 4.999)]).error == np.inf


def test_what_is_masked_is_no_answer() -> None:
    assert lists([(1, 5.0), (7, NONE)], [(1, 5.0), (9, NONE)]).same
    assert not lists([(1, 5.0), (7, NONE)], [(1, 5.0), (9, 5.0)]).same


def test_lists_without_tolerance_must_agree_exactly() -> None:
    assert lists([(1, 5.0), (2, 4.0)], [(1, 5.0), (2, 4.0)], EXACT).same
    assert lists([(1, 0.0), (2, 0.0)], [(2, 0.0), (1, 0.0)], EXACT).same
    assert not lists([(1, 0.0), (2, 0.0)], [(1, 0.0), (2, -1e-9)], EXACT).same
