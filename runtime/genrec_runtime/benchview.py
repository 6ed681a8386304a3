"""A benchmark's figures for people: a table and a picture."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

from genrec_runtime.bench import P99_FROM, Bench

COLORS = ("#2a6fb0", "#d9661f", "#3a8f5c", "#7b5ea7", "#777777")  # one for each number of threads, in turn
HALF_DECADE = math.sqrt(10)  # an axis spans a factor of 10 at least, so that small differences look small


def table(bench: Bench) -> str:
    """The measurements for a terminal: what was asked, on what, a line a cell, and the memory."""
    lines = [headline(bench), _machine(bench), ""]
    lines += [f"{'batch':>7}{'threads':>9}{'calls':>9}{'p50 ms':>11}{'p99 ms':>11}{'rows/s':>12}"]
    for cell in bench.cells:
        p99 = "-" if cell.p99_ms is None else f"{cell.p99_ms:.3f}"
        figures = f"{cell.calls:>9,}{cell.p50_ms:>11.3f}{p99:>11}{cell.rows_per_second:>12,.0f}"
        lines.append(f"{cell.batch:>7}{cell.threads:>9}{figures}")
    if any(cell.p99_ms is None for cell in bench.cells):
        lines += ["", f"- is a p99 of fewer than {P99_FROM} calls: measure for more --seconds than {bench.seconds:g}"]
    if bench.memory is not None:
        sizes = {name: f"{size / 2**20:,.0f} MiB" for name, size in bench.memory.items()}
        said = f"{sizes['before']} before loading, {sizes['loaded']} loaded, {sizes['after']} after the last call"
        lines += ["", f"resident memory: {said}"]
    return "\n".join(lines)


def headline(bench: Bench) -> str:
    """What was asked of which bundle, in one line."""
    clients = _count(bench.clients, "client")
    return "; ".join([f"{bench.model} {bench.version} {bench.variant}: {bench.requests}", clients, *bench.options])


def _machine(bench: Bench) -> str:
    where = f"{bench.gpu} beside {bench.processor}" if bench.gpu else bench.processor
    return f"{bench.device['providers'][0]} on {where}, onnxruntime {bench.device['onnxruntime']}"


def check_picture(path: str | os.PathLike[str]) -> None:
    """Finds out whether ``plot`` can write there, before minutes are spent on measuring.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if the folder does not exist, or the suffix names no format of pictures.
    """
    formats = _new_figure().canvas.get_supported_filetypes()
    if not Path(path).parent.is_dir():
        raise ValueError(f"there is no folder {Path(path).parent} for the picture")
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"the picture ({path}) must end with one of .{', .'.join(sorted(formats))}")


def plot(bench: Bench, path: str | os.PathLike[str]) -> None:
    """Draws latency and throughput by batch, a colour for each number of threads.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure = _new_figure()
    figure.suptitle(f"{headline(bench)}\n{_machine(bench)}", fontsize=9)
    latency, rate = figure.subplots(1, 2)
    counts = dict.fromkeys(cell.threads for cell in bench.cells)
    for threads, color in zip(counts, itertools.cycle(COLORS), strict=False):
        cells = sorted((cell for cell in bench.cells if cell.threads == threads), key=lambda cell: cell.batch)
        batches, label = [cell.batch for cell in cells], _count(threads, "thread")
        latency.plot(batches, [cell.p50_ms for cell in cells], "o-", color=color, label=f"p50, {label}")
        slow = [(cell.batch, cell.p99_ms) for cell in cells if cell.p99_ms is not None]
        if slow:
            latency.plot(*zip(*slow, strict=True), "^--", color=color, label=f"p99, {label}", alpha=0.7)
        rate.plot(batches, [cell.rows_per_second for cell in cells], "o-", color=color, label=label)
    for axes, name in ((latency, "milliseconds a call"), (rate, "rows a second")):
        _style(axes, name, sorted({cell.batch for cell in bench.cells}))
    figure.savefig(path, dpi=150)


def _new_figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'genrec[viz]'") from error
    return Figure(figsize=(10, 4.4), layout="constrained")


def _style(axes: Any, name: str, batches: list[int]) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    low, high = axes.get_ylim()
    middle, half = math.sqrt(low * high), max(math.sqrt(high / low), HALF_DECADE)
    axes.set_ylim(middle / half, middle * half)
    axes.set_xlabel("rows a call (batch)")
    axes.set_ylabel(name)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
