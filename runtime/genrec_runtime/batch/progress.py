"""How far a job is, on a terminal: a bar where rich is installed, else a line that is rewritten; nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from genrec_runtime.batch.publish import Counts

Watch = Callable[[Counts], object]


@contextlib.contextmanager
def progress(rows: int) -> Iterator[Watch | None]:
    """What is to be told of each part that is done; None where standard error is no terminal.

    Args:
        rows: of all parts.
    """
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        with _line(rows) as watch:
            yield watch
        return
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[bad]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=rows, bad="")
        seen = _Seen()

        def watch(found: Counts) -> None:
            seen.add(found)
            bar.update(task, completed=seen.rows, bad=seen.bad_rows)

        yield watch


class _Seen:
    """Rows so far."""

    rows = bad = 0

    def add(self, found: Counts) -> None:
        self.rows += found.rows
        self.bad += found.bad

    @property
    def bad_rows(self) -> str:
        return f"{self.bad} bad" if self.bad else ""


@contextlib.contextmanager
def _line(rows: int) -> Iterator[Watch]:
    seen = _Seen()

    def watch(found: Counts) -> Any:
        seen.add(found)
        sys.stderr.write(f"\r\x1b[K{seen.rows:,} of {rows:,} rows  {seen.bad_rows}")
        sys.stderr.flush()

    yield watch
    sys.stderr.write("\r\x1b[K")
