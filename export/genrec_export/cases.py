"""What an export is tried on: the grid of tensors for the graphs, and raw histories of every length for the product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from genrec.histories import Ints, ItemIds, Ragged, RawId, Side
from genrec_export.errors import ExportError
from genrec_export.report import Arrays

BATCHES = (1, 2, 5, 32)
FILLINGS = ("full", "ragged", "one item", "all padding", "repeated", "real")
REAL_HISTORIES = 512  # tried as they stand, at most


def recommender_cases(
    graph: str, num_items: int, lengths: Sequence[int], side: Side, histories: Ragged
) -> Iterator[tuple[str, Arrays]]:
    """The grid for one graph of a recommender: every length, batch and filling, with and without exclusions.

    That of a graph of items has no length: every batch of drawn items, and of the first and the last in turn.
    """
    random = np.random.default_rng(0)
    if graph in ("item_vectors", "similar"):
        yield from _item_cases(graph, num_items, random)
        return
    for length in lengths:
        for batch in BATCHES:
            for filling in FILLINGS:
                item_ids = _fill(filling, batch, length, num_items, side, histories, random)
                case = f"B={batch} L={length} {filling}"
                if graph == "recommend":
                    for case_of, exclude, share in (
                        (f"{case}, exclude none", np.zeros((batch, 0), np.int64), 1.0),
                        (f"{case}, exclude history", item_ids, 0.8),
                    ):
                        available = random.random(num_items + 1) < share
                        yield case_of, {"item_ids": item_ids, "exclude": exclude, "available": available}
                elif graph == "score":
                    candidates = random.integers(0, num_items + 1, (batch, 1 + length % 5))
                    yield case, {"item_ids": item_ids, "candidates": candidates}
                else:
                    yield case, {"item_ids": item_ids}


def histories_of_every_length(items: ItemIds, histories: list[list[RawId]], longest: int) -> list[list[RawId]]:
    """Up to 512 of the given histories, from the shortest to the longest, and for each length to ``longest`` one made of them.

    Args:
        items: the catalogue; a history without an item of it is left out, since no model answers it.
        histories: raw histories.
        longest: largest length to make.

    Raises:
        ExportError: if no history is left.
    """
    known = [items.index(history) > 0 for history in histories]
    real = sorted(
        (
            (history, [item for item, found in zip(history, mask, strict=True) if found])
            for history, mask in zip(histories, known, strict=True)
            if mask.any()
        ),
        key=lambda pair: len(pair[1]),
    )
    if not real:
        raise ExportError(
            f"histories: none of {len(histories)} holds an item of item_ids; give a few hundred real ones, raw ids"
        )
    spread = np.linspace(0, len(real) - 1, min(REAL_HISTORIES, len(real))).astype(np.int64)
    cut = [real[i][1] for i in spread]
    joined = [item for history in reversed(cut) for item in history]
    joined *= 1 + 2 * longest // len(joined)
    made: list[list[RawId]] = []
    for length in range(1, longest + 1):
        fitting = [history for history in cut if len(history) >= length]
        begin = (length * 7) % (len(joined) - length)
        made.append(fitting[length % len(fitting)][-length:] if fitting else joined[begin : begin + length])
    return [real[i][0] for i in spread] + made


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
    filling: str, batch: int, length: int, num_items: int, side: Side, histories: Ragged, random: np.random.Generator
) -> Ints:
    if filling == "real":
        rows = np.arange(batch) % len(histories)
        return histories.slices(rows, np.zeros(batch, np.int64), histories.lengths[rows]).pad(length, side)
    ids = random.integers(1, num_items + 1, (batch, length))
    if filling == "repeated":
        return np.repeat(ids[:, :1], length, axis=1)
    kept = {"full": length, "ragged": None, "one item": 1, "all padding": 0}[filling]
    lengths = random.integers(1, length + 1, batch) if kept is None else np.full(batch, kept)
    return Ragged.from_rows([row[:n] for row, n in zip(ids, lengths, strict=True)]).pad(length, side)
