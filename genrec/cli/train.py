"""``genrec train``, and the list of what it can train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli.options import data_options, given, read_data_options
from genrec.cli.tables import print_table

if TYPE_CHECKING:
    from genrec.data import Split
    from genrec.training import FitResult


@click.command()
@click.argument("model")
@data_options
@click.option("--recipe", help="A shipped recipe's name, or a TOML file with [data], [model] and [fit].")
@click.option("--preset", help="Sizes of the model that have a name; `genrec zoo MODEL` lists them.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of model or fit; repeatable.")
@click.option(
    "--semantic-ids",
    "ids",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="For models that write codes of items: a folder of `genrec semantic-ids`. Without, they make their own.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run folder to write; runs/MODEL if not given.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", type=click.Choice(["32", "bf16-mixed", "16-mixed"]), help="Of training.")
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Measure the counted models beside a trained one, for its card.",
)
def train(
    model: str,
    recipe: str | None,
    preset: str | None,
    settings: tuple[str, ...],
    ids: Path | None,
    out: Path | None,
    resume: bool,
    seed: int,
    device: str | None,
    precision: str | None,
    baselines: bool,
    **data: Any,
) -> None:
    """Train MODEL, a name of `genrec zoo` or package.module:Class, and score it on the test cases."""
    from dataclasses import asdict

    from genrec.training import FitConfig, check_settings, fit, parse_setting, read_recipe
    from genrec.training.contract import is_counted
    from genrec_models import BASELINES, build, model_class, preset_of, recipe_path

    kind = model_class(model)
    tables = read_recipe(recipe_path(recipe, model)) if recipe else None
    chosen = tables.model | tables.fit if tables else {}
    chosen |= preset_of(kind, preset) if preset else {}
    chosen |= dict(map(parse_setting, settings)) | given(device=device, precision=precision)
    taken = check_settings(chosen, model=kind, fit=FitConfig)
    config = FitConfig(**taken["fit"])
    options = read_data_options(tables.data if tables else {}, data)
    split = options.load()
    out = Path("runs", model.replace(":", ".")) if out is None else out
    built = build(kind, len(split.data.items), taken["model"], seed)
    if ids is not None:
        _give_codes(built, ids, split)
    counted = [] if is_counted(built) or not baselines else BASELINES
    try:
        result = fit(
            built,
            split,
            out=out,
            seed=seed,
            config=config,
            resume=resume,
            progress=True,
            data_options=asdict(options),
            baselines={name: build(model_class(name), len(split.data.items), {}) for name in counted},
        )
    except KeyboardInterrupt:
        raise click.ClickException(f"interrupted; the same command with --resume goes on with {out}") from None
    _print_result(result)


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="quickstart", show_default=True, help="The folder to write."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
def quickstart(out: Path, seed: int) -> None:
    """Train, measure, export, prove, serve and draw on the embedded data: the whole of genrec in a minute."""
    from genrec.quickstart import quickstart as run

    run(out, seed, click.echo)


def _give_codes(model: Any, folder: Path, split: Split) -> None:
    """The codes in a folder of ``genrec semantic-ids``, for a model that takes codes."""
    import torch

    from genrec_models import load_semantic_ids

    if not hasattr(model, "set_codes"):
        raise click.UsageError(f"--semantic-ids: {type(model).__name__} writes no codes")
    ids = load_semantic_ids(folder)
    if ids.catalogue.items != split.data.items:
        raise ValueError(
            f"{folder} has the codes of {len(ids.catalogue.items):,} items that are not the {len(split.data.items):,} of the "
            "data; make them of the same data with the same filters"
        )
    model.set_codes(torch.nn.functional.pad(torch.from_numpy(ids.codes), (0, 0, 1, 0)))


def _print_result(result: FitResult) -> None:
    from genrec.training import Evaluation

    if result.folder is None or not result.is_main_process:
        return
    if result.already_done:
        click.echo(f"{result.folder} holds a finished run of these settings: nothing to do", err=True)
    columns = {name: Evaluation.from_json(result.metrics[name]) for name in ("valid", "test")}
    print_table({name: one.metrics for name, one in columns.items()}, [one.cases for one in columns.values()])
    if result.metrics["best_epoch"]:
        click.echo(f"best epoch {result.metrics['best_epoch']} of {len(result.metrics['epochs'])}")
    click.echo(f"wrote {result.folder}")
