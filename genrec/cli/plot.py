"""``genrec plot``: pictures of runs and of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli.options import Command, cut_offs, split_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genrec.data import Split
    from genrec.histories import Ints
    from genrec.results import Result
    from genrec.visualization.metrics import Point
    from genrec_models import Run

FOLDERS = click.Path(path_type=Path)


@click.group()
def plot() -> None:
    """Draw attention, training, metrics or popularity."""


def out_option(command: Command) -> Command:
    """The option that names the picture."""
    return click.option(
        "--out", type=FOLDERS, required=True, help="The picture to write; its suffix is its format: png, pdf, svg."
    )(command)


@plot.command("attention")
@click.argument("run", type=FOLDERS)
@click.option("--history", required=True, help="Item ids, oldest first, comma-separated.")
@click.option("--layer", type=click.IntRange(min=1), default=1, show_default=True, help="Which layer, from 1.")
@out_option
def attention(run: Path, history: str, layer: int, out: Path) -> None:
    """Draw what each item of a history looks back at in RUN's model, one panel a head."""
    from genrec_models import load_run

    _write(out, lambda: _attention(load_run(run), history, layer))


@plot.command("training")
@click.argument("runs", type=FOLDERS, nargs=-1, required=True)
@click.option("--metric", default="valid_ndcg@10", show_default=True, help="What validation measured.")
@out_option
def training(runs: tuple[Path, ...], metric: str, out: Path) -> None:
    """Draw the loss and the validation of one run, or of several in one picture."""
    _write(out, lambda: _training(_named(runs), metric))


@plot.command("metrics")
@click.argument("folders", type=FOLDERS, nargs=-1, required=True)
@click.option("--metrics", default="recall,ndcg", show_default=True, help="Which metrics, comma-separated.")
@click.option("--ks", help="Cut-offs, comma-separated; all that were measured if not given.")
@click.option("--over-seeds", is_flag=True, help="Draw runs that differ in their seed alone as one, with their spread.")
@out_option
def metrics(folders: tuple[Path, ...], metrics: str, ks: str | None, over_seeds: bool, out: Path) -> None:
    """Draw metrics with 95% intervals over users, of runs or of what `genrec evaluate --out` wrote."""
    from genrec.results import read_result

    wanted, cuts = [name.strip() for name in metrics.split(",")], None if ks is None else cut_offs(ks)
    _write(out, lambda: _metrics([read_result(folder) for folder in folders], wanted, cuts, over_seeds))


@plot.command("popularity")
@click.argument("runs", type=FOLDERS, nargs=-1, required=True)
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="Length of the lists.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@out_option
def popularity(runs: tuple[Path, ...], k: int, device: str, out: Path) -> None:
    """Draw how often runs recommend items on their test cases, by the items' popularity in training."""
    from genrec_models import load_run

    _write(out, lambda: _popularity({name: load_run(run) for name, run in _named(runs).items()}, k, device))


def _write(out: Path, draw: Callable[[], Figure]) -> None:
    """Draws once it is known that the picture can be written."""
    from genrec.visualization import check_picture_path, save_figure

    check_picture_path(out)
    save_figure(draw(), out)
    click.echo(f"wrote {out}")


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their own names, or by their paths where two have one name."""
    for i, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:i]]:
            raise ValueError(f"{folder} is named twice")
    names = [folder.resolve().name for folder in folders]
    return dict(zip(names if len(set(names)) == len(names) else map(str, folders), folders, strict=True))


def _attention(run: Run, history: str, layer: int) -> Figure:
    import torch

    from genrec.visualization import attention_figure
    from genrec_runtime.cli_options import read_ids

    encoder: Any = getattr(run.model, "encoder", None)
    if not hasattr(encoder, "attention_maps"):
        raise ValueError(f"{run.folder}: its model, {run.config['model']}, has no attention to draw")
    raw = read_ids(run.catalogue.items.kind, [part.strip() for part in history.split(",")])
    numbers = run.catalogue.items.index(raw)
    if not numbers.all():
        unknown = next(text for text, number in zip(raw, numbers.tolist(), strict=True) if not number)
        raise ValueError(f"--history: {run.folder} knows no item {unknown!r}")
    given, numbers = len(numbers), numbers[-encoder.max_seq_length :]
    item_ids = torch.from_numpy(numbers[None])  # (1, L)
    with torch.no_grad():
        maps = encoder.attention_maps(item_ids, item_ids != 0)  # a (1, H, L, L) a layer
    if layer > len(maps):
        raise ValueError(f"--layer {layer}: {run.folder} has {len(maps)} layers")
    titles = [run.catalogue.title(number) for number in numbers.tolist()]
    newest = f" (newest {len(numbers)} of {given} items)" if given > len(numbers) else ""
    title = f"What each item looks back at: {run.config['model']}, layer {layer} of {len(maps)}{newest}"
    return attention_figure(maps[layer - 1][0], titles, titles, title)


def _training(runs: Mapping[str, Path], metric: str) -> Figure:
    from genrec.visualization import training_curve_figure, training_curves_figure

    rows = {name: _epochs(folder) for name, folder in runs.items()}
    if len(rows) > 1:
        return training_curves_figure(rows, metric)
    name, only = next(iter(rows.items()))
    return training_curve_figure(only, metric, f"Training of {name}")


def _epochs(folder: Path) -> list[Any]:
    from genrec.results.files import read_json

    if not (folder / "metrics.json").is_file():
        raise ValueError(f"{folder} has no metrics.json: it is no folder of a finished run")
    epochs = read_json(folder / "metrics.json").get("epochs")
    if not isinstance(epochs, list) or not epochs:
        raise ValueError(f"{folder} has no epochs to draw: its model was not trained in epochs")
    return epochs


def _metrics(results: Sequence[Result], metrics: Sequence[str], ks: Sequence[int] | None, over_seeds: bool) -> Figure:
    """Metrics at k are drawn where all results have them."""
    from genrec.results.pairing import pair
    from genrec.visualization import metric_figure

    if len(results) > 1:
        pair(results)  # refuses what was not measured alike
    shared = [name for name in results[0].metrics if all(name in result.metrics for result in results)]
    chosen = [name for name in shared if _is_wanted(name, metrics, ks)]
    if not chosen:
        raise ValueError(f"none of the metrics asked for is in all results; they share {', '.join(shared) or 'none'}")
    points = _points_over_seeds(results, chosen) if over_seeds else _points(results, chosen)
    drawn = [metric for metric in metrics if any(_is_wanted(name, [metric], ks) for name in chosen)]
    over = "seeds and users" if over_seeds else "users"
    return metric_figure(
        points, drawn, f"Metrics on {len(results[0].users):,} users", f"bars: 95% intervals over {over}"
    )


def _is_wanted(name: str, metrics: Sequence[str], ks: Sequence[int] | None) -> bool:
    metric, _, k = name.rpartition("@")
    return metric in metrics and (ks is None or int(k) in ks)


def _points(results: Sequence[Result], metrics: Sequence[str]) -> dict[str, dict[str, Point]]:
    """By model and metric the mean with its bootstrap interval, or alone where there are no values by user."""
    import numpy as np

    from genrec.metrics.intervals import bootstrap_interval
    from genrec.results.pairing import unique_names

    points: dict[str, dict[str, Point]] = {}
    for name, result in zip(unique_names([result.name for result in results]), results, strict=True):
        points[name] = {metric: result.metrics[metric] for metric in metrics}
        measured = [metric for metric in metrics if metric in result.values]
        if measured:
            ends = zip(*bootstrap_interval(np.stack([result.values[metric] for metric in measured])), strict=True)
            points[name] |= {m: (result.metrics[m], *end) for m, end in zip(measured, ends, strict=True)}
    return points


def _points_over_seeds(results: Sequence[Result], metrics: Sequence[str]) -> dict[str, dict[str, Point]]:
    """By method and metric the estimate that ``genrec compare --over-seeds`` prints."""
    from genrec.results.seeds import compare_seeds, group_runs

    points: dict[str, dict[str, Point]] = {}
    estimates = compare_seeds(group_runs(results), metrics).estimates
    for metric in metrics:
        for model, one in estimates[metric].items():
            name = f"{model} ({one.runs} seeds)" if one.runs > 1 else model
            ends = () if one.low is None or one.high is None else (one.low, one.high)
            points.setdefault(name, {})[metric] = (one.mean, *ends) if ends else one.mean
    return points


def _popularity(runs: Mapping[str, Run], k: int, device: str) -> Figure:
    from genrec.training import start_fabric
    from genrec.visualization import popularity_figure

    first, *others = runs.values()
    for other in others:
        if _measured(other) != _measured(first):
            raise ValueError(f"{first.folder} and {other.folder} were trained on other data, or another split of them")
    split = split_of(first, {})
    fabric = start_fabric(device)
    counts = {}
    for name, run in runs.items():
        run.model.to(fabric.device)
        counts[name] = _recommended(run, split, k)
    lists = f"{k} items for each of {len(split.test):,} users"
    return popularity_figure(
        split.popularity()[1:], counts, f"What is recommended ({lists}), by popularity in training"
    )


def _measured(run: Run) -> dict[str, Any]:
    from genrec.results import COMPARED

    return {name: run.config["protocol"].get(name) for name in COMPARED}


def _recommended(run: Run, split: Split, k: int) -> Ints:
    """int64 (V,): in how many lists of the test cases each item stands."""
    import numpy as np

    from genrec.modules import reads
    from genrec.training import raw_requests
    from genrec_models import TorchRecommender

    requests = raw_requests(split, split.test, reads(run.model))
    lists = TorchRecommender(run.model, run.catalogue).recommend(k=k, **requests)
    numbers = split.data.items.index([item for items, _ in lists for item in items])
    return np.bincount(numbers, minlength=len(split.data.items) + 1)[1:]
