"""Which differences between models stand: paired by user, with intervals, and p-values corrected for their number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev

import numpy as np

from genrec.metrics.intervals import RESAMPLES, bootstrap_interval, holm, paired_difference
from genrec.results.pairing import Floats, check_tested, pair, unique_names
from genrec.results.result import Result
from genrec.results.spread import ROUNDING

TESTED = ("ndcg@10", "recall@10")
EQUAL = "no difference: equal for every user"
NOT_SHOWN = "no difference shown"
NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Estimate:
    """What one model scores in one metric.

    Args:
        mean: over users, and over runs where there are several.
        low: lower end of the interval; None where there are no values by user.
        high: upper end.
        runs: how many trained models the mean is over.
        sd: standard deviation of the runs' means; None for one run.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    runs: int = 1
    sd: float | None = None


@dataclass(frozen=True)
class Difference:
    """One model against another in one metric.

    Args:
        metric: its name.
        model: the one whose gain is positive.
        base: the one that it is held against.
        mean: model minus base.
        low: lower end of the interval; None where none can be given.
        high: upper end.
        differing: users whose value is not the same.
        p: two-sided p-value, None if not tested.
        adjusted: p after Holm's correction over all tests of the comparison.
        better: the one of the two that ``adjusted`` shows to be better, None where it shows no difference.
    """

    metric: str
    model: str
    base: str
    mean: float
    low: float | None
    high: float | None
    differing: int
    p: float | None
    adjusted: float | None = None
    better: str | None = None

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        if self.p is None:
            return NOT_TESTED
        if self.better is not None:
            return f"{self.better} is better"
        return NOT_SHOWN if self.differing else EQUAL


@dataclass(frozen=True)
class Comparison:
    """Several models on the same users.

    Args:
        models: their names, the base first.
        tested: the metrics that were tested.
        estimates: by metric, then by model; the tested metrics first.
        differences: those of the tested metrics first.
        users: how many users there are.
        confidence: of the intervals; the verdicts' level is 1 minus this.
        method: how intervals and p-values were made, in a line.
        notes: what has to be said beside the numbers, a line each.
        over_seeds: whether a model's runs are taken as draws of a method.
    """

    models: tuple[str, ...]
    tested: tuple[str, ...]
    estimates: dict[str, dict[str, Estimate]]
    differences: tuple[Difference, ...]
    users: int
    confidence: float
    method: str
    notes: tuple[str, ...] = ()
    over_seeds: bool = False


def compare(
    results: Sequence[Result],
    metrics: Sequence[str] = TESTED,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    all_pairs: bool = False,
) -> Comparison:
    """Holds trained models against the first one, user by user.

    Every metric gets a mean and a difference with its bootstrap interval (``bootstrap_interval``). Only the metrics
    named get a p-value, by random signs (``sign_flip_test``), corrected over all tests together (``holm``): the more is
    tested, the more a difference must show.

    Args:
        results: two or more, of one protocol and the same users, in any order; a name that occurs again gets a number.
        metrics: those to test, chosen before looking.
        confidence: of the intervals, between 0 and 1; a difference stands whose corrected p is at most 1 minus this.
        resamples: draws of users, and of signs.
        seed: of these draws.
        all_pairs: hold each against each, not only against the first.

    Raises:
        ValueError: if the results differ in data, protocol or users (each difference is named), a metric is missing,
            or an argument is out of its range.
    """
    paired = pair(results)
    check_tested(metrics, paired)
    names = unique_names([result.name for result in results])
    order = order_of(paired[0], metrics)
    tables = {name: np.stack([values[metric] for metric in order]) for name, values in zip(names, paired, strict=True)}
    ends = {name: bootstrap_interval(table, confidence, resamples, seed) for name, table in tables.items()}
    runs = {name: [result] for name, result in zip(names, results, strict=True)}
    estimates = {
        metric: {
            name: Estimate(runs[name][0].metrics[metric], float(low[i]), float(high[i]))
            for name, (low, high) in ends.items()
        }
        for i, metric in enumerate(order)
    }
    found = []
    for base, model in pairs_of(names, all_pairs):
        outcome = paired_difference(tables[model], tables[base], confidence, resamples, seed)
        for i, metric in enumerate(order):
            mean, low, high, p = (float(part[i]) for part in outcome)
            differing = count_differing(tables[model][i], tables[base][i])
            found.append(Difference(metric, model, base, mean, low, high, differing, p if metric in metrics else None))
    return Comparison(
        models=tuple(names),
        tested=tuple(metrics),
        estimates=estimates | of_all_lists(runs, order),
        differences=judge(found, confidence),
        users=len(results[0].users),
        confidence=confidence,
        method=f"users drawn {resamples:,} times; p by {resamples:,} random signs",
        notes=(
            f"This speaks of these {len(names)} trained models; of methods whose training is random it tells nothing: for "
            "that, train each with several seeds and compare over seeds (--over-seeds).",
        ),
    )


def judge(differences: Iterable[Difference], confidence: float) -> tuple[Difference, ...]:
    """Differences with corrected p-values and what these show, sorted by metric in the order of first occurrence."""
    found = list(differences)
    tested = [one for one in found if one.p is not None]
    adjusted = holm([one.p for one in tested if one.p is not None])
    judged = []
    for one, p in zip(tested, adjusted, strict=True):
        winner = one.model if one.mean > 0 else one.base
        judged.append(replace(one, adjusted=float(p), better=winner if p <= 1 - confidence else None))
    metrics = list(dict.fromkeys(one.metric for one in found))
    left = [one for one in found if one.p is None]
    return tuple(sorted(judged + left, key=lambda one: metrics.index(one.metric)))


def pairs_of(names: Sequence[str], all_pairs: bool) -> list[tuple[str, str]]:
    """(base, other) pairs: all, or those with the first name.

    >>> pairs_of(["a", "b", "c"], all_pairs=False)
    [('a', 'b'), ('a', 'c')]
    """
    return list(combinations(names, 2)) if all_pairs else [(names[0], name) for name in names[1:]]


def order_of(metrics: Iterable[str], tested: Sequence[str]) -> list[str]:
    """The names in one order, the tested ones in front."""
    return [*tested, *(metric for metric in metrics if metric not in tested)]


def count_differing(first: Floats, second: Floats) -> int:
    """Users whose values differ by more than rounding; left out (NaN) of both is no difference."""
    return int((np.abs(first - second) > ROUNDING).sum())


def of_all_lists(groups: Mapping[str, Sequence[Result]], known: Collection[str]) -> dict[str, dict[str, Estimate]]:
    """Metrics of all lists together, such as coverage: they have no values by user, so means and no intervals.

    Args:
        groups: by name, each model's runs.
        known: metrics that have values by user.
    """
    first, *others = [run for runs in groups.values() for run in runs]
    shared = [name for name in first.metrics if name not in known and all(name in run.metrics for run in others)]
    scores = {name: {model: [run.metrics[name] for run in runs] for model, runs in groups.items()} for name in shared}
    return {
        name: {
            model: Estimate(fmean(found), runs=len(found), sd=stdev(found) if len(found) > 1 else None)
            for model, found in models.items()
        }
        for name, models in scores.items()
    }
