from collections.abc import Callable

import numpy as np
import pytest

from genrec_runtime import GenrecError, InferenceError, InputError, Recommendations
from genrec_runtime.batch.asking import Answered, Refused, ask


def recommender(
    bad: set[int], calls: list[list[int]], code: str | None = None
) -> Callable[[list[int]], Recommendations]:
    """Answers each place with itself; a bad one fails its whole call, which says whose fault it is unless it has a code."""

    def recommend(places: list[int]) -> Recommendations:
        calls.append(places)
        at_fault = [row for row, place in enumerate(places) if place in bad]
        if at_fault and code is not None:
            raise InferenceError("no numbers", code=code)
        if at_fault:
            row = at_fault[0]
            raise InputError(f"exclude[{row}] is bad, unlike histories[{row}] and exclude[77]", code="shape", row=row)
        return Recommendations(
            [[p] for p in places], [np.ones(1, np.float32)] * len(places), ["model"] * len(places), 0
        )

    return recommend


def test_rows_that_an_error_names_are_taken_out_and_the_others_answered() -> None:
    calls: list[list[int]] = []
    found = list(ask(recommender({1, 4}, calls), [0, 1, 2, 3, 4, 5]))
    reason = "exclude is bad, unlike histories and exclude[77]"
    assert found[:-1] == [Refused(1, "shape", reason), Refused(4, "shape", reason)]
    assert isinstance(found[-1], Answered)
    assert found[-1].places == [place for (place,) in found[-1].answer.items] == [0, 2, 3, 5]
    assert len(calls) == 3  # all, without 1, without 4


@pytest.mark.parametrize("code", ["non_finite_scores", "too_large"])
def test_a_row_that_no_error_names_is_found_by_halves(code: str) -> None:
    found = list(ask(recommender({2}, [], code), [0, 1, 2, 3, 4]))
    assert [one for one in found if isinstance(one, Refused)] == [Refused(2, code, "no numbers")]
    assert [place for one in found if isinstance(one, Answered) for place in one.places] == [0, 1, 3, 4]


def test_all_rows_may_be_refused() -> None:
    found = list(ask(recommender({0, 1, 2}, [], "non_finite_scores"), [0, 1, 2]))
    assert [one.place for one in found if isinstance(one, Refused)] == [0, 1, 2]
    assert sum(len(one.answer) for one in found if isinstance(one, Answered)) == 0


@pytest.mark.parametrize("error", [InferenceError("lost", code="device_lost"), InputError("k is 0", code="k")])
def test_what_is_no_rows_fault_ends_the_asking(error: GenrecError) -> None:
    def fail(places: list[int]) -> Recommendations:
        raise error

    with pytest.raises(type(error), match=str(error)):
        list(ask(fail, [0, 1]))
