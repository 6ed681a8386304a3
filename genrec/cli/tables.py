"""Metrics as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genrec.training import Evaluation


def print_table(columns: Mapping[str, Evaluation]) -> None:
    """Metrics as rows; for the two paths of one model also their difference."""
    names: Sequence[str] = list(columns)
    paired = names == ["torch", "bundle"]
    click.echo(f"{'':<12}" + "".join(f"{name:>12}" for name in [*names, *(["difference"] if paired else [])]))
    for metric in next(iter(columns.values())).metrics:
        values = [column.metrics[metric] for column in columns.values()]
        difference = f"{values[1] - values[0]:>12.6f}" if paired else ""
        click.echo(f"{metric:<12}" + "".join(f"{value:>12.6f}" for value in values) + difference)
    click.echo(f"{'cases':<12}" + "".join(f"{column.cases:>12}" for column in columns.values()))
