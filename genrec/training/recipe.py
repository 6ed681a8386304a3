"""Recipes and settings: TOML tables and ``key=value`` texts that fill dataclasses and constructors, and nothing else."""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from genrec.data import SequenceData, Split, leave_one_out, load_data, temporal_split

Settings = dict[str, Any]


@dataclass(frozen=True)
class DataOptions:
    """Where events come from, what is left out, and how they are split; the ``[data]`` of a recipe.

    Args:
        source: a file, or a data set's name.
        user_col: name of the users' column; None looks for a common one, likewise for the next ones.
        item_col: name of the items' column.
        time_col: name of the times' column.
        rating_col: name of the ratings' column.
        min_rating: events rated lower are left out; None keeps all.
        dedup: "first" keeps a user's first event of an item, "none" all.
        k_core: fewest events of a user and of an item; 0 keeps all.
        items: a file with the items' titles; None for no titles.
        title_col: name of the titles' column in it.
        split: "leave-one-out" or "temporal".
        valid_from: where validation begins in a temporal split: seconds since 1970, or an ISO date or datetime.
        test_from: where its test begins.

    Raises:
        ValueError: if the split is unknown, or its moments are missing or not wanted.
    """

    source: str
    user_col: str | None = None
    item_col: str | None = None
    time_col: str | None = None
    rating_col: str | None = None
    min_rating: float | None = None
    dedup: Literal["first", "none"] = "first"
    k_core: int = 0
    items: str | None = None
    title_col: str | None = None
    split: Literal["leave-one-out", "temporal"] = "leave-one-out"
    valid_from: str | int | None = None
    test_from: str | int | None = None

    def __post_init__(self) -> None:
        if self.split not in ("leave-one-out", "temporal"):
            raise ValueError(f"split ({self.split!r}) must be 'leave-one-out' or 'temporal'")
        given = [self.valid_from is not None, self.test_from is not None]
        if self.split == "temporal" and not all(given):
            raise ValueError("split 'temporal' needs valid_from and test_from")
        if self.split != "temporal" and any(given):
            raise ValueError(f"valid_from and test_from belong to split 'temporal', not {self.split!r}")

    def sequences(self) -> SequenceData:
        """Loads and filters the data.

        Raises:
            DataError: if anything about the data is wrong.
        """
        return load_data(
            self.source,
            user_col=self.user_col,
            item_col=self.item_col,
            time_col=self.time_col,
            rating_col=self.rating_col,
            min_rating=self.min_rating,
            dedup=self.dedup,
            k_core=self.k_core,
            items=self.items,
            title_col=self.title_col,
        )

    def load(self) -> Split:
        """Loads, filters and splits the data.

        Raises:
            DataError: if anything about the data is wrong, or nothing is left for one of the parts.
        """
        data = self.sequences()
        if self.valid_from is None or self.test_from is None:
            return leave_one_out(data)
        return temporal_split(data, self.valid_from, self.test_from)


@dataclass(frozen=True)
class Recipe:
    """The three tables of a recipe; what one leaves out keeps its default.

    Args:
        data: fields of ``DataOptions``.
        model: arguments of the model's constructor.
        fit: fields of ``FitConfig``.
    """

    data: Settings = field(default_factory=dict)
    model: Settings = field(default_factory=dict)
    fit: Settings = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Reads a recipe's TOML file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no TOML, or holds something else than the three tables.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    tables = [f.name for f in fields(Recipe)]
    for name, table in content.items():
        if name not in tables or not isinstance(table, dict):
            raise ValueError(f"{path}: {name!r} is none of the tables [data], [model], [fit]")
    return Recipe(**content)


def parse_setting(text: str) -> tuple[str, Any]:
    """A name and a value out of ``name=value``; the value is read as TOML, or else taken as text.

    Raises:
        ValueError: if there is no ``=``.

    >>> parse_setting("dropout=0.5"), parse_setting("loss=sampled_softmax")
    (('dropout', 0.5), ('loss', 'sampled_softmax'))
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} must have the form name=value")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def check_settings(settings: Mapping[str, Any], **takers: Callable[..., Any]) -> dict[str, Settings]:
    """Hands every setting to the dataclass or constructor that has an argument of its name.

    Args:
        settings: names and values.
        takers: by a name for messages, what takes settings; the first that knows a setting gets it.

    Returns:
        Each taker's settings.

    Raises:
        ValueError: if none knows a setting, with the closest names, or its value is of another type.
    """
    known = {taker: _arguments(call) for taker, call in takers.items()}
    taken: dict[str, Settings] = {taker: {} for taker in takers}
    for name, value in settings.items():
        taker = next((taker for taker, arguments in known.items() if name in arguments), None)
        if taker is None:
            raise ValueError(f"unknown setting {name!r} of {' and '.join(takers)}; {_closest(name, known)}")
        taken[taker][name] = _typed(name, value, known[taker][name])
    return taken


def _arguments(call: Callable[..., Any]) -> dict[str, Any]:
    """Argument names with their types; the catalogue's size comes from the data and is no setting."""
    signature = inspect.signature(call)
    hints = get_type_hints(inspect.getattr_static(call, "__init__") if isinstance(call, type) else call)
    return {name: hints.get(name, Any) for name in signature.parameters if name != "num_items"}


def _closest(name: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    names = [argument for arguments in known.values() for argument in arguments]
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names) or 'none'}"


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as the type asked for: a whole number will do for a float, and nothing else for anything else."""
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value is None and NoneType in choices:
        return None
    for choice in choices:
        if get_origin(choice) is Literal and str(value) in get_args(choice):
            return str(value)
        if get_origin(choice) is Sequence and isinstance(value, list):
            (of,) = get_args(choice)
            return tuple(_typed(f"an entry of {name}", entry, of) for entry in value)
        if choice is Any or (isinstance(choice, type) and type(value) is choice):
            return value
    if float in choices and type(value) is int:
        return float(value)
    if str in choices and not isinstance(value, (dict, list)):
        return str(value)
    raise ValueError(f"{name} ({value!r}) must be {_spoken(choices)}")


def _spoken(choices: tuple[Any, ...]) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    allowed: list[str] = []
    for choice in choices:
        allowed += (
            [repr(v) for v in get_args(choice)] if get_origin(choice) is Literal else [words.get(choice, str(choice))]
        )
    return " or ".join(word for word in allowed if word != str(NoneType))
