"""``genrec semantic-ids``: codes of all items, for models that write codes instead of scoring items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec.cli.options import data_options, read_data_options

if TYPE_CHECKING:
    from genrec.data import Split
    from genrec_models.item_vectors import Floats
    from genrec_models.tokenizer import Tokenizer

A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
A_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("semantic-ids")
@data_options
@click.option("--vectors", type=A_FILE, help="The items' vectors: .npy, or .parquet with a column of ids.")
@click.option("--vector-ids", type=A_FILE, help="The items of a .npy file's rows: .npy, or text with one id a line.")
@click.option("--text-encoder", type=A_FOLDER, help="A sentence encoder's folder, to make vectors of titles (--items).")
@click.option("--method", type=click.Choice(["rqvae", "kmeans"]), default="rqvae", show_default=True, help="Of coding.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the method; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
def semantic_ids(
    vectors: Path | None,
    vector_ids: Path | None,
    text_encoder: Path | None,
    method: str,
    settings: tuple[str, ...],
    out: Path,
    seed: int,
    **data: Any,
) -> None:
    """Give every item of the data a short row of codes that is alike for like items.

    What is alike is told by --vectors, or by titles and a --text-encoder; with neither, by which items stand close together
    in the training histories. `genrec-export OUT STORE` exports what codes new vectors.
    """
    from dataclasses import asdict

    from genrec.training import check_settings, parse_setting
    from genrec_models.semantic_ids import check_new, make_semantic_ids

    if vectors is not None and text_encoder is not None:
        raise click.UsageError("--vectors and --text-encoder exclude each other")
    if vector_ids is not None and vectors is None:
        raise click.UsageError("--vector-ids belongs to --vectors")
    kind = _tokenizer(method)
    taken = check_settings(dict(map(parse_setting, settings)), **{method: kind})[method]
    if "input_dim" in taken:
        raise click.UsageError("input_dim is the width of the vectors, not a setting")
    check_new(out)
    options = read_data_options({}, data)
    split = options.load()
    made, source = _vectors(split, vectors, vector_ids, text_encoder, options.item_col, seed)
    facts = {
        "vectors": {"source": source, "width": made.shape[1]},
        "data": {"source": split.data.source, "options": asdict(options), "hash": split.data.content_hash},
    }
    with _following(f"fitting {method}") as follow:
        ids = make_semantic_ids(kind, made, split.catalogue(), settings=taken, seed=seed, facts=facts, follow=follow)
    ids.save(out, None if vectors is not None else made)
    for warning in ids.report.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(ids.report.table())
    click.echo(f"wrote {out}")


@contextmanager
def _following(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error in a terminal, a line elsewhere; gives what is to be told of each step."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(f"{what} ...", err=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda step, steps: bar.update(task, completed=step, total=steps)


def _tokenizer(method: str) -> type[Tokenizer]:
    if method == "kmeans":
        from genrec_models.tokenizer import ResidualKMeans

        return ResidualKMeans
    from genrec_models.rqvae import RQVAE

    return RQVAE


def _vectors(
    split: Split, vectors: Path | None, ids: Path | None, encoder: Path | None, item_col: str | None, seed: int
) -> tuple[Floats, str]:
    """The vectors of all items, and in words where they come from."""
    from genrec_models.cooccurrence import cooccurrence_vectors
    from genrec_models.item_vectors import read_vectors, text_vectors

    items = split.data.items
    if vectors is not None:
        return read_vectors(vectors, items, ids=ids, item_col=item_col), f"file {vectors.name}"
    if encoder is not None:
        if split.data.titles is None:
            raise click.UsageError("--text-encoder needs titles to encode; give --items with a file that has them")
        click.echo(f"encoding {len(items):,} titles ...", err=True)
        return text_vectors(split.data.titles, encoder), f"titles by {encoder.name}"
    click.echo("no vectors given: making them of the training histories ...", err=True)
    return cooccurrence_vectors(split.train_histories(), len(items), seed=seed), "co-occurrence in training"
