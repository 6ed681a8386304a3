"""How far a mean over users can be trusted: bootstrap intervals, a paired test, and Holm's correction for many tests.

All random numbers come from ``seed``, so a result can be had again. Users with equal rows of values are drawn together,
which changes no probability: with one target a user there are only a few distinct rows, and ten million users cost little
more than a thousand. The time grows with the number of distinct rows times ``resamples``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 10_000  # what Hesterberg 2015 asks for where the ends of an interval are to be quoted
_BLOCK = 1 << 21  # numbers drawn at once: 16 MiB an array


class PairedDifference(NamedTuple):
    """How two models differ on the same users; arrays of one entry a metric, or plain numbers for one metric.

    Attributes:
        mean: mean of a user's value in the first minus that in the second.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p-value of "the two are alike", in (0, 1].
    """

    mean: Floats
    low: Floats
    high: Floats
    p: Floats


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Floats, Floats]:
    """The percentile bootstrap interval of a mean over users (Efron 1979; Efron and Tibshirani 1993, chapter 13).

    Users are drawn with replacement, as many as there are, and the middle ``confidence`` of the means of all draws is
    the interval. Below some 30 users it is a little too short. It speaks of other users for the same trained model, not
    of other trainings.

    Args:
        values: (U,) of one metric or (M, U) of many, which are then measured on the same draws; NaN leaves that user out
            of that metric.
        confidence: the share of such intervals that hold the true mean, between 0 and 1.
        resamples: how many draws; the ends waver less with more.
        seed: of the draws.

    Returns:
        The lower and the upper ends, numbers for (U,) and arrays (M,) for (M, U).

    Raises:
        ValueError: if a metric has fewer than two users, or an argument is out of its range.

    The mean of two users with 0 and 1 is 0 in a quarter of the draws, and 1 in another:

    >>> low, high = bootstrap_interval([0.0, 1.0], confidence=0.9)
    >>> float(low), float(high)
    (0.0, 1.0)
    """
    table, shape = _table(values)
    _check(table, confidence, resamples)
    tail = (1 - confidence) / 2
    means = _resampled_means(table, resamples, np.random.default_rng(seed))
    low, high = np.nanquantile(means, [tail, 1 - tail], axis=0)  # NaN: a draw without a user that counts
    return low.reshape(shape)[()], high.reshape(shape)[()]


def paired_difference(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """The mean difference of two models on the same users, with its bootstrap interval and p-value.

    The p-value is that of ``sign_flip_test``; it and the interval answer nearly the same question in two ways, so that at
    the edge one may find a difference where the other does not.

    Args:
        a: (U,) of one metric or (M, U) of many; NaN leaves a user out.
        b: the same of the other model, users in the same order and the same left out.
        confidence: as for ``bootstrap_interval``.
        resamples: draws of users, and of signs.
        seed: of both.

    Raises:
        ValueError: if the shapes differ, a user is left out of one and not of the other, a metric has fewer than two
            users, or an argument is out of its range.

    A model and itself:

    >>> float(paired_difference([0.5, 1.0, 0.0], [0.5, 1.0, 0.0]).p)
    1.0
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"a and b must be of the same metrics and users, not of shapes {first.shape} and {second.shape}"
        )
    one_sided = int((np.isnan(first) != np.isnan(second)).sum())
    if one_sided:
        raise ValueError(f"{one_sided} values are left out (NaN) of one of a and b but not of the other")
    differences = first - second
    low, high = bootstrap_interval(differences, confidence, resamples, seed)
    mean = np.nanmean(differences, axis=-1)
    return PairedDifference(mean, low, high, sign_flip_test(differences, resamples, seed))


def sign_flip_test(differences: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The two-sided p-value of Fisher's randomisation test for pairs (Fisher 1935; Smucker, Allan and Carterette 2007).

    If two models are alike, each user's difference could as well have had the other sign. The p-value is the share of
    random signs whose mean is as far from 0 as the one found, the found one counted among them, so it is never 0
    (Phipson and Smyth 2010): ``(1 + as far) / (1 + resamples)``.

    Args:
        differences: (U,) of one metric or (M, U) of many; NaN leaves a user out.
        resamples: how many random signs; no p-value is below ``1 / (1 + resamples)``.
        seed: of the signs.

    Returns:
        A number for (U,), an array (M,) for (M, U).

    Raises:
        ValueError: if ``resamples`` is below 1.

    Two users who both gain 1: half of the four signs are as far from 0:

    >>> bool(abs(sign_flip_test([1.0, 1.0]) - 1 / 2) < 0.02)  # four standard errors of 10,000 draws
    True
    """
    if resamples < 1:
        raise ValueError(f"resamples ({resamples}) must be at least 1")
    table, shape = _table(differences)
    p_values = np.array([_sign_flip(column[~np.isnan(column)], resamples, seed) for column in table.T])
    return p_values.reshape(shape)[()]


def holm(p_values: ArrayLike) -> Floats:
    """P-values for several tests at once, so that the chance of any false finding stays below the level (Holm 1979).

    The smallest of m is multiplied by m, the next one by m - 1 and so on, none above 1 and none below a smaller one's.

    Args:
        p_values: (m,), each from 0 to 1.

    Returns:
        (m,) in the same order, to be held against the level.

    Raises:
        ValueError: if there is more than one axis, or a p-value lies outside 0..1.

    Of three, 0.125 x 3, then 0.25 x 2, then 0.375 x 1, which may not be less than the one before:

    >>> holm([0.375, 0.125, 0.25]).tolist()
    [0.5, 0.375, 0.5]
    """
    found = np.asarray(p_values, dtype=np.float64)
    if found.ndim != 1:
        raise ValueError(f"p_values must have one axis, not shape {found.shape}")
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"p_values must lie in 0..1, got {found.tolist()}")
    order = np.argsort(found, kind="stable")
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1)), 1)
    return adjusted


def _table(values: ArrayLike) -> tuple[Floats, tuple[int, ...]]:
    """float64 (U, M) and the shape of an answer."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2):
        raise ValueError(f"values must have the axes (users,) or (metrics, users), not shape {array.shape}")
    return np.atleast_2d(array).T, array.shape[:-1]


def _check(table: Floats, confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence ({confidence}) must lie between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples ({resamples}) must be at least 1")
    fewest = int((~np.isnan(table)).sum(axis=0).min(initial=len(table)))
    if fewest < 2:
        raise ValueError(f"an interval over users needs at least 2 of them, got {fewest}")


def _resampled_means(table: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(R, M): each draw's means; how often a distinct row is drawn is multinomial."""
    counted = ~np.isnan(table)
    rows, sizes = _distinct(np.hstack([np.where(counted, table, 0), counted]))  # (D, 2M)
    totals = np.concatenate(
        [
            rng.multinomial(len(table), sizes / len(table), size=block).astype(np.float64) @ rows
            for block in _blocks(resamples, len(rows))
        ]
    )  # (R, 2M)
    sums, users = np.hsplit(totals, 2)
    means: Floats = np.divide(sums, users, out=np.full_like(sums, np.nan), where=users > 0)
    return means


def _distinct(rows: Floats) -> tuple[Floats, Ints]:
    """The distinct rows and how often each occurs, found by one random sum a row, which sorts faster than rows do."""
    sums = rows @ np.random.default_rng(0).random(rows.shape[1])
    _, first, group, sizes = np.unique(sums, return_index=True, return_inverse=True, return_counts=True)
    if all((column[first][group] == column).all() for column in rows.T):
        return rows[first], sizes.astype(np.int64)
    return rows, np.ones(len(rows), dtype=np.int64)


def _sign_flip(differences: Floats, resamples: int, seed: int) -> float:
    """Of those users who differ: how many of each distinct size keep their sign is binomial."""
    sizes, users = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    rng = np.random.default_rng(seed)
    found = (
        abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    )  # a sum in another order may round below its equal
    as_far = 0
    for block in _blocks(resamples, len(sizes)):
        kept = rng.binomial(users, 0.5, size=(block, len(sizes)))
        as_far += int((np.abs((2.0 * kept - users) @ sizes) >= found).sum())
    return (1 + as_far) / (1 + resamples)


def _blocks(resamples: int, width: int) -> Iterator[int]:
    """Sizes that sum to ``resamples``, each of few enough draws to fit in memory."""
    most = max(1, _BLOCK // max(width, 1))
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
