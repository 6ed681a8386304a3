"""What an export is tried on: the grid of tensors for the graphs, and raw histories of every length for the product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from genrec.histories import ItemIds, Ragged, Side
from genrec_export.errors import ExportError
from genrec_export.histories import GAPS, NOTHING, History, Reads, Requests
from genrec_export.report import Arrays

BATCHES = (1, 2, 5, 32)
FILLINGS = ("full", "ragged", "one item", "all padding", "repeated", "real")
REAL_HISTORIES = 512  # tried as they stand, at most


def recommender_cases(
    graph: str, num_items: int, lengths: Sequence[int], side: Side, histories: Requests, reads: Reads = NOTHING
) -> Iterator[tuple[str, Arrays]]:
    """The grid for one graph of a recommender: every length, batch and filling, with and without exclusions.

    What else is read is made up, and of real histories their own. The grid of a graph of items has no length: every batch of
    drawn items, and of the first and the last in turn.
    """
    random = np.random.default_rng(0)
    if graph in ("item_vectors", "similar"):
        yield from _item_cases(graph, num_items, random)
        return
    for length in lengths:
        for batch in BATCHES:
            for filling in FILLINGS:
                filled = _fill(filling, batch, length, num_items, histories, reads, random)
                inputs = filled.inputs(length, side)
                case = f"B={batch} L={length} {filling}"
                if graph == "recommend":
                    for case_of, exclude, share in (
                        (f"{case}, exclude none", np.zeros((batch, 0), np.int64), 1.0),
                        (f"{case}, exclude history", inputs["item_ids"], 0.8),
                    ):
                        available = random.random(num_items + 1) < share
                        yield case_of, inputs | {"exclude": exclude, "available": available}
                elif graph == "score":
                    candidates = random.integers(0, num_items + 1, (batch, 1 + length % 5))
                    yield case, inputs | {"candidates": candidates}
                else:
                    yield case, inputs


def histories_of_every_length(
    items: ItemIds, histories: Sequence[History], longest: int, reads: Reads
) -> list[History]:
    """Up to 512 of the given histories, from the shortest to the longest, and for each length to ``longest`` one made of them.

    One that is cut from a given one keeps the times of its events, and its user but for every fourth, whom nobody knows; one
    that is joined from several has made-up times. Half of the answers are wanted when the newest known event was, half later.

    Args:
        items: the catalogue; a history without an item of it is left out, since no model answers it.
        histories: raw histories.
        longest: largest length to make.
        reads: what the model reads beside items.

    Raises:
        ExportError: if no history is left.
    """
    known = [history.known(items) for history in histories]
    order = sorted((i for i, history in enumerate(known) if history.items), key=lambda i: len(known[i].items))
    if not order:
        raise ExportError(
            f"histories: none of {len(histories)} holds an item of item_ids; give a few hundred real ones, raw ids"
        )
    spread = [order[i] for i in np.linspace(0, len(order) - 1, min(REAL_HISTORIES, len(order))).astype(np.int64)]
    made = _made([known[i] for i in spread], longest, reads)
    tried = [(histories[i], known[i]) for i in spread] + [(history, history) for history in made]
    return [_asked(history, seen, i) for i, (history, seen) in enumerate(tried)]


def _made(cut: Sequence[History], longest: int, reads: Reads) -> list[History]:
    """One history of each length, the newest end of a given one where one is long enough."""
    joined = [item for history in reversed(cut) for item in history.items]
    joined *= 1 + 2 * longest // len(joined)
    random = np.random.default_rng(1)
    made = []
    for length in range(1, longest + 1):
        fitting = [history for history in cut if len(history.items) >= length]
        begin = (length * 7) % (len(joined) - length)
        if fitting:
            chosen = fitting[length % len(fitting)]
            rest, times = chosen.items[-length:], chosen.times[-length:]
        else:
            chosen, rest = cut[length % len(cut)], joined[begin : begin + length]
            imagined = reads.imagine(Ragged.from_rows([[1] * length]), random).timestamps
            times = [] if imagined is None else imagined.values.tolist()
        made.append(History(rest, times, chosen.user if length % 4 else None))
    return made


def _asked(history: History, known: History, place: int) -> History:
    """A history with the time for which its answer is wanted."""
    newest = known.times[-1] if known.times else 0
    wait = GAPS[place // 2 % len(GAPS)] if place % 2 else 0
    return replace(history, request_time=newest + wait, implied=wait == 0)


def _item_cases(graph: str, num_items: int, random: np.random.Generator) -> Iterator[tuple[str, Arrays]]:
    shares = {"all": 1.0, "most": 0.8, "none": 0.0} if graph == "similar" else {}
    for batch in BATCHES:
        drawn, ends = random.integers(1, num_items + 1, batch), np.resize([1, num_items], batch)
        for filling, item in (("drawn", drawn), ("ends", ends)):
            case = f"B={batch} {filling}"
            if not shares:
                yield case, {"item": item}
            for word, share in shares.items():
                yield f"{case}, {word} available", {"item": item, "available": random.random(num_items + 1) < share}


def _fill(
    filling: str,
    batch: int,
    length: int,
    num_items: int,
    histories: Requests,
    reads: Reads,
    random: np.random.Generator,
) -> Requests:
    if filling == "real":
        return histories.take(np.arange(batch) % len(histories))
    ids = random.integers(1, num_items + 1, (batch, length))
    if filling == "repeated":
        ids = np.repeat(ids[:, :1], length, axis=1)
    kept = {"ragged": None, "one item": 1, "all padding": 0}.get(filling, length)
    lengths = random.integers(1, length + 1, batch) if kept is None else np.full(batch, kept)
    return reads.imagine(Ragged.from_rows([row[:n] for row, n in zip(ids, lengths, strict=True)]), random)
