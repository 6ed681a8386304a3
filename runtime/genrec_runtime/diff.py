"""How far two bundles recommend differently: the question before a new version is promoted."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import RawId
from genrec_runtime.recommender import Recommender

_GATE = re.compile(r"\s*(?P<measure>[a-z0-9@_]+)\s*(?P<sign>>=|<=)\s*(?P<bound>\d*\.?\d+)\s*")
_SIGNS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, eq=False)
class Differences:
    """Two recommenders' answers to the same histories.

    Attributes:
        k: length of the lists compared.
        overlaps: float64 (B,), per history the share of the longer list that both lists hold.
        measures: ``overlap@k`` (their mean), ``same_first`` (share of histories with the same best item), ``same_list`` (share
            with the same items in the same order), ``items_only_in_a`` and ``items_only_in_b`` (of the catalogues).
    """

    k: int
    overlaps: NDArray[np.float64]
    measures: dict[str, float]


def compare_answers(
    a: Recommender, b: Recommender, histories: Sequence[Sequence[Any]], k: int = 10, **further: Sequence[Any]
) -> Differences:
    """Asks both recommenders about every history, each with what it reads.

    Args:
        a: what serves now.
        b: what might serve next.
        histories: raw histories, at least one.
        k: how many items a list.
        further: ``timestamps``, ``request_time`` and ``users`` as of ``Recommender.recommend``, for those that read them.

    Raises:
        ValueError: if there is no history.
        InputError: if a history or ``k`` is not usable.
    """
    if not histories:
        raise ValueError("histories must hold at least one history")
    lists = list(zip(*(_lists(one, histories, k, further) for one in (a, b)), strict=True))
    overlaps = np.array([len({*one} & {*two}) / max(len(one), len(two), 1) for one, two in lists])
    items_a, items_b = set(a.catalogue.items.all()), set(b.catalogue.items.all())
    measures = {
        f"overlap@{k}": float(overlaps.mean()),
        "same_first": float(np.mean([one[:1] == two[:1] for one, two in lists])),
        "same_list": float(np.mean([one == two for one, two in lists])),
        "items_only_in_a": float(len(items_a - items_b)),
        "items_only_in_b": float(len(items_b - items_a)),
    }
    return Differences(k, overlaps, measures)


def _lists(recommender: Recommender, histories: Sequence[Any], k: int, further: Mapping[str, Any]) -> list[list[RawId]]:
    read = {name: values for name, values in further.items() if name in recommender.manifest.capabilities}
    return recommender.recommend(histories, k=k, **read).items


def passes(measures: dict[str, float], gate: str) -> bool:
    """Whether a condition such as ``overlap@10>=0.6`` holds.

    Raises:
        ValueError: if it is no condition, or on something that was not measured.

    >>> passes({"overlap@10": 0.7}, "overlap@10>=0.6")
    True
    """
    match = _GATE.fullmatch(gate)
    if match is None:
        raise ValueError(f"gate ({gate!r}) must be like overlap@10>=0.6")
    if match["measure"] not in measures:
        raise ValueError(f"gate ({gate!r}) is on {match['measure']!r}; measured are {', '.join(measures)}")
    return _SIGNS[match["sign"]](measures[match["measure"]], float(match["bound"]))


def plot(differences: Differences, path: str | os.PathLike[str]) -> None:
    """Draws how many histories keep which share of their list.

    Raises:
        ImportError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'genrec[viz]'") from error
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    edges = (np.arange(differences.k + 2) - 0.5) / differences.k
    axes.hist(differences.overlaps, bins=list(edges), color="#2a6fb0", rwidth=0.9)
    mean = float(differences.overlaps.mean())
    axes.axvline(mean, color="#d9661f", linestyle="--", label=f"mean {mean:.3f}")
    axes.set_xlabel(f"share of the {differences.k} recommendations that both versions give")
    axes.set_ylabel("histories")
    axes.set_xlim(edges[0], edges[-1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=150)
