"""Methods compared by several runs each: what stands when both the seed and the users could have been others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from genrec.results.comparison import (
    TESTED,
    Comparison,
    Difference,
    Estimate,
    count_differing,
    judge,
    of_all_lists,
    order_of,
    pairs_of,
)
from genrec.results.pairing import Floats, check_tested, flat, pair, unique_names
from genrec.results.result import Result
from genrec.results.spread import spread

METHOD = "seeds and users both taken as drawn from many: analysis of variance, t intervals by Satterthwaite"
_SETTINGS = ("model", "config", "fit")  # of the details: what a method is
_MAY_DIFFER = ("fit.device", "fit.eval_batch_size")


def group_runs(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs by method: of one model and the same settings, whatever the seed; in the order of their first runs.

    Results whose ``details`` name no model, such as predictions of another code base, are one method if they have one
    name. Methods of one model are told apart by the settings in which they differ.

    Args:
        results: with ``details`` of ``model``, ``config`` and, where it is known, ``fit``.

    Returns:
        The runs by name, such as ``"sasrec"``, or ``"sasrec (dropout=0.2)"`` where there are several.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        own = {} if result.details.get("model") else {"name": result.name}
        groups.setdefault(json.dumps(_settings(result) | own, sort_keys=True), []).append(result)
    names = unique_names([_method_name(runs[0], results) for runs in groups.values()])
    return dict(zip(names, groups.values(), strict=True))


def compare_seeds(
    groups: Mapping[str, Sequence[Result]],
    metrics: Sequence[str] = TESTED,
    *,
    confidence: float = 0.95,
    all_pairs: bool = False,
) -> Comparison:
    """Holds methods against the first one; the unit is the run.

    Intervals and p-values are those of ``spread``, which takes seeds and users both as drawn from many; Holm's
    correction is over all tests together. A method of one run without a seed, such as a counted baseline, is taken to
    have no randomness in training. A method of one run with a seed is shown but not tested, since one seed tells nothing
    about it; its interval is over users and speaks of that run.

    Args:
        groups: by name, each method's runs; ``group_runs`` makes them.
        metrics: those to test, chosen before looking.
        confidence: of the intervals, between 0 and 1; a difference stands whose corrected p is at most 1 minus this.
        all_pairs: hold each method against each, not only against the first.

    Raises:
        ValueError: if there are fewer than two methods, two runs of one have the same seed, runs differ in data,
            protocol or users, a metric is missing, or ``confidence`` is out of its range.
    """
    _check(groups, confidence)
    paired = iter(runs := pair([run for group in groups.values() for run in group]))
    check_tested(metrics, runs)
    tables = {name: [next(paired) for _ in group] for name, group in groups.items()}
    order = order_of(runs[0], metrics)
    estimates, found = {}, []
    for metric in order:
        kept = ~np.isnan(runs[0][metric])
        values = {name: np.stack([run[metric][kept] for run in group]) for name, group in tables.items()}  # (S, n)
        estimates[metric] = {name: _estimate(one, confidence) for name, one in values.items()}
        for base, model in pairs_of(list(groups), all_pairs):
            told = not (_has_one_seed(groups[base]) or _has_one_seed(groups[model]))
            one = _difference(metric, model, base, values, confidence if told else None)
            found.append(one if metric in metrics else replace(one, p=None))
    return Comparison(
        models=tuple(groups),
        tested=tuple(metrics),
        estimates=estimates | of_all_lists(groups, order),
        differences=judge(found, confidence),
        users=len(runs[0][order[0]]),
        confidence=confidence,
        method=METHOD,
        notes=tuple(note for name, group in groups.items() for note in _notes(name, group)),
        over_seeds=True,
    )


def _settings(result: Result) -> dict[str, Any]:
    stated = {name: result.details.get(name) or None for name in _SETTINGS}
    settings = flat(json.loads(json.dumps(stated)))
    return {name: value for name, value in settings.items() if name not in _MAY_DIFFER}


def _method_name(result: Result, results: Sequence[Result]) -> str:
    """The model's name, with the settings in which the results differ that have the same model."""
    model = result.details.get("model")
    if not model:
        return result.name
    own = _settings(result)
    others = [_settings(other) for other in results if other.details.get("model") == model]
    varied = [name for name in own if any(other.get(name) != own[name] for other in others)]
    shown = ", ".join(f"{name.removeprefix('config.')}={own[name]}" for name in varied)
    return f"{model} ({shown})" if shown else str(model)


def _check(groups: Mapping[str, Sequence[Result]], confidence: float) -> None:
    if len(groups) < 2:
        raise ValueError(f"a comparison over seeds needs at least 2 methods, got {len(groups)}: {', '.join(groups)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence ({confidence}) must lie between 0 and 1")
    for name, runs in groups.items():
        seeds = [run.details.get("seed") for run in runs]
        again = [seed for i, seed in enumerate(seeds) if seed is not None and seed in seeds[:i]]
        if again:
            raise ValueError(
                f"{name} has seed {again[0]} twice ({', '.join(run.name for run in runs)}): give each run once"
            )


def _has_one_seed(runs: Sequence[Result]) -> bool:
    return len(runs) == 1 and runs[0].details.get("seed") is not None


def _estimate(values: Floats, confidence: float) -> Estimate:
    found = spread(values)
    low, high = found.interval(confidence)
    sd = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
    return Estimate(found.mean, low, high, len(values), sd)


def _difference(
    metric: str, model: str, base: str, values: Mapping[str, Floats], confidence: float | None
) -> Difference:
    """Without an interval and a p-value where there is no confidence to speak of."""
    found = spread(values[model], values[base])
    differing = count_differing(values[model].mean(axis=0), values[base].mean(axis=0))
    low, high = (None, None) if confidence is None else found.interval(confidence)
    return Difference(metric, model, base, found.mean, low, high, differing, None if confidence is None else found.p())


def _notes(name: str, runs: Sequence[Result]) -> list[str]:
    if _has_one_seed(runs):
        seed = runs[0].details["seed"]
        return [f"{name} has one seed ({seed}), which tells nothing about the method: shown for that run, not tested."]
    if len(runs) == 1:
        return [f"{name} is one run without a seed: taken to have no randomness in training."]
    return []
