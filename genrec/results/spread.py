"""How far a mean over several runs and many users can be trusted, when both could have been others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genrec.results.pairing import Floats
from genrec.results.student import critical_value, two_sided_p

ROUNDING = 1e-12  # the mean of five equal values in 0..1 may be off by 1e-16, and is no difference


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and users, or a difference of two.

    Args:
        mean: the estimate.
        error: its standard error.
        df: degrees of freedom of that error.
    """

    mean: float
    error: float
    df: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """The t interval."""
        half = critical_value(confidence, self.df) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    def p(self) -> float:
        """Two-sided p-value of "the true mean is 0"."""
        if not self.error:
            return float(self.mean == 0)
        return two_sided_p(self.mean / self.error, self.df)


def spread(runs: Floats, minus: Floats | None = None) -> Spread:
    """The mean of a method over its runs and users, or the difference of two methods on the same users.

    Seeds and users are crossed random effects: every run is scored on all users. The variance of the mean is that of the
    S runs' means over S, plus that of the users' means over n, less the part that both hold, the users' luck
    with a run: ``V_runs / S + max(0, V_users / n - V_rest / (n S))``. For a difference the runs of both methods add up,
    and users are paired. The degrees of freedom are those of Satterthwaite 1946; Hillis 2007 (Statistics in Medicine
    26:596) tried this layout, readers in the place of seeds, and found its level right. Few seeds make a wide interval, as
    they should: with five the runs' part has four degrees of freedom.

    Why no bootstrap over seeds: of S runs it finds (S - 1) / S of the variance and ends of a normal shape, which
    for five seeds is an interval a third too short; and no bootstrap of crossed effects is exact (Owen 2007).

    Args:
        runs: (S, n), each run's values by user; a single run is taken to have no variance between runs.
        minus: (S', n) of the method to subtract.

    Raises:
        ValueError: if there are fewer than two users.

    Two runs of means 1/4 and 3/4 whose users do not differ; the error is that of the two means, with one degree of freedom:

    >>> spread(np.array([[0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]))
    Spread(mean=0.5, error=0.25, df=1.0)
    """
    methods = [runs] if minus is None else [runs, minus]
    effect: Floats = runs.mean(axis=0) - (0 if minus is None else minus.mean(axis=0))  # (n,)
    effect[np.abs(effect) < ROUNDING] = 0
    users = len(effect)
    if users < 2:
        raise ValueError(f"an interval over users needs at least 2 of them, got {users}")
    several = [one for one in methods if len(one) > 1]
    of_users = float(effect.var(ddof=1)) / users - sum(map(_of_rest, several))
    parts = [(max(0.0, of_users), users - 1), *((_of_runs(one), len(one) - 1) for one in several)]
    variance = sum(part for part, _ in parts)
    doubt = sum(part**2 / df for part, df in parts)
    return Spread(float(effect.mean()), math.sqrt(variance), variance**2 / doubt if doubt else users - 1.0)


def _of_runs(runs: Floats) -> float:
    """The variance of the mean that shows between runs."""
    return float(runs.mean(axis=1).var(ddof=1)) / len(runs)


def _of_rest(runs: Floats) -> float:
    """The variance of the mean that is neither the user's nor the run's."""
    size, users = runs.shape
    rest = runs - runs.mean(axis=0) - runs.mean(axis=1, keepdims=True) + runs.mean()  # (S, n)
    return float(np.square(rest).sum() / ((size - 1) * (users - 1) * size * users))
