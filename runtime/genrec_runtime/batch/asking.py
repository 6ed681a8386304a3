"""Asking for many rows at once, and setting aside those that cannot be answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from genrec_runtime.answers import Recommendations
from genrec_runtime.errors import GenrecError, InputError

OF_SOME_ROW = ("non_finite_scores", "too_large")  # codes of errors that one row can cause and that do not say which
ARGUMENTS = "histories|timestamps|request_time|users|exclude"


@dataclass(frozen=True)
class Answered:
    """An answer and the places of its rows."""

    places: list[int]
    answer: Recommendations


@dataclass(frozen=True)
class Refused:
    """A row that cannot be answered, by its place, and why."""

    place: int
    code: str
    reason: str


def ask(recommend: Callable[[list[int]], Recommendations], places: list[int]) -> Iterator[Answered | Refused]:
    """Asks until every row is answered or refused: rows at fault are taken out, the others asked for again.

    Args:
        recommend: answers the rows of some places.
        places: the rows.

    Yields:
        Answers in the order of the places, and refusals among them.

    Raises:
        GenrecError: if it is no row's fault.
    """
    while True:
        try:
            answer = recommend(places)
        except GenrecError as error:
            row = error.row if isinstance(error, InputError) else None
            if row is None and error.code in OF_SOME_ROW:
                row = 0 if len(places) == 1 else None
            elif row is None:
                raise
            failure, reason = error, _reason(error)
        else:
            yield Answered(places, answer)
            return
        if row is None:
            half = len(places) // 2
            yield from ask(recommend, places[:half])
            yield from ask(recommend, places[half:])
            return
        yield Refused(places[row], failure.code, reason)
        places = places[:row] + places[row + 1 :]


def _reason(error: GenrecError) -> str:
    """The message without the row's number, which is that of a call and means nothing to a reader."""
    row = error.row if isinstance(error, InputError) else None
    return str(error) if row is None else re.sub(rf"\b({ARGUMENTS})\[{row}\]", r"\1", str(error))
