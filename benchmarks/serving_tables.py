"""What serving.py's runs come to: cells of its tables, and what a soak asks for."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rounds import ratio
from servers import Run

ASKED = 1.5  # times LitServe's throughput
FLAT = 0.02  # share by which memory may grow from a soak's second quarter to its last
BAD = 0.1  # share of bad requests in a soak


@dataclass(frozen=True)
class Check:
    """One thing that a soak asks for: ``found``, in words, and whether it is what was ``asked``."""

    what: str
    asked: str
    found: str
    holds: bool


def checks(clean: Run, mixed: Run, theirs: Sequence[Run]) -> list[Check]:
    """What a soak found.

    Args:
        clean: genrec's run.
        mixed: its run with bad requests among the good.
        theirs: LitServe's; none if it is not installed.
    """
    found = []
    for name, run in (("good requests alone", clean), (f"{BAD:.0%} bad requests among them", mixed)):
        outcomes = run.report.outcomes
        holds = not run.report.faults and bool(outcomes.get("right")) and not outcomes.get("overloaded")
        found.append(Check(f"{name}: answers", "all right", said(outcomes), holds))
        found.append(Check(f"{name}: growth of memory", f"at most {FLAT:.0%}", f"{run.growth:.1%}", run.growth <= FLAT))
    refused = mixed.report.outcomes.get("refused", 0)
    found.append(Check("bad requests, each answered with 400", "all, and some", f"{refused:,}", refused > 0))
    return [*found, _faster(clean, theirs)]


def _faster(ours: Run, theirs: Sequence[Run]) -> Check:
    what, asked = "throughput, genrec / LitServe", f"at least {ASKED}"
    if not theirs:
        return Check(what, asked, "LitServe is not installed", False)
    quotient = ours.report.throughput / max(1e-9, statistics.mean(run.report.throughput for run in theirs))
    faults = faults_of(theirs)
    return Check(what, asked, f"{quotient:.2f}{f', LitServe with {said(faults)}' if faults else ''}", quotient >= ASKED)


def throughput(ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    """How many times as many requests a second ours answer."""
    return _ratio([run.report.throughput for run in ours], [run.report.throughput for run in theirs])


def latency(ours: Sequence[Run], theirs: Sequence[Run]) -> list[str]:
    """How many times as long theirs take: p50, p99."""
    return [
        _ratio([getattr(run.report, name) for run in theirs], [getattr(run.report, name) for run in ours])
        for name in ("p50", "p99")
    ]


def memory(ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    """How many times as much theirs hold."""
    return f"{statistics.median(run.resident for run in theirs) / statistics.median(run.resident for run in ours):.2f}"


def cpu(ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    """How many times as much CPU time theirs take for an answer; others on the machine disturb it less than the clock."""
    return _ratio([run.cpu for run in theirs], [run.cpu for run in ours])


def batch(runs: Sequence[Run]) -> str:
    """Mean rows of a batch, where the server tells."""
    rows = statistics.median(run.batch for run in runs)
    return "" if math.isnan(rows) else f"{rows:.1f}"


def faults_of(runs: Sequence[Run]) -> Counter[str]:
    """The faults of all runs together."""
    return sum((Counter(run.report.faults) for run in runs), Counter())


def said(counts: Mapping[str, int]) -> str:
    """Counts in words.

    >>> said({"right": 1200, "wrong": 1}), said({})
    ('1,200 right, 1 wrong', '0')
    """
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "0"


def _ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """``rounds.ratio``, or a dash where a run has no figure."""
    return str(ratio(above, below)) if all(value > 0 for value in (*above, *below)) else "-"
