"""``genrec data``: looking at events, and splitting them into files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli.options import data_options, read_data_options

if TYPE_CHECKING:
    from genrec.data import SequenceData


@click.group()
def data() -> None:
    """Look at data, or split them into files."""


@data.command("describe")
@data_options
def describe(**data: Any) -> None:
    """Print what is in the data after their filters."""
    for name, value in _description(read_data_options({}, data).sequences()).items():
        click.echo(f"{name:<18} {value}")


@data.command("split")
@data_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def split_data(out: Path, **data: Any) -> None:
    """Write train, valid and test as Parquet, with a protocol.json that says how they came about."""
    from genrec.data import write_split

    parts = read_data_options({}, data).load()
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty; name another folder")
    write_split(parts, out)
    counts = parts.protocol()["counts"]
    click.echo(", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items()))
    click.echo(f"content hash {parts.data.content_hash}")
    click.echo(f"wrote {out}")


def _description(data: SequenceData) -> dict[str, str]:
    import numpy as np

    lengths, events = data.events.lengths, len(data.events.values)
    lines = {
        "source": data.source,
        "users": f"{len(lengths):,}",
        "items": f"{len(data.items):,}",
        "events": f"{events:,}",
        "density": f"{events / len(lengths) / len(data.items):.2%}",
        "events of a user": f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):g}",
    }
    if data.times is not None:
        first, last = np.array([data.times.min(), data.times.max()], dtype="datetime64[s]")
        later = np.ones(events, dtype=bool)
        later[data.events.offsets[:-1]] = False  # a user's first event follows none
        tied = int(np.sum(later[1:] & (np.diff(data.times) == 0)))
        lines |= {
            "time": f"{first} to {last} UTC",
            "at the same time": f"{tied:,} events as the one before (file order kept)",
        }
    filters = ", ".join(f"{name} {value}" for name, value in data.filters.items())
    return lines | {"filters": filters or "none", "content hash": data.content_hash}
