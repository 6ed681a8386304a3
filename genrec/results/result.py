"""``Result``: what was measured on a split's test cases, as means and by user, in files that can be compared."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import offsets_of
from genrec.results.files import read_json, write_json, write_whole

Floats = NDArray[np.float64]

METRICS = "metrics.json"
PER_USER = "per_user.npz"
FORMAT = "genrec-metrics"
FORMAT_VERSION = 1
COMPARED = (  # keys of a protocol that must be equal before two results are compared
    "content_hash",
    "split",
    "cutoffs",
    "history",
    "target",
    "ranking",
    "seen_filter",
    "counts",
)
_TOLERANCE = 1e-9  # between a mean in metrics.json and that of the users' values: float64 sums in another order


@dataclass(frozen=True, eq=False)
class Result:
    """What one model scored on the test cases of one split.

    Args:
        name: what tables call it.
        metrics: means over users, such as ``"recall@10"``, and numbers of all lists together, such as ``"coverage@10"``.
        users: (n,) the raw ids of the test cases' users, each once, in the order of the cases; int64, or objects of str.
        values: per user, float64 (n,), NaN where a metric leaves a user out; a subset of the names in ``metrics``.
        protocol: what the numbers mean: the ``protocol`` of ``metrics.json``.
        details: ``model`` (a name), ``config`` (its settings), ``fit`` (how it was fitted, where that is known), ``seed`` (None
            where nothing is random).

    Raises:
        TypeError: if the users are neither int64 nor texts.
        ValueError: if a user occurs twice, or there are not as many values as users.
    """

    name: str
    metrics: dict[str, float]
    users: NDArray[Any]
    values: dict[str, Floats]
    protocol: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_users(self.users, self.values)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``per_user.npz`` and, last, ``metrics.json``; files of these names are replaced.

        Args:
            folder: made if it is missing.

        Raises:
            OSError: if it cannot be written.
            ValueError: if a mean is not finite.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_per_user(folder, self.users, self.values)
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "details": self.details,
            "protocol": self.protocol,
            "test": {**self.metrics, "cases": len(self.users)},
        }
        write_json(folder / METRICS, content)


def read_result(folder: str | os.PathLike[str]) -> Result:
    """Reads what ``Result.write`` or a training left in a folder.

    Args:
        folder: of a finished run, or one that ``genrec evaluate --out`` wrote; its name is the result's where the files
            give none.

    Raises:
        ValueError: if a file is missing, damaged or of a newer format, or the two are not of one evaluation.
    """
    folder = Path(folder)
    if not (folder / METRICS).is_file():
        raise ValueError(f"{folder} has no {METRICS}: it is no folder of a finished run or of genrec evaluate --out")
    content = read_json(folder / METRICS)
    if (content.get("format"), content.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise ValueError(
            f"{folder / METRICS} must be of format {FORMAT!r}, version {FORMAT_VERSION}, not "
            f"{content.get('format')!r}, version {content.get('format_version')!r}"
        )
    if not (folder / PER_USER).is_file():
        raise ValueError(
            f"{folder} has no {PER_USER}, the values by user; write them with: genrec evaluate {folder} --out FOLDER"
        )
    users, values = _read_per_user(folder / PER_USER)
    metrics = _metrics(folder / METRICS, content.get("test"))
    _check_means(folder, metrics, values)
    protocol = content.get("protocol")
    if not isinstance(protocol, dict):
        raise ValueError(f"{folder / METRICS}: protocol must be an object, got {protocol!r}")
    name = content.get("name", folder.resolve().name)
    return Result(name, metrics, users, values, protocol, _details(folder, content))


def details_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's ``config.json`` says of the model: its name, its settings, how it was fitted, and the seed."""
    return {"model": None, "config": {}, "seed": None} | {
        name: config[name] for name in ("model", "config", "fit", "seed") if name in config
    }


def check_users(users: NDArray[Any], values: Mapping[str, Floats]) -> None:
    """Refuses users and values that are no columns of one table with a row a user.

    Raises:
        TypeError: if the users are neither int64 nor texts, or values not float64.
        ValueError: if a user occurs twice, or there are not as many values as users.
    """
    texts = users.dtype == object and all(isinstance(user, str) for user in users.tolist())
    if not texts and users.dtype != np.int64:
        raise TypeError(f"users must be int64 or objects of str, not {users.dtype}")
    if users.ndim != 1 or len(set(users.tolist())) < users.size:
        raise ValueError(f"users must stand in one column, each once, got shape {users.shape}")
    for name, column in values.items():
        if column.dtype != np.float64:
            raise TypeError(f"the values of {name} must be float64, not {column.dtype}")
        if column.shape != users.shape:
            raise ValueError(f"the values of {name} have shape {column.shape}, the users {users.shape}")


def write_per_user(folder: Path, users: NDArray[Any], values: Mapping[str, Floats]) -> None:
    """Writes ``per_user.npz``: ``users`` as int64, or ``users.utf8`` with ``users.offsets``; and each metric by its name."""
    check_users(users, values)
    if users.dtype == object:
        encoded = [user.encode() for user in users.tolist()]
        text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        columns = {"users.utf8": text, "users.offsets": offsets_of(list(map(len, encoded)))}
    else:
        columns = {"users": users}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns, **values)  # type: ignore[arg-type]  # names with an "@" are names, too
    write_whole(folder / PER_USER, buffer.getvalue())


def _read_per_user(path: Path) -> tuple[NDArray[Any], dict[str, Floats]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        if "users" in columns:
            users = columns.pop("users")
        else:
            users = _texts(columns.pop("users.utf8").tobytes(), columns.pop("users.offsets").tolist())
        check_users(users, columns)
    except Exception as error:  # a damaged archive fails in many ways, from zlib to the header's tokenizer
        raise ValueError(f"{path} is no readable file of values by user: {error}") from error
    return users, columns


def _texts(text: bytes, offsets: list[int]) -> NDArray[Any]:
    users = np.empty(max(len(offsets) - 1, 0), dtype=object)
    users[:] = [text[start:end].decode() for start, end in itertools.pairwise(offsets)]
    return users


def _metrics(path: Path, test: Any) -> dict[str, float]:
    if not isinstance(test, dict):
        raise ValueError(f"{path}: test must be an object of metrics, got {test!r}")
    metrics = {name: value for name, value in test.items() if "@" in name}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{path}: {name} must be a number, got {value!r}")
    return metrics


def _check_means(folder: Path, metrics: Mapping[str, float], values: Mapping[str, Floats]) -> None:
    for name, column in values.items():
        kept = column[~np.isnan(column)]
        mean = float(kept.mean()) if kept.size else 0.0
        if name not in metrics or abs(mean - metrics[name]) > _TOLERANCE:
            raise ValueError(
                f"{folder}: {METRICS} and {PER_USER} are not of one evaluation: {name} is {metrics.get(name)} in the "
                f"one and {mean} in the mean of the other"
            )


def _details(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What was evaluated, by the file itself or by the settings of the run that lie beside it."""
    if "details" in content:
        details: dict[str, Any] = content["details"]
        return details
    return details_of(read_json(folder / "config.json") if (folder / "config.json").is_file() else {})
