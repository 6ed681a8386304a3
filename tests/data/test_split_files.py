"""A split that was written and read back: the same events, cases and protocol, or a refusal."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.data import DataError, Interactions, SequenceData, Split, leave_one_out, temporal_split, write_split
from genrec.data.reading import read_split


def data(texts: bool, times: bool) -> SequenceData:
    """Users 8 to 13 of 1 to 6 events, half a second between two; as texts "u10" comes before "u8"."""
    random = np.random.default_rng(5)
    lengths = np.arange(1, 7)
    users = np.repeat(np.arange(8, 14), lengths)
    items = random.integers(1, 10, len(users)) * 7
    stamps = np.concatenate([np.arange(length) / 2 for length in lengths])
    return SequenceData.from_interactions(
        Interactions.from_arrays(
            [f"u{user}" for user in users] if texts else users,
            [f"{item:03}" for item in items] if texts else items,
            stamps if times else None,
        )
    )


@pytest.mark.parametrize("texts", [False, True], ids=["ints", "texts"])
@pytest.mark.parametrize(
    ("times", "part"),
    [(False, leave_one_out), (True, leave_one_out), (True, lambda data: temporal_split(data, 1, 2))],
    ids=["in order", "leave one out", "temporal"],
)
def test_a_split_comes_back_as_it_was(
    tmp_path: Path, texts: bool, times: bool, part: Callable[[SequenceData], Split]
) -> None:
    split = part(data(texts, times))
    write_split(split, tmp_path)
    found = read_split(tmp_path)
    assert found.protocol() == split.protocol()
    assert found.data.user_ids.tolist() == split.data.user_ids.tolist()
    for cases, same in ((found.valid, split.valid), (found.test, split.test)):
        assert (cases.users.tolist(), cases.ends.tolist()) == (same.users.tolist(), same.ends.tolist())
    assert found.popularity().tolist() == split.popularity().tolist()
    assert found.data.user_ids.dtype == split.data.user_ids.dtype


def written(folder: Path) -> Path:
    write_split(leave_one_out(data(False, True)), folder)
    return folder


def test_files_that_were_changed_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path) / "train.parquet"
    pl.read_parquet(path)[1:].write_parquet(path)
    with pytest.raises(DataError, match=r"not those that protocol.json speaks of: content_hash is .* and should be"):
        read_split(tmp_path)


def test_a_missing_or_damaged_file_is_told(tmp_path: Path) -> None:
    (written(tmp_path) / "valid.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="not a readable split"):
        read_split(tmp_path)
    (tmp_path / "valid.parquet").unlink()
    with pytest.raises(DataError, match="not a readable split"):
        read_split(tmp_path)
    (tmp_path / "protocol.json").unlink()
    with pytest.raises(DataError, match=r"is no split: it has no protocol.json; write one with: genrec data split"):
        read_split(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "by_hand"}, r"split \('by_hand'\) must be"),
        ({"cutoffs": 5, "split": "temporal"}, "not a readable split"),
        ({"counts": {}}, "speaks of: counts is"),
    ],
)
def test_a_protocol_of_something_else_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = written(tmp_path) / "protocol.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError, match=message):
        read_split(tmp_path)
    path.write_text("[]")
    with pytest.raises(DataError, match="must hold an object with content_hash, counts"):
        read_split(tmp_path)
