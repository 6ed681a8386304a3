"""``genrec compare``: which differences between runs stand."""

from __future__ import annotations

from pathlib import Path

import click

from genrec.cards import LEFT_OUT
from genrec.cli.tables import WHY


@click.command()
@click.argument("folders", metavar="A B [C ...]", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metrics",
    default="ndcg@10,recall@10",
    show_default=True,
    help="Those to test, comma-separated; chosen before looking.",
)
@click.option(
    "--over-seeds",
    is_flag=True,
    help="Compare methods: runs that differ in their seeds alone are one, as are files' results of one --name.",
)
@click.option("--all-pairs", is_flag=True, help="Each against each, not only against the first.")
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of intervals; a difference stands if its p is at most 1 minus this.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draws of users and signs."
)
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="A file for every figure, in full.")
@click.option(
    "--latex", "latex_file", type=click.Path(path_type=Path), help="A file for a table of the tested metrics."
)
def compare(
    folders: tuple[Path, ...],
    metrics: str,
    over_seeds: bool,
    all_pairs: bool,
    confidence: float,
    seed: int,
    csv_file: Path | None,
    latex_file: Path | None,
) -> None:
    """Hold runs B, C, ... against A, user by user, and say which differences stand.

    Each is the folder of a run, or one that `genrec evaluate --out` wrote. They must be of the same data, protocol and
    users.
    """
    from genrec.results.comparison import compare as compare_runs
    from genrec.results.result import read_result
    from genrec.results.seeds import compare_seeds, group_runs
    from genrec.results.tables import csv_table, latex_table, text_table

    results = [read_result(folder) for folder in folders]
    tested = [name.strip() for name in metrics.split(",") if name.strip()]
    if over_seeds:
        found = compare_seeds(group_runs(results), tested, confidence=confidence, all_pairs=all_pairs)
    else:
        found = compare_runs(results, tested, confidence=confidence, seed=seed, all_pairs=all_pairs)
    click.echo(text_table(found, LEFT_OUT))
    click.echo(f"({WHY})")
    for path, table in ((csv_file, csv_table), (latex_file, latex_table)):
        if path is not None:
            path.write_text(table(found), encoding="utf-8")
            click.echo(f"wrote {path}")
