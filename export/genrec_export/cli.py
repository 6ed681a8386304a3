"""The command ``genrec-export``: a thin shell around ``export_folder``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrec import __version__

if TYPE_CHECKING:
    from genrec_export.assemble import Exported
    from genrec_export.report import Report


@click.command()
@click.version_option(__version__)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--k-max", type=click.IntRange(min=1), default=100, show_default=True, help="Longest list to be served.")
@click.option("--include-seen", is_flag=True, help="By default recommend items of the history again.")
@click.option(
    "--window",
    type=click.Choice(["auto", "fixed", "bucketed"]),
    default="auto",
    show_default=True,
    help="Pad histories to the model's maximum, or to the longest of a batch where that changes nothing.",
)
@click.option(
    "--beam",
    type=click.IntRange(min=1),
    default=None,
    help="Of a model that searches: prefixes kept, never fewer than --k-max; the run's own if not given.",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice(["fp16", "int8"]),
    help="A cheaper form beside fp32, if it gives nearly the same items: fp16 for GPUs, int8 for CPUs; "
    "repeatable. A model that searches has none.",
)
@click.option(
    "--opset",
    type=click.Choice(["20", "23"]),
    default="20",
    show_default=True,
    help="Version of ONNX's operators; 23 has attention as one operator.",
)
@click.option("--plot", "picture", type=click.Path(path_type=Path), default=None, help="A picture of the comparisons.")
@click.option(
    "--triton",
    "repository",
    type=click.Path(path_type=Path),
    default=None,
    help="Write a Triton model repository, too.",
)
@click.option("--promote", is_flag=True, help="Make STORE/current this version even if there is another.")
def main(
    source: Path,
    store: Path,
    k_max: int,
    include_seen: bool,
    window: str,
    beam: int | None,
    variants: tuple[str, ...],
    opset: str,
    picture: Path | None,
    repository: Path | None,
    promote: bool,
) -> None:
    """Export SOURCE, a run of `genrec train` or a module saved by `genrec.modules.save`, to STORE.

    Writes STORE/<version>/ after proving that it answers as torch does: tensor by tensor over a grid of shapes, and raw
    history by raw history in a process without torch. A failed proof publishes nothing and leaves STORE.failed/.
    """
    from genrec_export import ExportError
    from genrec_runtime import GenrecError

    began = time.monotonic()
    sys.path.append(str(Path.cwd()))  # a model of one's own, package.module:Class, may lie in the folder one works in
    try:
        _try_places(picture, repository)  # before the long work
        from genrec_export import export_folder

        exported = export_folder(
            source,
            store,
            k_max=k_max,
            exclude_seen=not include_seen,
            window=window,  # type: ignore[arg-type]  # click has checked the choice
            beam=beam,
            variants=variants,  # type: ignore[arg-type]  # here, too
            opset=int(opset),  # type: ignore[arg-type]  # here, too
            promote=promote,
            say=lambda text: click.echo(f"{text} ...", err=True),
        )
        _show(exported, store, time.monotonic() - began)
        _draw(exported.report, picture)
        if repository is not None:
            from genrec_export.triton import write_repository

            click.echo(f"wrote {write_repository(exported.path, repository)}, a model repository for Triton")
    except (ExportError, GenrecError, ValueError, OSError, ImportError) as error:
        click.echo(f"error: {error}", err=True)
        _draw(getattr(error, "report", None), picture)
        sys.exit(1)


def _try_places(picture: Path | None, repository: Path | None) -> None:
    if picture is not None:
        from genrec.visualization import new_figure

        new_figure()
        if not picture.parent.is_dir():
            raise ValueError(f"--plot {picture}: there is no folder {picture.parent}")
    if repository is not None:
        from genrec_export.triton import check_new

        check_new(repository)


def _show(exported: Exported, store: Path, seconds: float) -> None:
    size = sum(entry.size for entry in exported.manifest.files.values())
    click.echo(exported.report.table())
    click.echo(f"equal to torch in {len(exported.report.cells)} comparisons, {seconds:.0f} s")
    what = f"{exported.path}  ({len(exported.manifest.files)} files, {size:,} bytes)"
    click.echo(f"wrote {what}" if exported.is_new else f"the store has this version already: {what}")
    current = (store / "current").resolve()
    click.echo(
        f"{store / 'current'} is {current.name}"
        + ("" if current.name == exported.version else "; --promote changes it")
    )


def _draw(report: Report | None, picture: Path | None) -> None:
    if picture is not None and report is not None and report.cells:
        from genrec_export.plot import plot_report

        plot_report(report, picture)
        click.echo(f"wrote {picture}", err=True)
