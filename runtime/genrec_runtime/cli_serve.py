"""The command ``genrec-runtime serve``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from genrec_runtime.cli_options import DEVICE, VARIANT


def _not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """An option that click takes for absent where the environment holds it empty: what was to be pinned would not be.

    Raises:
        click.BadParameter: if so.
    """
    name = f"{context.auto_envvar_prefix}_{parameter.name}".upper()
    if value is None and os.environ.get(name) == "":
        raise click.BadParameter(f"{name} is empty; unset it to serve any bundle")
    return value


@click.command(context_settings={"auto_envvar_prefix": "GENREC", "show_default": True})
@click.argument("bundle", type=click.Path(path_type=Path), envvar="GENREC_BUNDLE")
@click.option(
    "--expect-digest", default=None, callback=_not_empty, help="sha256:... that the manifest must have, now and later."
)
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8000, help="Port to listen on; 0 takes a free one.")
@click.option("--name", default=None, help="What the model is called in addresses; its own name if not given.")
@click.option(
    "--availability",
    type=click.Path(path_type=Path),
    default=None,
    help="A file, watched: one raw id a line, only these.",
)
@click.option("--max-batch", default=64, help="Rows that are answered together.")
@click.option("--max-wait", default=0.0, help="Seconds that a request waits for others while nothing is computed.")
@click.option("--max-queue", default=1024, help="Rows that may wait; more are refused with 429.")
@click.option("--max-rows", default=256, help="Rows that one request may have.")
@click.option("--max-body", default=1 << 20, help="Bytes of a request.")
@click.option("--max-connections", default=1024, help="Connections at a time; on more, only health is told.")
@click.option("--batches", "parallel", default=1, envvar="GENREC_BATCHES", help="Batches at a time, each in a thread.")
@click.option("--timeout", default=10.0, help="Seconds after which nobody waits for an answer.")
@click.option("--slow", default=10.0, help="Seconds that a client may take to send a request, or to read its answer.")
@click.option("--interval", default=2.0, help="Seconds between looks at the bundle's path and the availability file.")
@click.option("--linger", default=0.5, help="Seconds after SIGTERM in which requests are still taken.")
@click.option("--drain", default=20.0, help="Seconds after that to answer what was taken.")
@click.option("--access-log/--no-access-log", default=True, help="A line of JSON for each request, on standard output.")
@click.option("--page/--no-page", default=True, help="Whether / serves the page to try it.")
@click.option("--threads", type=int, default=None, help="Threads within an operator; all that it may use if not given.")
@click.option("--dedicated", is_flag=True, help="Let idle threads spin, as on a machine of its own.")
@click.option("--cuda-graphs", is_flag=True, help="Replay each shape's kernels as one CUDA graph.")
@click.option("--ray", metavar="ADDRESS", default=None, help="Deploy on a Ray cluster: host:port of its head, or auto.")
@click.option("--replicas", default=1, help="With --ray: how many, or the least.")
@click.option("--max-replicas", type=int, default=None, help="With --ray: the most, as load wants.")
@VARIANT
@DEVICE
def serve(
    bundle: Path,
    parallel: int,
    ray: str | None,
    replicas: int,
    max_replicas: int | None,
    threads: int | None,
    dedicated: bool,
    cuda_graphs: bool,
    variant: str,
    device: str,
    **settings: Any,
) -> None:
    """Serve BUNDLE by HTTP, and what its path points to later: the Open Inference Protocol, /v1/recommend, /metrics.

    Every option can also be given in the environment: --max-batch as GENREC_MAX_BATCH, BUNDLE as GENREC_BUNDLE.
    """
    try:
        from genrec_runtime.serve.server import run
    except ModuleNotFoundError as error:
        raise ImportError(
            f"serving by HTTP needs {error.name}; install it with: pip install 'genrec[serve]'"
        ) from error
    from genrec_runtime.options import Options
    from genrec_runtime.serve.settings import Settings

    options = Options(device, threads, variant, dedicated, cuda_graphs)
    chosen = Settings(bundle, options, threads=parallel, **settings)
    if ray is None:
        sys.exit(run(chosen))
    from genrec_runtime.onray.online import Scale, deploy

    deploy(chosen, ray, Scale(replicas, max_replicas))
    click.echo(f"the cluster serves {bundle} on port {chosen.port} of each machine that has a replica")
