"""How the benchmarks measure: peers take turns in one process, answers are compared, ratios of medians are printed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec_runtime.compare import compare_lists
from genrec_runtime.device import processor
from genrec_runtime.manifest import Tolerance

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)  # float32, sums in another order
OVERLAP = 0.995  # share of its lists that int8 must have in common, as an export asks
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Answer = tuple[Sequence[Sequence[Any]], Sequence[NDArray[np.float32]] | NDArray[np.float32]]


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the ratio of the medians, and the quartiles of the rounds' own ratios."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Their times over ours, round by round: above 1 where we are faster.

    >>> str(ratio([4.0, 4.0, 6.0], [2.0, 2.0, 2.0]))
    '2.00 (2.00-2.50)'
    """
    low, high = np.quantile(np.array(theirs) / np.array(ours), [0.25, 0.75])
    return Ratio(statistics.median(theirs) / statistics.median(ours), float(low), float(high))


def take_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, *, clock: str = "wall", turn: float = 0.03
) -> dict[str, list[float]]:
    """Seconds a call, for each peer in each round.

    Args:
        calls: what is timed, by name. Every round calls each, starting with another one each time.
        rounds: how many.
        clock: "wall", or "cpu" for this process's CPU time, which other processes on the machine disturb less.
        turn: seconds that a peer's turn lasts at least; short calls are repeated, after one that is not timed.
    """
    now = CLOCKS[clock]
    repeats = {}
    for name, call in calls.items():
        call()  # whatever happens once
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, round(turn / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turns in range(rounds):
        for name in names[turns % len(names) :] + names[: turns % len(names)]:
            call, count = calls[name], repeats[name]
            if count > 1:
                call()  # its weights come back into the caches, where they are in service
            begin = now()
            for _ in range(count):
                call()
            times[name].append((now() - begin) / count)
    return times


def require_equal(answers: Mapping[str, Answer], reference: str) -> None:
    """Holds every answer to one: scores within the tolerance, and items wherever scores settle their order.

    A peer whose name has "int8" may miss items, as few as an export allows.

    Raises:
        SystemExit: naming the peer that answers otherwise.
    """
    expected = [np.array(part) for part in answers[reference]]
    for name, answer in answers.items():
        items, scores = (np.array([list(row) for row in part]) for part in answer)
        if "int8" in name:
            shared = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(items, expected[0], strict=True)])
            if shared < OVERLAP:
                raise SystemExit(f"{name} shares {shared:.4f} of its items with {reference}, less than {OVERLAP}")
            continue
        difference = compare_lists(items, scores, expected[0], expected[1], TOLERANCE)
        if not difference.same:
            raise SystemExit(
                f"{name} answers row {difference.row} otherwise than {reference}: "
                f"scores are {difference.error:.2e} apart"
            )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table.

    >>> print(table(["a", "b"], [[1, "two"]]))
    | a | b |
    | --- | --- |
    | 1 | two |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine(*packages: str) -> str:
    """The CPU, its cores, and the versions of Python and of packages."""
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, {', '.join(versions)}"


def write_section(path: Path, title: str, text: str) -> None:
    """Puts a section under its heading into a page, in the place of the one that had it, or at the end."""
    page = path.read_text() if path.exists() else ""
    parts = page.split("\n## ")
    new = f"{title}\n\n{text.strip()}\n"
    places = [i for i, part in enumerate(parts) if i and part.partition("\n")[0] == title]
    if places:
        parts[places[0]] = new
    else:
        parts.append(new)
    path.write_text("\n## ".join(part.rstrip("\n") + "\n" for part in parts))
