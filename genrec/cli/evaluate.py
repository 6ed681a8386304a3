"""``genrec evaluate``: a run, and the bundle made from it, scored on the test cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli.options import cut_offs, data_options, given, read_data_options
from genrec.cli.tables import print_table

if TYPE_CHECKING:
    from genrec.data import Split
    from genrec.training import Evaluation
    from genrec_models import Run


@click.command()
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

    cuts = cut_offs(ks)
    opened = load_run(run)
    saved = opened.config["data"]
    own = not given(**data)
    if own and not saved["options"]:
        raise ValueError(f"{run} does not say where its data came from; name them by --data")
    split = read_data_options(saved["options"], data).load()
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
        print_table(columns)


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
