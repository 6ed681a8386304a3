"""The command ``genrec-runtime``: a thin shell around this package."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrec import __version__
from genrec_runtime.cli_batch import batch
from genrec_runtime.cli_options import BUNDLE, DEVICE, VARIANT, read_ids, read_requests, whole_numbers
from genrec_runtime.cli_serve import serve
from genrec_runtime.cli_stores import COMMANDS

if TYPE_CHECKING:
    from genrec.histories import Catalogue


class _Group(click.Group):
    """Prints what a user can cause, and warnings, as one line on standard error instead of a traceback."""

    def invoke(self, context: click.Context) -> Any:
        from genrec_runtime.errors import GenrecError

        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: click.echo(f"warning: {_one_line(message)}", err=True)
                return super().invoke(context)
        except BrokenPipeError:
            raise  # the reader has seen enough, as in "... | head": click ends quietly
        except (GenrecError, ValueError, OSError, ImportError) as error:
            click.echo(f"error: {_one_line(error)}", err=True)
            sys.exit(1)


def _one_line(message: object) -> str:
    return " ".join(str(message).split()) or type(message).__name__


@click.group(cls=_Group)
@click.version_option(__version__)
def main() -> None:
    """Serve exported recommenders with onnxruntime, without PyTorch."""


for _command in (*COMMANDS, batch, serve):
    main.add_command(_command)


@main.command()
@BUNDLE
@click.argument("items", nargs=-1)
@click.option(
    "--history", "histories", multiple=True, help="One user's item ids, oldest first, comma-separated; repeatable."
)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Histories as JSON lines, - for stdin: a list of ids each, or an object with history, and timestamps, request_time "
    "and user for models that read them.",
)
@click.option("-k", "--k", type=int, default=None, help="How many items; the bundle's default if not given.")
@click.option("--include-seen", is_flag=True, help="Recommend items of the history again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@VARIANT
@DEVICE
def recommend(
    bundle: Path,
    items: tuple[str, ...],
    histories: tuple[str, ...],
    file: Path | None,
    k: int | None,
    include_seen: bool,
    as_json: bool,
    variant: str,
    device: str,
) -> None:
    """Recommend after the history ITEMS (raw ids, oldest first), or after those of --history or --file.

    Ids that begin with a dash come after two of them: genrec-runtime recommend BUNDLE -- -5 3
    """
    from genrec_runtime import Recommender

    recommender = Recommender.load(bundle, device=device, variant=variant)
    asked = _asked(recommender.catalogue.items.kind, items, histories, file)
    answer = recommender.recommend(**asked, k=k, exclude_seen=False if include_seen else None)
    for row, (recommended, scores, status) in enumerate(zip(answer.items, answer.scores, answer.status, strict=True)):
        if as_json:
            click.echo(json.dumps({"items": recommended, "scores": scores.tolist(), "status": status}))
            continue
        click.echo(f"after {', '.join(map(str, asked['histories'][row])) or 'nothing'}  [{status}]")
        _print_list(recommender.catalogue, recommended, scores.tolist())
    if answer.unknown_items:
        click.echo(f"unknown to the bundle and left out: {answer.unknown_items} of the history's ids", err=True)


@main.command()
@BUNDLE
@click.argument("items", nargs=-1, required=True)
@click.option("-k", "--k", type=int, default=None, help="How many items for each; the bundle's default if not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an item.")
@DEVICE
def similar(bundle: Path, items: tuple[str, ...], k: int | None, as_json: bool, device: str) -> None:
    """List the items whose vectors point most nearly the same way as those of ITEMS (raw ids), by cosine.

    Ids that begin with a dash come after two of them: genrec-runtime similar BUNDLE -- -5 3
    """
    from genrec_runtime import Recommender

    recommender = Recommender.load(bundle, device=device)
    given = read_ids(recommender.catalogue.items.kind, items)
    answer = recommender.similar(given, k=k)
    for item, found, scores in zip(given, answer.items, answer.scores, strict=True):
        if as_json:
            click.echo(json.dumps({"item": item, "items": found, "scores": scores.tolist()}))
            continue
        click.echo(f"like {item}")
        _print_list(recommender.catalogue, found, scores.tolist())


@main.command()
@BUNDLE
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Say what is in BUNDLE: model, signature, files."""
    from genrec_runtime.bundle import Bundle
    from genrec_runtime.verify import describe

    click.echo(Bundle.open(bundle).manifest.to_json().decode().rstrip() if as_json else describe(bundle))


@main.command()
@BUNDLE
@click.option("--expect-digest", default=None, help="sha256:... that the manifest must have.")
@DEVICE
def verify(bundle: Path, expect_digest: str | None, device: str) -> None:
    """Hash every file of BUNDLE and replay its golden requests on this machine, in every variant."""
    from genrec_runtime.verify import verify as check

    seen = check(bundle, device=device, expect_digest=expect_digest)
    click.echo(f"{seen.files} files, {seen.size:,} bytes: all hashes agree")
    if seen.undeclared:
        click.echo(f"not part of the bundle, and never read: {', '.join(seen.undeclared)}", err=True)
    for graph, difference in seen.differences.items():
        share = f"{difference.excess:.1%} of the tolerance"
        click.echo(f"golden {graph}: largest difference {difference.error:.3g}, {share}")
    click.echo(f"served by {', '.join(seen.device.providers)}, onnxruntime {seen.device.onnxruntime}")
    click.echo(seen.digest)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what this machine has to serve with, what is wrong with it, and what to run; exit 1 if something is."""
    from genrec_runtime.diagnosis import doctor as look

    seen = look()
    click.echo(json.dumps(seen.to_dict(), indent=2) if as_json else str(seen))
    sys.exit(0 if seen.healthy else 1)


@main.command()
@BUNDLE
@click.option(
    "--batches", default="1,8,32,256", show_default=True, callback=whole_numbers, help="Rows a call, each measured."
)
@click.option(
    "--threads", callback=whole_numbers, help="Threads within an operator, each measured; 1 and all by default."
)
@click.option("--clients", type=int, default=1, show_default=True, help="Callers at a time, on one recommender.")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="For each pair of batch and threads.")
@click.option(
    "--history-length",
    type=click.IntRange(1, 1_000_000),
    help="Items of each drawn history (1 to the longest used, if not given); size of a module's free axes.",
)
@click.option(
    "--histories", "file", type=click.Path(path_type=Path), help="JSON lines, as the --file of recommend; - for stdin."
)
@click.option("-k", "--k", type=int, default=None, help="How many items; the bundle's default if not given.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the drawn histories.")
@click.option("--dedicated", is_flag=True, help="Let idle threads spin, as on a machine of its own.")
@click.option("--cuda-graphs", is_flag=True, help="Replay each shape's kernels as one CUDA graph.")
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), default=None, help="A picture of the table.")
@VARIANT
@DEVICE
def bench(
    bundle: Path,
    batches: tuple[int, ...],
    threads: tuple[int, ...] | None,
    clients: int,
    seconds: float,
    history_length: int | None,
    file: Path | None,
    k: int | None,
    seed: int,
    dedicated: bool,
    cuda_graphs: bool,
    as_json: bool,
    picture: Path | None,
    variant: str,
    device: str,
) -> None:
    """Measure how fast BUNDLE answers here: p50, p99 and throughput over batch sizes and threads."""
    from genrec_runtime.bench import Plan, measure
    from genrec_runtime.benchview import check_picture, plot, table

    plan = Plan(batches, threads, clients, seconds, k, history_length, seed, dedicated, cuda_graphs)
    if picture is not None:
        check_picture(picture)
    asked: dict[str, Any] = {"histories": None} if file is None else read_requests(file)
    found = measure(bundle, plan, **asked, device=device, variant=variant, watch=_watch)
    _watch("")
    click.echo(json.dumps(dataclasses.asdict(found)) if as_json else table(found))
    if picture is not None:
        plot(found, picture)
        click.echo(f"wrote {picture}", err=True)


def _watch(said: str) -> None:
    """Progress on one line of a terminal, rewritten; nothing elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{said}", nl=False, err=True)


def _asked(kind: str, items: tuple[str, ...], histories: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    """What is asked of ``recommend``, from whichever of its three sources is given."""
    if sum(map(bool, (items, histories, file))) > 1:
        raise click.UsageError("give ITEMS, --history or --file, one of them")
    if file is not None:
        return read_requests(file)
    texts = [list(items)] if not histories else [[part for part in h.split(",") if part] for h in histories]
    return {"histories": [read_ids(kind, row) for row in texts]}


def _print_list(catalogue: Catalogue, items: Sequence[Any], scores: Sequence[float]) -> None:
    """One line an item: its place, score, id, and title where it has one."""
    for place, (item, score) in enumerate(zip(items, scores, strict=True), start=1):
        title = catalogue.title(int(catalogue.items.index([item])[0]))
        click.echo(f"{place:>4}  {score:>9.4f}  {item}" + (f"  {title}" if title != str(item) else ""))
