"""What several commands share: their errors on one line, and the options that name data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from genrec.data import Split
    from genrec.training import DataOptions
    from genrec_models import Run

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]

USERS_ERRORS = (ValueError, TypeError, OSError, ImportError, ArithmeticError)  # DataError is a ValueError
SPLIT_OPTIONS = {"split", "valid_from", "test_from"}
SPLITS = ("leave-one-out", "temporal")
SPLIT: Option = click.option("--split", type=click.Choice(SPLITS), help="How to part the events.")
TRAIN_PACKAGES = ("torch", "lightning", "polars", "safetensors", "rich", "tensorboard", "pooch")


class OneLineErrors(click.Group):
    """Prints what a user can cause as one line on standard error, and ends with 1."""

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(context)
        except USERS_ERRORS as error:
            click.echo(f"error: {_one_line(error)}", err=True)
            sys.exit(1)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    package = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if package is not None and package.partition(".")[0] in TRAIN_PACKAGES:
        return f"{text}; install it with: pip install 'genrec[train]'"
    return text


def data_options(command: Command, split: Option = SPLIT) -> Command:
    """The options that say what data are used, in the order of a page of help; ``split`` may be another than the usual one."""
    for option in reversed(
        [
            click.option("--data", "source", help="A CSV, TSV or Parquet file (.gz too), or a data set's name."),
            click.option("--user-col", help="The users' column; common names are found."),
            click.option("--item-col", help="The items' column."),
            click.option("--time-col", help="The times' column."),
            click.option("--rating-col", help="The ratings' column."),
            click.option("--min-rating", type=float, help="Leave out events rated lower."),
            click.option("--items", type=click.Path(), help="A file with the items' titles."),
            click.option("--title-col", help="The titles' column in it."),
            click.option("--dedup", type=click.Choice(["first", "none"]), help="Keep a user's first event of an item."),
            click.option("--k-core", type=click.IntRange(min=0), help="Fewest events of each user and item."),
            split,
            click.option("--valid-from", help="Temporal split: where validation begins (date or seconds)."),
            click.option("--test-from", help="Temporal split: where the test begins."),
        ]
    ):
        command = option(command)
    return command


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def read_data_options(recipe: Mapping[str, Any], options: Mapping[str, Any]) -> DataOptions:
    """A recipe's data table with the options of the command line over it; files by their full paths."""
    from genrec.training import DataOptions, check_settings

    chosen = given(**options)
    if SPLIT_OPTIONS & chosen.keys():  # they say together how to split: the recipe's no longer hold
        recipe = {name: value for name, value in recipe.items() if name not in SPLIT_OPTIONS}
    settings = check_settings({**recipe, **chosen}, data=DataOptions)["data"]
    if "source" not in settings:
        raise click.UsageError("no data: give --data with a file or a data set's name, or a recipe that names one")
    if "split" not in settings and settings.get("valid_from") is not None:
        settings["split"] = "temporal"
    for name in ("source", "items"):
        if settings.get(name) is not None and Path(settings[name]).is_file():
            settings[name] = str(Path(settings[name]).resolve())
    return DataOptions(**settings)


def split_of(run: Run, data: Mapping[str, Any]) -> Split:
    """The data that a run was trained on, split as they were; or those that options of the command line name."""
    saved = run.config["data"]
    own = not given(**data)
    if own and not saved["options"]:
        raise ValueError(f"{run.folder} does not say where its data came from; name them by --data")
    split = read_data_options(saved["options"], data).load()
    if own and split.data.content_hash != saved["hash"]:
        raise ValueError(
            f"the data of {run.folder} have changed: {saved['source']} had hash {saved['hash'][:12]} and has "
            f"{split.data.content_hash[:12]}; name them by --data to use them all the same"
        )
    return split


def cut_offs(text: str) -> list[int]:
    """The rising cut-offs of an option such as ``--ks 5,10,20``."""
    try:
        cuts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise click.UsageError(f"--ks {text!r} must be whole numbers, comma-separated") from None
    if cuts[0] < 1:
        raise click.UsageError(f"--ks {text!r}: cut-offs start at 1")
    return cuts
