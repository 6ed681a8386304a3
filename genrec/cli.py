"""The command ``genrec``: a thin shell around the libraries, which are imported inside the commands that need them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from genrec import __version__

if TYPE_CHECKING:
    from genrec.data import SequenceData, Split
    from genrec.training import DataOptions, Evaluation, FitResult
    from genrec_models import Run

Command = TypeVar("Command", bound=Callable[..., Any])

USERS_ERRORS = (ValueError, TypeError, OSError, ImportError, ArithmeticError)  # DataError is a ValueError
SPLIT_OPTIONS = {"split", "valid_from", "test_from"}
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


def data_options(command: Command) -> Command:
    """The options that say what data are used, in the order of a page of help."""
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
            click.option("--split", type=click.Choice(["leave-one-out", "temporal"]), help="How to part the events."),
            click.option("--valid-from", help="Temporal split: where validation begins (date or seconds)."),
            click.option("--test-from", help="Temporal split: where the test begins."),
        ]
    ):
        command = option(command)
    return command


@click.group(cls=OneLineErrors)
@click.version_option(__version__)
def main() -> None:
    """Train recommenders and measure them."""
    sys.path.append(str(Path.cwd()))  # a model of one's own, package.module:Class, may lie in the folder one works in


@main.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="quickstart", show_default=True, help="The folder to write."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
def quickstart(out: Path, seed: int) -> None:
    """Train, measure, export, prove, serve and draw on the embedded data: the whole of genrec in a minute."""
    from genrec.quickstart import quickstart as run

    run(out, seed, click.echo)


@main.command()
@click.argument("model")
@data_options
@click.option("--recipe", help="A shipped recipe's name, or a TOML file with [data], [model] and [fit].")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of model or fit; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder to write; runs/MODEL if not given.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", type=click.Choice(["32", "bf16-mixed", "16-mixed"]), help="Of training.")
def train(
    model: str,
    recipe: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    seed: int,
    device: str | None,
    precision: str | None,
    **data: Any,
) -> None:
    """Train MODEL, a name of `genrec zoo` or package.module:Class, and score it on the test cases."""
    from dataclasses import asdict

    from genrec.training import FitConfig, check_settings, fit, parse_setting, read_recipe
    from genrec_models import build, model_class, recipe_path

    kind = model_class(model)
    tables = read_recipe(recipe_path(recipe, model)) if recipe else None
    chosen = tables.model | tables.fit if tables else {}
    chosen |= dict(map(parse_setting, settings)) | _given(device=device, precision=precision)
    taken = check_settings(chosen, model=kind, fit=FitConfig)
    config = FitConfig(**taken["fit"])
    options = _data_options(tables.data if tables else {}, data)
    split = options.load()
    out = Path("runs", model.replace(":", ".")) if out is None else out
    try:
        result = fit(
            build(kind, len(split.data.items), taken["model"], seed),
            split,
            out=out,
            seed=seed,
            config=config,
            resume=resume,
            progress=True,
            data_options=asdict(options),
        )
    except KeyboardInterrupt:
        raise click.ClickException(f"interrupted; the same command with --resume goes on with {out}") from None
    _print_result(result)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@data_options
@click.option("--bundle", type=click.Path(path_type=Path), help="An exported bundle to score beside the run.")
@click.option(
    "--variant", default="fp32", show_default=True, help="The form of the bundle: fp32, or fp16, int8 if it has them."
)
@click.option("--ks", default="5,10,20", show_default=True, help="Cut-offs, comma-separated.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def evaluate(run: Path, bundle: Path | None, variant: str, ks: str, device: str, **data: Any) -> None:
    """Score the model in RUN on the test cases of its own data, or of those given here."""
    from genrec.training import start_fabric
    from genrec_models import load_run

    cuts = _cut_offs(ks)
    opened = load_run(run)
    saved = opened.config["data"]
    own = not _given(**data)
    if own and not saved["options"]:
        raise ValueError(f"{run} does not say where its data came from; name them by --data")
    split = _data_options(saved["options"], data).load()
    if own and split.data.content_hash != saved["hash"]:
        raise ValueError(
            f"the data of {run} have changed: {saved['source']} had hash {saved['hash'][:12]} and has "
            f"{split.data.content_hash[:12]}; name them by --data to use them all the same"
        )
    fabric = start_fabric(device)
    opened.model.to(fabric.device)
    columns = {"torch": _score_run(opened, split, cuts, lists=bundle is not None)}
    if bundle is not None:
        columns["bundle"] = _score_bundle(bundle, variant, split, cuts, device)
    if fabric.is_global_zero:
        _print_table(columns)


@main.group()
def data() -> None:
    """Look at data, or split them into files."""


@data.command("describe")
@data_options
def describe(**data: Any) -> None:
    """Print what is in the data after their filters."""
    for name, value in _description(_data_options({}, data).sequences()).items():
        click.echo(f"{name:<18} {value}")


@data.command("split")
@data_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def split_data(out: Path, **data: Any) -> None:
    """Write train, valid and test as Parquet, with a protocol.json that says how they came about."""
    from genrec.data import write_split

    parts = _data_options({}, data).load()
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty; name another folder")
    write_split(parts, out)
    counts = parts.protocol()["counts"]
    click.echo(", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items()))
    click.echo(f"content hash {parts.data.content_hash}")
    click.echo(f"wrote {out}")


@main.command()
def zoo() -> None:
    """List the models, and the recipes they come with."""
    from genrec_models import MODELS, SUMMARIES, recipe_names

    width = max(map(len, MODELS))
    for name in MODELS:
        click.echo(f"{name:<{width}}  {SUMMARIES[name]}")
        for recipe in recipe_names(name):
            click.echo(f"{'':<{width}}  recipe: genrec train {name} --recipe {recipe}")


def _score_run(run: Run, split: Split, ks: list[int], *, lists: bool) -> Evaluation:
    """By ranks in the catalogue; by lists of raw ids beside a bundle, or where the data know other items."""
    from genrec.training import evaluate, evaluate_lists
    from genrec_models import TorchRecommender

    if not lists and split.data.items == run.catalogue.items:
        return evaluate(run.model, split, ks=ks)
    recommender = TorchRecommender(run.model, run.catalogue)
    return evaluate_lists(lambda rows, k: [ids for ids, _ in recommender.recommend(rows, k)], split, ks=ks)


def _score_bundle(bundle: Path, variant: str, split: Split, ks: list[int], device: str) -> Evaluation:
    from genrec.training import evaluate_lists
    from genrec_runtime import GenrecError, Recommender

    try:
        recommender = Recommender.load(bundle, device=device, variant=variant)
        return evaluate_lists(lambda rows, k: recommender.recommend(rows, k=k).items, split, ks=ks)
    except GenrecError as error:
        raise ValueError(str(error)) from error


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _data_options(recipe: Mapping[str, Any], options: Mapping[str, Any]) -> DataOptions:
    """A recipe's data table with the options of the command line over it; files by their full paths."""
    from genrec.training import DataOptions, check_settings

    given = _given(**options)
    if SPLIT_OPTIONS & given.keys():  # they say together how to split: the recipe's no longer hold
        recipe = {name: value for name, value in recipe.items() if name not in SPLIT_OPTIONS}
    settings = check_settings({**recipe, **given}, data=DataOptions)["data"]
    if "source" not in settings:
        raise click.UsageError("no data: give --data with a file or a data set's name, or a recipe that names one")
    if "split" not in settings and settings.get("valid_from") is not None:
        settings["split"] = "temporal"
    for name in ("source", "items"):
        if settings.get(name) is not None and Path(settings[name]).is_file():
            settings[name] = str(Path(settings[name]).resolve())
    return DataOptions(**settings)


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


def _cut_offs(text: str) -> list[int]:
    try:
        cuts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise click.UsageError(f"--ks {text!r} must be whole numbers, comma-separated") from None
    if cuts[0] < 1:
        raise click.UsageError(f"--ks {text!r}: cut-offs start at 1")
    return cuts


def _print_result(result: FitResult) -> None:
    from genrec.training import Evaluation

    if result.folder is None or not result.is_main_process:
        return
    if result.already_done:
        click.echo(f"{result.folder} holds a finished run of these settings: nothing to do", err=True)
    columns = {name: Evaluation.from_json(result.metrics[name]) for name in ("valid", "test")}
    _print_table(columns)
    if result.metrics["best_epoch"]:
        click.echo(f"best epoch {result.metrics['best_epoch']} of {len(result.metrics['epochs'])}")
    click.echo(f"wrote {result.folder}")


def _print_table(columns: Mapping[str, Evaluation]) -> None:
    """Metrics as rows; for the two paths of one model also their difference."""
    names: Sequence[str] = list(columns)
    paired = names == ["torch", "bundle"]
    click.echo(f"{'':<12}" + "".join(f"{name:>12}" for name in [*names, *(["difference"] if paired else [])]))
    for metric in next(iter(columns.values())).metrics:
        values = [column.metrics[metric] for column in columns.values()]
        difference = f"{values[1] - values[0]:>12.6f}" if paired else ""
        click.echo(f"{metric:<12}" + "".join(f"{value:>12.6f}" for value in values) + difference)
    click.echo(f"{'cases':<12}" + "".join(f"{column.cases:>12}" for column in columns.values()))


if __name__ == "__main__":
    main()
