"""Requests as a recommender understands them: each is checked by itself, then many are answered by one call."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from genrec.histories import RawId
from genrec_runtime.answers import Status
from genrec_runtime.errors import GenrecError, Unsupported
from genrec_runtime.reading import Reader
from genrec_runtime.recommender import Recommender
from genrec_runtime.requests import flag, list_length

_readers: weakref.WeakKeyDictionary[Recommender, Reader] = weakref.WeakKeyDictionary()  # one each: it warns once
IDS_A_ROW = 1024  # a row with more ids counts as several, so that rows bound memory


@dataclass(frozen=True, eq=False)
class Query:
    """One request of one or more rows; each field is the argument of that name of ``Recommender.recommend``.

    Attributes:
        histories: per row raw ids, oldest first.
        k: how many items a row.
        exclude: per row raw ids not to be recommended.
        candidates: per row the raw ids to choose from.
        timestamps: per row the times of the history, in whole seconds.
        request_time: per row when the answer is wanted, in whole seconds.
        users: per row a raw id.
        exclude_seen: leave out what the history holds.
        on_unknown: "drop" or "error".
        titles: whether the answer has titles beside the ids.
    """

    histories: Sequence[Sequence[Any]]
    k: Any = None
    exclude: Sequence[Sequence[Any]] | None = None
    candidates: Sequence[Sequence[Any]] | None = None
    timestamps: Sequence[Sequence[Any]] | None = None
    request_time: Sequence[Any] | None = None
    users: Sequence[Any] | None = None
    exclude_seen: Any = None
    on_unknown: Any = None
    titles: bool = False


@dataclass(frozen=True, eq=False)
class Checked:
    """A query that a bundle can answer.

    Attributes:
        query: the request.
        digest: of the bundle that it was checked against.
        k: how many items a row, at most the catalogue.
        given: how many ids the histories have.
        unknown: per row how many of them that catalogue lacks.
    """

    query: Query
    digest: str
    k: int
    given: int
    unknown: list[int]

    @property
    def key(self) -> Hashable:
        """What queries must have in common to be answered by one call; ``k`` need not be."""
        query = self.query
        return query.exclude_seen, query.on_unknown, query.candidates is None, query.timestamps is None


@dataclass(frozen=True, eq=False)
class Answer:
    """What one query gets.

    Attributes:
        items: per row raw ids, best first.
        scores: per row their scores.
        status: per row, as of ``Recommendations``.
        given: how many ids the histories had.
        unknown: per row how many of them the catalogue lacks.
        titles: per row the items' titles, where asked for.
        k: how many items a row could have had.
        version: of the bundle that answered.
    """

    items: list[list[RawId]]
    scores: list[list[float]]
    status: list[Status]
    given: int
    unknown: list[int]
    titles: list[list[str]] | None
    k: int
    version: str


def weight(query: Query) -> int:
    """How many rows a query counts in a queue: one a row, and one more for every ``IDS_A_ROW`` ids of it; at least 1.

    >>> weight(Query([["a"], ["b"] * 2048])), weight(Query([]))
    (4, 1)
    """
    rows = max(1, len(query.histories))
    for ids in (query.histories, query.exclude, query.candidates):
        rows += sum(len(row) // IDS_A_ROW for row in ids or ())
    return rows


def check(recommender: Recommender, query: Query) -> Checked:
    """Does what ``recommend`` does before it computes, so that a bad request fails before it joins others.

    Raises:
        InputError: if a row, an id or an option is not usable; the message names it.
        Unsupported: if the bundle has no use for an argument.
    """
    reader = _readers.get(recommender)
    if reader is None:
        reader = _readers.setdefault(recommender, Reader(recommender.catalogue, recommender.manifest))
    if query.candidates is not None and "score" not in recommender.manifest.graphs:
        raise Unsupported("this bundle takes no candidates: it has no graph 'score'")
    k = recommender.manifest.defaults.k if query.k is None else query.k
    k = list_length(k, recommender.semantics, limited=query.candidates is None)
    if query.exclude_seen is not None:
        flag(query.exclude_seen, "exclude_seen")
    further = {"users": query.users, "timestamps": query.timestamps, "request_time": query.request_time}
    numbered, _ = reader.histories(query.histories, query.on_unknown, further)
    for field, rows in (("exclude", query.exclude), ("candidates", query.candidates)):
        if rows is not None:
            reader.rows(rows, field, len(numbered.given))
    unknown = (numbered.given - numbered.known.lengths).tolist()
    return Checked(query, recommender.digest, k, int(numbered.given.sum()), unknown)


def answer(recommender: Recommender, queries: Sequence[Checked]) -> list[Answer | Exception]:
    """Answers queries of one ``key`` by one call; each as it would be answered alone.

    Args:
        recommender: need not be what they were checked against, if bundles were swapped meanwhile: then they are checked anew.
        queries: at least one.

    Returns:
        For each its answer, or the error of a query that this bundle cannot answer.

    Raises:
        GenrecError: if the call fails.
    """
    outcomes: list[Any] = [_checked_by(recommender, query) for query in queries]
    usable = [outcome for outcome in outcomes if isinstance(outcome, Checked)]
    if usable:
        answers = iter(_answer(recommender, usable))
        outcomes = [next(answers) if isinstance(outcome, Checked) else outcome for outcome in outcomes]
    return outcomes


def _checked_by(recommender: Recommender, checked: Checked) -> Checked | Exception:
    if checked.digest == recommender.digest:
        return checked
    try:
        return check(recommender, checked.query)
    except GenrecError as error:
        return error


def _answer(recommender: Recommender, queries: list[Checked]) -> list[Answer]:
    first = queries[0].query
    found = recommender.recommend(
        _joined(queries, lambda query: query.histories),
        k=max(query.k for query in queries),
        users=_given(_joined(queries, lambda query: query.users)),
        timestamps=None if first.timestamps is None else _joined(queries, lambda query: query.timestamps),
        request_time=_given(_joined(queries, lambda query: query.request_time)),
        exclude=_rows(_joined(queries, lambda query: query.exclude)),
        candidates=None if first.candidates is None else _joined(queries, lambda query: query.candidates),
        exclude_seen=first.exclude_seen,
        on_unknown=first.on_unknown,
    )
    answers, row = [], 0
    for query in queries:
        rows, k = range(row, row + len(query.unknown)), query.k
        row = rows.stop
        items = [found.items[row][:k] for row in rows]
        scores = [found.scores[row][:k].tolist() for row in rows]
        titles = [_titles(recommender, listed) for listed in items] if query.query.titles else None
        status = found.status[rows.start : rows.stop]
        version = recommender.manifest.version
        answers.append(Answer(items, scores, status, query.given, query.unknown, titles, k, version))
    return answers


def _joined(queries: list[Checked], pick: Callable[[Query], Sequence[Any] | None]) -> list[Any]:
    """One argument of all queries, None for every row of those that leave it out."""
    joined: list[Any] = []
    for query in queries:
        rows = pick(query.query)
        joined.extend([None] * len(query.unknown) if rows is None else rows)
    return joined


def _given(values: list[Any]) -> list[Any] | None:
    """An argument, or None where no row has any."""
    return None if all(value is None for value in values) else values


def _rows(rows: list[Any]) -> list[Any] | None:
    """Rows of ids, or None where none has any."""
    return [[] if row is None else row for row in rows] if any(row is not None for row in rows) else None


def _titles(recommender: Recommender, items: list[RawId]) -> list[str]:
    catalogue = recommender.catalogue
    return [catalogue.title(index) for index in catalogue.items.index(items).tolist()]


def with_text_ids(query: Query, kind: str) -> Query:
    """A query whose ids are all texts, as the catalogue has them; what is no whole number stays text, and is unknown to ints."""
    if kind != "int":
        return query

    def rows(given: Sequence[Sequence[Any]] | None) -> list[list[Any]] | None:
        return None if given is None else [[_number(value) for value in row] for row in given]

    return dataclasses.replace(
        query, histories=rows(query.histories) or [], exclude=rows(query.exclude), candidates=rows(query.candidates)
    )


def _number(value: Any) -> Any:
    return (
        int(value)
        if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdecimal() and len(value) < 21
        else value
    )
