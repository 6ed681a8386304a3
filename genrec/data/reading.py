"""A split read back from the files that ``write_split`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from genrec.data.columns import MICROSECONDS
from genrec.data.errors import DataError
from genrec.data.interactions import Interactions
from genrec.data.sequences import SequenceData
from genrec.data.splits import Split, leave_one_out, temporal_split
from genrec.data.writing import FILES


def read_split(folder: str | Path) -> Split:
    """The inverse of ``write_split``: the same events, numbers, cases and protocol; titles are not in the files.

    Args:
        folder: holds ``train.parquet``, ``valid.parquet``, ``test.parquet`` and ``protocol.json``.

    Raises:
        DataError: if a file is missing or damaged, or the events are not those that ``protocol.json`` speaks of.
    """
    folder = Path(folder)
    protocol = _protocol(folder)
    try:
        frame = pl.concat([pl.read_parquet(folder / name).drop("target", strict=False) for name in FILES])
        if "time" in frame.columns:
            frame = frame.with_columns(pl.col("time") * MICROSECONDS)
        events = Interactions(frame, protocol["source"], protocol["filters"])
        data = SequenceData.from_interactions(events)
        split = _split(data, protocol)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a readable split of genrec data split: {str(error).splitlines()[0]}") from error
    found = split.protocol()
    for key in ("content_hash", "counts"):
        if found[key] != protocol[key]:
            raise DataError(
                f"{folder}: the files are not those that protocol.json speaks of: {key} is {found[key]!r} and should be "
                f"{protocol[key]!r}; write them anew with: genrec data split"
            )
    return split


def _protocol(folder: Path) -> dict[str, Any]:
    path = folder / "protocol.json"
    if not path.is_file():
        raise DataError(
            f"{folder} is no split: it has no protocol.json; write one with: genrec data split --out FOLDER"
        )
    try:
        protocol = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    wanted = {"split", "cutoffs", "source", "filters", "content_hash", "counts"}
    if not isinstance(protocol, dict) or wanted - protocol.keys():
        raise DataError(f"{path} must hold an object with {', '.join(sorted(wanted))}")
    return protocol


def _split(data: SequenceData, protocol: dict[str, Any]) -> Split:
    if protocol["split"] == "leave_one_out":
        return leave_one_out(data)
    if protocol["split"] == "temporal":
        return temporal_split(data, protocol["cutoffs"]["valid_from"], protocol["cutoffs"]["test_from"])
    raise DataError(f"protocol.json: split ({protocol['split']!r}) must be 'leave_one_out' or 'temporal'")
