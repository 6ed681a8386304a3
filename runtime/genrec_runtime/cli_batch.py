"""``genrec-runtime batch``: recommendations for all rows of Parquet files."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec_runtime.cli_options import BUNDLE, DEVICE, VARIANT

if TYPE_CHECKING:
    from genrec_runtime.batch import Summary


@click.command()
@BUNDLE
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--history", help="Column of the histories: lists of item ids, oldest first. Common names are found.")
@click.option("--user", help="Column of the users' ids.")
@click.option("--timestamps", help="Column of the histories' times, for models that read them.")
@click.option("--request-time", help="Column of the times of the requests, likewise.")
@click.option("--exclude", help="Column of lists of items not to be recommended.")
@click.option("--keep", multiple=True, help="A further column to copy to the output; repeatable.")
@click.option("-k", "--k", type=int, default=None, help="How many items; the bundle's default if not given.")
@click.option("--include-seen", is_flag=True, help="Recommend items of the history again.")
@click.option("--on-unknown", type=click.Choice(["drop", "error"]), help="Drop unknown ids, or set their rows aside.")
@click.option("--availability", type=click.Path(path_type=Path), help="A file: one raw id a line, only these.")
@click.option("--part-rows", type=click.IntRange(1), default=20_000, show_default=True, help="Rows of an output file.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="How many work at once; 1 if not given, with --ray what there is room for.",
)
@click.option("--threads", type=click.IntRange(1), help="Of each; its share of all if not given, with --ray 1.")
@click.option("--ray", metavar="ADDRESS", help="Work on a Ray cluster: host:port of its head, auto, or local.")
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="The largest share of rows that may be set aside.",
)
@VARIANT
@DEVICE
def batch(bundle: Path, source: Path, out: Path, **options: Any) -> None:
    """Recommend after every history of IN, a Parquet file or a folder of them, into the folder OUT.

    OUT/parts/*.parquet are the answers, in the order of the input; OUT/quarantine/*.jsonl the rows that could not be answered.
    Started again after it was ended in any way, the same command makes only what is missing.
    """
    from genrec_runtime.batch.jobs import Ask, Columns, plan
    from genrec_runtime.batch.progress import progress
    from genrec_runtime.batch.running import run
    from genrec_runtime.onray.offline import run_on_ray

    names = {name: options[name] for name in ("history", "user", "timestamps", "request_time", "exclude", "keep")}
    seen = False if options["include_seen"] else None
    ask = Ask(options["k"], seen, options["on_unknown"], options["variant"], options["device"])
    further = {name: options[name] for name in ("availability", "part_rows")}
    planned = plan(bundle, source, out, columns=Columns(**names), ask=ask, **further)
    with _ended_by_sigterm(), progress(planned.rows) as watch:
        how = {"threads": options["threads"], "max_bad": options["max_bad"], "watch": watch}
        if options["ray"] is None:
            summary = run(planned, processes=options["processes"] or 1, **how)
        else:
            summary = run_on_ray(planned, options["ray"], workers=options["processes"], **how)
    _print(summary, out)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the command as Ctrl-C does: in order, its processes first."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(summary: Summary, out: Path) -> None:
    statuses = ", ".join(f"{count:,} {status}" for status, count in summary.status.items())
    click.echo(
        f"{summary.rows:,} rows: {summary.answered:,} answered ({statuses or 'none'}), {summary.bad:,} set aside"
    )
    click.echo(f"{summary.parts:,} parts in {out / 'parts'}, {summary.new_parts:,} of them made now")
    if summary.bad:
        reasons = ", ".join(f"{count:,} {code}" for code, count in summary.reasons.items())
        click.echo(f"set aside in {out / 'quarantine'}: {reasons}", err=True)
    if summary.unknown_items:
        click.echo(f"unknown to the bundle: {summary.unknown_items:,} of {summary.ids:,} item ids", err=True)
