"""How near the runtime and torch come to what this CPU can do at all: the least possible time over theirs.

    python benchmarks/roofline.py [--items 10000 100000 1000000] [--batches 1 32 256] [--threads 1]

The least time is what the encoder's multiplications take at the speed of one large matrix product, and scoring at that speed or
at the speed of reading memory, whichever takes longer. Both speeds are measured in turn with the peers. A share of 1 leaves
nothing to gain in float32; 1 over a share is what any other engine could still gain. Masking and top-k count as nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bundles import histories_of, write
from peers import torch_peers
from rounds import require_equal, take_turns

from genrec.histories import Catalogue
from genrec_models import SASRec
from runtime import K, add_grid, answers_of, ours, speed

SIDE = 1024  # of the matrices whose product shows the speed of arithmetic
READ = 1 << 26  # float32 numbers read to show the speed of memory, far more than caches hold


def work(model: SASRec, batch: int) -> tuple[float, float, float]:
    """What a request of full windows needs: the encoder's and the scoring's arithmetic, and the bytes of the table.

    Multiplying and adding counts as two. The last layer needs keys and values of every slot, the rest for the newest slot.
    """
    width, length, layers = model.config.embedding_dim, model.max_seq_length, model.config.num_layers
    slot = 24 * width**2 + 4 * length * width  # four projections, two layers of four times the width; attention
    row = (layers - 1) * length * slot + length * 4 * width**2 + slot
    return batch * row, 2.0 * batch * width * (model.num_items + 1), 4.0 * width * (model.num_items + 1)


def shares(folder: Path, model: SASRec, catalogue: Catalogue, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of the share of the least time."""
    path = write(folder, model, catalogue, variants=[name for name in options.variants if name != "fp32"])
    square, numbers = torch.rand(SIDE, SIDE), torch.rand(READ)
    for threads, batch in itertools.product(options.threads, options.batches):
        torch.set_num_threads(threads)
        histories = histories_of(catalogue, [model.max_seq_length] * batch)
        theirs = torch_peers(model, catalogue.items.all(), K, compiled=False)
        calls = {name: functools.partial(peer.recommend, histories) for name, peer in theirs.items()}
        calls |= ours(path, options.variants, threads, histories)
        require_equal(answers_of(calls), "naive")
        limits = {"product": functools.partial(torch.mm, square, square), "reading": numbers.sum}
        times = take_turns({**calls, **limits}, options.rounds, clock=options.clock)
        middle = {name: statistics.median(taken) for name, taken in times.items()}
        arithmetic, reading = middle["product"] / (2 * SIDE**3), middle["reading"] / numbers.nbytes  # seconds each
        encoder, scoring, table = work(model, batch)
        least = encoder * arithmetic + max(scoring * arithmetic, table * reading)
        row = {"batch": batch, "threads": threads, "encoder's part": f"{encoder * arithmetic / least:.2f}"}
        yield row | {name: f"{least / middle[name]:.2f}" for name in calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_grid(parser, [10_000, 100_000, 1_000_000])
    print(speed(parser.parse_args(), shares))


if __name__ == "__main__":
    main()
