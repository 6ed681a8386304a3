"""One part of a job: the only place where recommendations are made offline."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec_runtime.answers import Recommendations
from genrec_runtime.batch.asking import Answered, Refused, ask
from genrec_runtime.batch.available import Availability
from genrec_runtime.batch.jobs import Job, Part, Source
from genrec_runtime.batch.publish import PARTS, QUARANTINE, Counts, finished, publish
from genrec_runtime.batch.tables import footer_hash, import_polars, lists, read_rows, values_of
from genrec_runtime.errors import InputError
from genrec_runtime.recommender import Recommender

if TYPE_CHECKING:
    from polars import DataFrame

NO_SCORES = np.zeros(0, np.float32)
CALL = 4096  # rows a call: their ids are Python objects meanwhile


def recommend_partition(job: Job, part: Part) -> Counts:
    """Makes one part of a job's output, unless it is there and whole. Any process may call it, also two at once.

    The same part comes to the same bytes each time. The recommender stays open for the next part of this process.

    Args:
        job: what is asked, and of which bundle.
        part: which rows.

    Raises:
        InputError: if the input's file has changed or cannot be read, or that of the available items has changed.
        BundleError: if the bundle is missing, damaged, or another one by now.
        GenrecError: if the bundle cannot be served here, or fails for no row's fault.
        OSError: if the output cannot be written.
    """
    done = finished(job, part)
    if done is not None:
        return done
    _check_unchanged(part.source)
    chosen = job.ask.variant, job.ask.device, job.threads
    recommender = _opened(os.getpid(), job.bundle, job.digest, *chosen, job.availability)
    made = _Made(job, part)
    roles = _roles(job)
    read = list(dict.fromkeys([*roles.values(), *job.columns.keep]))
    table = read_rows(Path(part.source.path), part.start, part.stop, read)
    for start in range(0, max(1, len(table)), CALL):
        rows = table.slice(start, CALL)
        inputs = {argument: values_of(rows[name]) for argument, name in roles.items()}
        for found in ask(functools.partial(_recommend, recommender, job, inputs), list(range(len(rows)))):
            made.add(found, rows, part.start + start, inputs["histories"])
    counts = made.counts()
    publish(job, part, counts, made.files())
    return counts


class _Made:
    """What is made of a part so far."""

    def __init__(self, job: Job, part: Part) -> None:
        self._job, self._part = job, part
        self._frames: list[DataFrame] = []
        self._aside: list[tuple[int, str]] = []
        self._reasons, self._status = Counter[str](), Counter[str]()
        self._ids = self._unknown = 0

    def add(self, found: Answered | Refused, rows: DataFrame, start: int, histories: Sequence[Any]) -> None:
        """Takes in what became of some rows of a call, whose first is the file's row ``start``."""
        if isinstance(found, Refused):
            self._aside.append((found.place + start, _line(self._job, self._part, rows, start, found)))
            self._reasons[found.code] += 1
            return
        self._frames.append(_frame(self._job, rows, found, self._part.first + start - self._part.start))
        self._status.update(found.answer.status)
        self._ids += sum(len(histories[place]) for place in found.places)
        self._unknown += found.answer.unknown_items

    def counts(self) -> Counts:
        """What the part comes to."""
        reasons, status = (dict(sorted(counter.items())) for counter in (self._reasons, self._status))
        answered, bad = self._status.total(), self._reasons.total()
        rows = self._part.stop - self._part.start
        return Counts(self._part.number, rows, answered, bad, reasons, status, self._ids, self._unknown)

    def files(self) -> dict[str, bytes]:
        """Its files; none for rows set aside where there are none."""
        answers = io.BytesIO()
        import_polars().concat(self._frames, rechunk=True).write_parquet(answers)
        lines = "".join(line for _, line in sorted(self._aside)).encode()
        aside = {f"{QUARANTINE}/{self._part.name}.jsonl": lines} if lines else {}
        return {f"{PARTS}/{self._part.name}.parquet": answers.getvalue(), **aside}


@functools.lru_cache(maxsize=1)
def _opened(
    pid: int,
    bundle: str,
    digest: str,
    variant: str,
    device: str,
    threads: int | None,
    availability: Availability | None,
) -> Recommender:  # of this process: a fork opens its own
    recommender = Recommender.load(bundle, expect_digest=digest, variant=variant, device=device, threads=threads)
    if availability is not None:
        recommender.set_available(availability.ids(recommender.catalogue.items))
    return recommender


def _check_unchanged(source: Source) -> None:
    path = Path(source.path)
    if path.stat().st_size != source.size or footer_hash(path) != source.footer:
        message = f"{path} has changed since the job began; begin again in another folder"
        raise InputError(message, code="table", field="source", value=str(path))


def _roles(job: Job) -> dict[str, str]:
    """The arguments of ``recommend`` and the columns that they are read from."""
    columns = job.columns
    roles = {
        "histories": columns.history,
        "timestamps": columns.timestamps,
        "request_time": columns.request_time,
        "users": columns.user if "users" in job.reads else None,
        "exclude": columns.exclude,
    }
    return {argument: name for argument, name in roles.items() if name is not None}


def _recommend(recommender: Recommender, job: Job, inputs: dict[str, list[Any]], places: list[int]) -> Recommendations:
    chosen = {argument: [values[place] for place in places] for argument, values in inputs.items()}
    if "exclude" in chosen:
        chosen["exclude"] = [row if row is not None else [] for row in chosen["exclude"]]
    options = {"k": job.ask.k, "exclude_seen": job.ask.exclude_seen, "on_unknown": job.ask.on_unknown}
    return recommender.recommend(**chosen, **options)  # type: ignore[arg-type]


def _frame(job: Job, rows: DataFrame, found: Answered, first: int) -> DataFrame:
    """The rows of an answer as they are written."""
    pl = import_polars()
    kind, answer = pl.Int64 if job.kind == "int" else pl.String, found.answer
    frame: DataFrame = pl.DataFrame(
        [
            pl.Series("row", [first + place for place in found.places], dtype=pl.Int64),
            *(rows[name].gather(found.places) for name in job.columns.keep),
            lists("items", pl.Series(list(itertools.chain.from_iterable(answer.items)), dtype=kind), answer.lengths),
            lists("scores", pl.Series(np.concatenate([NO_SCORES, *answer.scores])), answer.lengths),
            pl.Series("status", answer.status, dtype=pl.String),
        ]
    )
    return frame


def _line(job: Job, part: Part, rows: DataFrame, start: int, found: Refused) -> str:
    """A row set aside, as JSON."""
    user = None if job.columns.user is None else rows[job.columns.user][found.place]
    row = start + found.place
    line = {
        "row": part.first + row - part.start,
        "file": Path(part.source.path).name,
        "file_row": row,
        "user": user,
        "code": found.code,
        "reason": found.reason,
    }
    return json.dumps(line, default=str, ensure_ascii=False) + "\n"
