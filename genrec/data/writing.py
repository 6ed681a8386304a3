"""A split as files that other tools can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from genrec.data.splits import Split

FILES = ("train.parquet", "valid.parquet", "test.parquet")
COLUMNS = (
    "user and item are the raw ids, time is in seconds; rows stand by user and then in the order of their history; "
    "target is true on the events that are to be predicted, whose histories are the user's rows above them in "
    "train, valid and test, in this order"
)


def write_split(split: Split, folder: str | Path) -> None:
    """Writes ``train.parquet``, ``valid.parquet``, ``test.parquet`` and, last, ``protocol.json``.

    Every event stands in just one of the three. With leave-one-out the validation and test files hold one event a
    user; a temporal split puts all events of a window in its file, of which the first one a user is the target.

    Args:
        split: what to write.
        folder: made if it is missing; files of these names are replaced.

    Raises:
        OSError: if it cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame, windows = _frame(split), _windows(split)
    for window, name in enumerate(FILES):
        part = frame.filter(pl.Series(windows == window))
        part.drop("target" if window == 0 else []).write_parquet(folder / name)
    rows = dict(zip(FILES, np.bincount(windows, minlength=3).tolist(), strict=True))
    text = json.dumps(split.protocol() | {"columns": COLUMNS, "rows": rows}, indent=2, ensure_ascii=False)
    (folder / "protocol.json").write_text(text + "\n", encoding="utf-8")


def _frame(split: Split) -> pl.DataFrame:
    data = split.data
    rows = np.repeat(np.arange(len(data.events)), data.events.lengths)
    target = np.zeros(len(data.events.values), dtype=bool)
    for cases in (split.valid, split.test):
        target[data.events.offsets[cases.users] + cases.ends] = True
    columns = {
        "user": pl.Series(data.user_ids.tolist() if data.user_ids.dtype == object else data.user_ids).gather(rows),
        "item": pl.Series(data.items.all()).gather(data.events.values - 1),
    }
    columns |= {} if data.times is None else {"time": pl.Series(data.times)}
    return pl.DataFrame(columns | {"target": pl.Series(target)})


def _windows(split: Split) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """(N,) 0, 1, 2: whether an event belongs to training, validation or test."""
    events = split.data.events
    position = np.arange(len(events.values)) - np.repeat(events.offsets[:-1], events.lengths)
    trained = position < np.repeat(split.train_ends, events.lengths)
    tested = position >= np.repeat(split.test_starts(), events.lengths)
    return np.where(trained, 0, np.where(tested, 2, 1)).astype(np.int8)
