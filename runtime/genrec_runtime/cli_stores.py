"""The commands of ``genrec-runtime`` about stores: which versions there are, which is current, and how two differ."""

from __future__ import annotations

from pathlib import Path

import click

from genrec_runtime.cli_options import DEVICE, STORE, read_requests


@click.command("list")
@STORE
def list_versions(store: Path) -> None:
    """List the versions in STORE, the newest first; * is current, - what rollback goes to."""
    from genrec_runtime.store import versions

    for version in versions(store):
        mark = "*" if version.is_current else "-" if version.is_previous else " "
        shown = version.damage or f"{version.created}  {version.size:>14,} bytes  {version.model}"
        click.echo(f"{mark} {version.name}  {shown}")


@click.command()
@STORE
@click.argument("version")
@DEVICE
def promote(store: Path, version: str, device: str) -> None:
    """Make VERSION current in STORE, once its hashes and its golden requests agree on this machine."""
    from genrec_runtime.store import promote as make_current

    seen = make_current(store, version, device=device)
    click.echo(f"{seen.files} files agree with their hashes, {len(seen.differences)} graphs answer as recorded")
    click.echo(f"{store / 'current'} is {version}")


@click.command()
@STORE
@DEVICE
def rollback(store: Path, device: str) -> None:
    """Make the version current in STORE that was so before."""
    from genrec_runtime.store import rollback as go_back

    click.echo(f"{store / 'current'} is {go_back(store, device=device)}")


@click.command()
@STORE
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest versions stay.")
def prune(store: Path, keep: int) -> None:
    """Remove old versions from STORE; the current one and the one before it always stay."""
    from genrec_runtime.store import prune as clear

    removed = clear(store, keep)
    click.echo(f"removed {', '.join(removed) or 'nothing'}")


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--histories", "file", type=click.Path(path_type=Path), required=True, help="JSON lines, as of recommend --file."
)
@click.option("-k", "--k", type=int, default=10, show_default=True, help="How many items are compared.")
@click.option(
    "--gate", "gates", multiple=True, help="A condition such as 'overlap@10>=0.6'; exit 1 if it fails; repeatable."
)
@click.option("--plot", "picture", type=click.Path(path_type=Path), default=None, help="A picture of the overlaps.")
@DEVICE
def diff(a: Path, b: Path, file: Path, k: int, gates: tuple[str, ...], picture: Path | None, device: str) -> None:
    """Compare what bundles A and B recommend after the same histories."""
    from genrec_runtime import Recommender
    from genrec_runtime.diff import compare_answers, passes, plot

    one, two = (Recommender.load(path, device=device) for path in (a, b))
    differences = compare_answers(one, two, **read_requests(file), k=k)
    for name, value in differences.measures.items():
        click.echo(f"{name:<16} {value:.4f}" if name.startswith(("overlap", "same")) else f"{name:<16} {value:.0f}")
    if picture is not None:
        plot(differences, picture)
        click.echo(f"wrote {picture}", err=True)
    failed = [gate for gate in gates if not passes(differences.measures, gate)]
    if failed:
        raise ValueError(f"{b} does not pass {', '.join(failed)}")


COMMANDS = (list_versions, promote, rollback, prune, diff)
