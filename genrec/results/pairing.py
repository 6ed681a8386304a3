"""Several results brought together: of one protocol, of the same users, in one order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.results.result import COMPARED, Result

Floats = NDArray[np.float64]


def pair(results: Sequence[Result]) -> list[dict[str, Floats]]:
    """Each result's values by user, of the metrics that all have, with the users in the order of the first result.

    Raises:
        ValueError: if there are fewer than two results, or one differs from the first in its data, its protocol or its
            users; the differences are named.
    """
    if len(results) < 2:
        raise ValueError(f"a comparison needs at least 2 results, got {len(results)}")
    first, *others = results
    shared = [name for name in first.values if all(name in other.values for other in others)]
    paired = [{name: first.values[name] for name in shared}]
    order = np.argsort(first.users, kind="stable")
    for other in others:
        _check_protocol(first, other)
        rows = np.empty_like(order)
        rows[order] = _order_of_same_users(first, other, first.users[order])
        paired.append({name: other.values[name][rows] for name in shared})
    _check_left_out(results, paired)
    return paired


def check_tested(metrics: Sequence[str], paired: Sequence[Mapping[str, Floats]]) -> None:
    """Refuses metrics that cannot be tested.

    Raises:
        ValueError: if there is none, one is named twice, or one is missing from a result.
    """
    if not metrics:
        raise ValueError("no metric to test was named")
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"a metric is named twice: {', '.join(metrics)}")
    missing = [name for name in metrics if name not in paired[0]]
    if missing:
        raise ValueError(
            f"not all results have values by user of {', '.join(missing)}; they share {', '.join(paired[0]) or 'none'}"
        )


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, later ones of the same with a number behind.

    >>> unique_names(["sasrec", "markov", "sasrec"])
    ['sasrec', 'markov', 'sasrec (2)']
    """
    taken: list[str] = []
    for name in names:
        choices = [name, *(f"{name} ({number})" for number in range(2, len(names) + 1))]
        taken.append(next(choice for choice in choices if choice not in taken))
    return taken


def _check_protocol(first: Result, other: Result) -> None:
    before, now = _compared(first.protocol), _compared(other.protocol)
    names = list(dict.fromkeys([*before, *now]))
    different = [name for name in names if before.get(name) != now.get(name)]
    if different:  # other filters of equal data are no difference, but may explain one
        before |= flat({"filters": first.protocol.get("filters")})
        now |= flat({"filters": other.protocol.get("filters")})
        different += [name for name in {**before, **now} if name not in names and before.get(name) != now.get(name)]
    if different:
        stated = "; ".join(f"{name} is {before.get(name)!r} and {now.get(name)!r}" for name in different)
        raise ValueError(f"{first.name} and {other.name} were not measured alike: {stated}")


def _compared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: json.loads(json.dumps(protocol.get(name))) for name in COMPARED})


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One mapping of dotted names.

    >>> flat({"counts": {"users": 3}, "split": "temporal"})
    {'counts.users': 3, 'split': 'temporal'}
    """
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def _order_of_same_users(first: Result, other: Result, users: NDArray[Any]) -> NDArray[np.int64]:
    """The rows of ``other`` that put its users in rising order, as ``users`` are."""
    order = np.argsort(other.users, kind="stable")
    if np.array_equal(other.users[order], users):
        return order
    before, now = set(first.users.tolist()), set(other.users.tolist())
    raise ValueError(
        f"{first.name} and {other.name} are not of the same users: {first.name} has {len(before - now)} that "
        f"{other.name} has not, {other.name} has {len(now - before)} that {first.name} has not, {len(before & now)} are "
        f"in both"
    )


def _check_left_out(results: Sequence[Result], paired: Sequence[Mapping[str, Floats]]) -> None:
    for result, values in zip(results, paired, strict=True):
        for name, column in values.items():
            differing = int((np.isnan(column) != np.isnan(paired[0][name])).sum())
            if differing:
                raise ValueError(
                    f"{results[0].name} and {result.name} leave other users out of {name}: {differing} count for one only"
                )
