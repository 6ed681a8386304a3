"""The command ``genrec-runtime``: a thin shell around this package."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from genrec import __version__


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


_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
_VARIANT = click.option(
    "--variant", default="fp32", show_default=True, help="A cheaper form that the bundle has: fp16, int8."
)
_BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))
_STORE = click.argument("store", type=click.Path(path_type=Path))


@click.group(cls=_Group)
@click.version_option(__version__)
def main() -> None:
    """Serve exported recommenders with onnxruntime, without PyTorch."""


@main.command()
@_BUNDLE
@click.argument("items", nargs=-1)
@click.option(
    "--history", "histories", multiple=True, help="One user's item ids, oldest first, comma-separated; repeatable."
)
@click.option(
    "--file", "file", type=click.Path(path_type=Path), help="Histories as JSON lines: a list of ids each; - for stdin."
)
@click.option("-k", "--k", type=int, default=None, help="How many items; the bundle's default if not given.")
@click.option("--include-seen", is_flag=True, help="Recommend items of the history again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@_VARIANT
@_DEVICE
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
    rows = _rows(recommender.catalogue.items.kind, items, histories, file)
    answer = recommender.recommend(rows, k=k, exclude_seen=False if include_seen else None)
    for row, (recommended, scores, status) in enumerate(zip(answer.items, answer.scores, answer.status, strict=True)):
        if as_json:
            click.echo(json.dumps({"items": recommended, "scores": scores.tolist(), "status": status}))
            continue
        click.echo(f"after {', '.join(map(str, rows[row])) or 'nothing'}  [{status}]")
        for place, (item, score) in enumerate(zip(recommended, scores, strict=True), start=1):
            title = recommender.catalogue.title(int(recommender.catalogue.items.index([item])[0]))
            click.echo(f"{place:>4}  {score:>9.4f}  {item}" + (f"  {title}" if title != str(item) else ""))
    if answer.unknown_items:
        click.echo(f"unknown to the bundle and left out: {answer.unknown_items} of the history's ids", err=True)


@main.command()
@_BUNDLE
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Say what is in BUNDLE: model, signature, files."""
    from genrec_runtime.bundle import Bundle
    from genrec_runtime.verify import describe

    click.echo(Bundle.open(bundle).manifest.to_json().decode().rstrip() if as_json else describe(bundle))


@main.command()
@_BUNDLE
@click.option("--expect-digest", default=None, help="sha256:... that the manifest must have.")
@_DEVICE
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


@main.command("list")
@_STORE
def list_versions(store: Path) -> None:
    """List the versions in STORE, the newest first; * is current, - what rollback goes to."""
    from genrec_runtime.store import versions

    for version in versions(store):
        mark = "*" if version.is_current else "-" if version.is_previous else " "
        shown = version.damage or f"{version.created}  {version.size:>14,} bytes  {version.model}"
        click.echo(f"{mark} {version.name}  {shown}")


@main.command()
@_STORE
@click.argument("version")
@_DEVICE
def promote(store: Path, version: str, device: str) -> None:
    """Make VERSION current in STORE, once its hashes and its golden requests agree on this machine."""
    from genrec_runtime.store import promote as make_current

    seen = make_current(store, version, device=device)
    click.echo(f"{seen.files} files agree with their hashes, {len(seen.differences)} graphs answer as recorded")
    click.echo(f"{store / 'current'} is {version}")


@main.command()
@_STORE
@_DEVICE
def rollback(store: Path, device: str) -> None:
    """Make the version current in STORE that was so before."""
    from genrec_runtime.store import rollback as go_back

    click.echo(f"{store / 'current'} is {go_back(store, device=device)}")


@main.command()
@_STORE
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest versions stay.")
def prune(store: Path, keep: int) -> None:
    """Remove old versions from STORE; the current one and the one before it always stay."""
    from genrec_runtime.store import prune as clear

    removed = clear(store, keep)
    click.echo(f"removed {', '.join(removed) or 'nothing'}")


@main.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--histories", "file", type=click.Path(path_type=Path), required=True, help="JSON lines: a list of ids each."
)
@click.option("-k", "--k", type=int, default=10, show_default=True, help="How many items are compared.")
@click.option(
    "--gate", "gates", multiple=True, help="A condition such as 'overlap@10>=0.6'; exit 1 if it fails; repeatable."
)
@click.option("--plot", "picture", type=click.Path(path_type=Path), default=None, help="A picture of the overlaps.")
@_DEVICE
def diff(a: Path, b: Path, file: Path, k: int, gates: tuple[str, ...], picture: Path | None, device: str) -> None:
    """Compare what bundles A and B recommend after the same histories."""
    from genrec_runtime import Recommender
    from genrec_runtime.diff import compare_answers, passes, plot

    one, two = (Recommender.load(path, device=device) for path in (a, b))
    differences = compare_answers(one, two, _rows(one.catalogue.items.kind, (), (), file), k)
    for name, value in differences.measures.items():
        click.echo(f"{name:<16} {value:.4f}" if name.startswith(("overlap", "same")) else f"{name:<16} {value:.0f}")
    if picture is not None:
        plot(differences, picture)
        click.echo(f"wrote {picture}", err=True)
    failed = [gate for gate in gates if not passes(differences.measures, gate)]
    if failed:
        raise ValueError(f"{b} does not pass {', '.join(failed)}")


def _rows(kind: str, items: tuple[str, ...], histories: tuple[str, ...], file: Path | None) -> list[list[Any]]:
    if sum(map(bool, (items, histories, file))) > 1:
        raise click.UsageError("give ITEMS, --history or --file, one of them")
    if file is not None:
        with click.open_file(str(file), encoding="utf-8") as lines:
            return [_json_row(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    texts = [list(items)] if not histories else [[part for part in h.split(",") if part] for h in histories]
    return [[_number(text) for text in row] for row in texts] if kind == "int" else [list(row) for row in texts]


def _json_row(line: str, number: int) -> list[Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"line {number} is no JSON: {error}") from error
    if not isinstance(row, list):
        raise click.UsageError(f"line {number} must be a JSON list of item ids, got {line.strip():.60}")
    return row


def _number(text: str) -> int | str:
    """A whole number where the text is one; other text stays and is an unknown item."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else text
