"""A job on one machine: its parts by one process or several, what they come to, and when to give up."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from genrec_runtime.batch.jobs import Plan
from genrec_runtime.batch.partition import recommend_partition
from genrec_runtime.batch.pool import in_processes
from genrec_runtime.batch.publish import Counts, working_on
from genrec_runtime.device import available_threads
from genrec_runtime.errors import GenrecError

MAX_BAD = 0.001


@dataclass(frozen=True)
class Summary:
    """What a finished job came to; ``answered + bad == rows``, the rows of the input.

    Attributes:
        rows: rows of the input.
        answered: rows of the output.
        bad: rows set aside.
        reasons: how many of these by code.
        status: how many of the answered rows by status.
        ids: item ids of the answered rows' histories.
        unknown_items: how many of these the catalogue lacks.
        parts: how many there are.
        new_parts: how many of these this run made.
    """

    rows: int
    answered: int
    bad: int
    reasons: dict[str, int]
    status: dict[str, int]
    ids: int
    unknown_items: int
    parts: int
    new_parts: int


def run(
    plan: Plan,
    *,
    processes: int = 1,
    threads: int | None = None,
    max_bad: float = MAX_BAD,
    watch: Callable[[Counts], object] | None = None,
) -> Summary:
    """Does what is left of a job.

    Args:
        plan: the job.
        processes: how many work at once, each with a copy of the bundle in memory; 1 is this one.
        threads: of each process; None shares out what may be used.
        max_bad: the largest share of the input's rows that may be set aside.
        watch: told of each part as it is done.

    Raises:
        GenrecError: if too many rows are bad, a part's process dies again and again, or the folder belongs to another job.
        ValueError: if an option is out of range.
        Exception: what ``recommend_partition`` raises.
    """
    if processes < 1:
        raise ValueError(f"processes ({processes}) must be at least 1")
    if not 0 <= max_bad <= 1:
        raise ValueError(f"max_bad ({max_bad}) must be a share from 0 to 1")
    share = threads if threads is not None else max(1, available_threads() // processes)
    work = functools.partial(recommend_partition, dataclasses.replace(plan.job, threads=share))
    with working_on(plan):
        one = (work(part) for part in plan.parts)
        results: Generator[Counts, None, None] = (
            one if processes == 1 else in_processes(work, plan.parts, processes, share)
        )
        with contextlib.closing(results):  # no process is left when another may take the folder
            return summarize(plan, results, max_bad, watch)


def summarize(
    plan: Plan, results: Iterable[Counts], max_bad: float, watch: Callable[[Counts], object] | None = None
) -> Summary:
    """Adds up what the parts of a job came to, whoever makes them.

    Args:
        plan: the job.
        results: of each part, in any order; read until it is sure that too many rows are bad.
        max_bad: the largest share of the input's rows that may be set aside.
        watch: told of each result.

    Raises:
        GenrecError: if there are more, or if parts are missing or counted twice.
    """
    parts: dict[int, Counts] = {}
    bad, reasons = 0, Counter[str]()
    for found in results:
        if watch is not None:
            watch(found)
        parts[found.part] = found
        bad += found.bad
        reasons.update(found.reasons)
        if bad > max_bad * plan.rows:
            listed = ", ".join(f"{count} {code}" for code, count in reasons.most_common())
            message = (
                f"{bad} bad rows ({listed}) are more than the share {max_bad:g} of {plan.rows}; "
                f"see {plan.job.out}/quarantine, and allow more by --max-bad if they may be left out"
            )
            raise GenrecError(message, code="bad_rows")
    total = {name: sum(getattr(found, name) for found in parts.values()) for name in ("rows", "answered", "bad")}
    if total["rows"] != plan.rows or total["answered"] + total["bad"] != plan.rows:
        raise GenrecError(f"the parts count {total} for {plan.rows} rows of the input; this is a fault of genrec")
    status = sum((Counter(found.status) for found in parts.values()), Counter[str]())
    return Summary(
        **total,
        reasons=dict(sorted(reasons.items())),
        status=dict(sorted(status.items())),
        ids=sum(found.ids for found in parts.values()),
        unknown_items=sum(found.unknown_items for found in parts.values()),
        parts=len(parts),
        new_parts=sum(found.is_new for found in parts.values()),
    )
