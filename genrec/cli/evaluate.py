"""``genrec evaluate``: a run, the bundle made from it, or the predictions of any code base, scored on the test cases."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli.options import SPLITS, cut_offs, data_options, given, split_of
from genrec.cli.tables import Interval, print_table

if TYPE_CHECKING:
    from genrec.data import Split
    from genrec.histories import RawId
    from genrec.results import Result
    from genrec.training import Evaluation
    from genrec_models import Run

COLUMNS = ("user_col", "item_col", "rank_col", "score_col")
SPLIT = click.option(
    "--split", help="leave-one-out or temporal; with --predictions the folder that genrec data split wrote."
)


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@partial(data_options, split=SPLIT)
@click.option("--bundle", type=click.Path(path_type=Path), help="An exported bundle to score beside the run.")
@click.option(
    "--variant", default="fp32", show_default=True, help="The form of the bundle: fp32, or fp16, int8 if it has them."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Instead of RUN, a CSV, TSV or Parquet file (.gz too) of user, item and rank or score; needs --split DIR.",
)
@click.option("--rank-col", help="Of --predictions: the ranks' column, 1 for the best; common names are found.")
@click.option("--score-col", help="Of --predictions: the scores' column, higher for the better.")
@click.option("--ks", default="5,10,20", show_default=True, help="Cut-offs, comma-separated.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A new folder for metrics.json and per_user.npz; those of --bundle go to the folder bundle in it.",
)
@click.option(
    "--name", help="What tables are to call the result in --out; the folder of RUN, or the file, if not given."
)
def evaluate(
    run: Path | None,
    bundle: Path | None,
    variant: str,
    device: str,
    predictions: Path | None,
    rank_col: str | None,
    score_col: str | None,
    ks: str,
    out: Path | None,
    name: str | None,
    **data: Any,
) -> None:
    """Score the model in RUN on the test cases of its own data, or of those given here.

    Or score a file: genrec evaluate --predictions FILE --split DIR, with DIR from genrec data split.
    """
    cuts = cut_offs(ks)
    if out is not None and out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty; name another folder")
    orders = {"rank_col": rank_col, "score_col": score_col}
    if predictions is None:
        if run is None:
            raise click.UsageError("give RUN, or --predictions FILE with --split DIR")
        if given(**orders):
            raise click.UsageError("--rank-col and --score-col belong to --predictions")
        if data["split"] not in (None, *SPLITS):
            raise click.UsageError(f"--split {data['split']!r}: without --predictions one of {', '.join(SPLITS)}")
        results = _run_results(run, bundle, variant, cuts, device, data, name)
    else:
        options = given(**data, **orders)
        folder = options.pop("split", None)
        if run is not None or bundle is not None or folder is None or options.keys() - set(COLUMNS):
            raise click.UsageError(
                "--predictions FILE goes with --split DIR and the names of columns, not with a run or data"
            )
        results = _file_results(predictions, folder, cuts, name, options)
    if results:
        _print(results, cuts)
        if out is not None:
            _write(results, out)


def _run_results(
    path: Path, bundle: Path | None, variant: str, ks: list[int], device: str, data: Mapping[str, Any], name: str | None
) -> dict[str, Result]:
    """By column of the table; empty in the other processes of a torchrun group."""
    from genrec.results.result import details_of
    from genrec.training import start_fabric
    from genrec_models import load_run

    run = load_run(path)
    split = split_of(run, data)
    fabric = start_fabric(device)
    run.model.to(fabric.device)
    scored = {"torch": _score_run(run, split, ks, lists=bundle is not None)}
    if bundle is not None:
        scored["bundle"] = _score_bundle(bundle, variant, split, ks, device)
    if not fabric.is_global_zero:
        return {}
    name = path.resolve().name if name is None else name
    names = {"torch": name, "bundle": f"{name} ({variant} bundle)"}
    return {column: one.result(names[column], split, details_of(run.config)) for column, one in scored.items()}


def _score_run(run: Run, split: Split, ks: list[int], *, lists: bool) -> Evaluation:
    """By ranks in the catalogue; by lists of raw ids beside a bundle, or where the data know other items."""
    from genrec.modules import reads
    from genrec.training import evaluate, evaluate_lists
    from genrec_models import TorchRecommender

    if not lists and split.data.items == run.catalogue.items:
        return evaluate(run.model, split, ks=ks, full=True)
    recommender = TorchRecommender(run.model, run.catalogue)

    def recommend(rows: list[Any], k: int, **further: Any) -> list[list[RawId]]:
        return [ids for ids, _ in recommender.recommend(rows, k, **further)]

    return evaluate_lists(recommend, split, ks=ks, reads=reads(run.model))


def _score_bundle(bundle: Path, variant: str, split: Split, ks: list[int], device: str) -> Evaluation:
    from genrec.training import evaluate_lists
    from genrec_runtime import GenrecError, Recommender

    try:
        recommender = Recommender.load(bundle, device=device, variant=variant)

        def recommend(rows: list[Any], k: int, **further: Any) -> list[list[RawId]]:
            return recommender.recommend(rows, k=k, **further).items

        return evaluate_lists(recommend, split, ks=ks, reads=recommender.manifest.capabilities)
    except GenrecError as error:
        raise ValueError(str(error)) from error


def _file_results(
    path: Path, folder: str, ks: list[int], name: str | None, columns: Mapping[str, str]
) -> dict[str, Result]:
    """Ends the command where the file cannot be scored, with a line for each reason."""
    from genrec.results.predictions import PredictionsError, score_predictions

    try:
        result, notes = score_predictions(path, folder, ks=ks, name=name, **columns)
    except PredictionsError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        click.echo(f"{path} is not scored; mend what makes it and try again", err=True)
        sys.exit(1)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return {"file": result}


def _print(results: Mapping[str, Result], ks: list[int]) -> None:
    columns = {column: result.metrics for column, result in results.items()}
    print_table(
        columns, [len(result.users) for result in results.values()], _intervals(next(iter(results.values())), ks)
    )


def _intervals(result: Result, ks: list[int]) -> dict[str, Interval]:
    """Of recall and NDCG at 10, or at the largest cut-off where 10 is none, over users."""
    from genrec.metrics.intervals import bootstrap_interval

    if len(result.users) < 2:
        return {}
    names = [f"{metric}@{10 if 10 in ks else max(ks)}" for metric in ("recall", "ndcg")]
    return {
        name: (float(low), float(high)) for name in names for low, high in [bootstrap_interval(result.values[name])]
    }


def _write(results: Mapping[str, Result], out: Path) -> None:
    for column, result in results.items():
        result.write(out / "bundle" if column == "bundle" else out)
    click.echo(f"wrote {out}")
