"""Where the targets of many users stand in their lists: all that the metrics at every cut-off are made of.

A place counts from 0. A target found twice stands at its first place; a target named twice is one target.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Ragged
from genrec.metrics.lists import Block, rows_of, whole_numbers

Ints = NDArray[np.int64]
_SLOTS = 1 << 19  # of the filters in use together: what the cache of a core holds
_FEWEST_BITS = 10  # of a user's filter
_MIX = np.int64(-7046029254386353131)  # 2**64 / golden ratio, odd: spreads ids that share their low bits


@dataclass(frozen=True)
class Hits:
    """The found targets of U users, by user and then by place.

    Args:
        users: int64 (N,), from 0, never falling: whose target it is.
        places: int64 (N,), from 0: where it stands in that user's list.
        relevant: int64 (U,): how many distinct targets each user has, found or not.
    """

    users: Ints
    places: Ints
    relevant: Ints


class HitFinder:
    """Finds targets in predictions, block after block, the quickest way for what the ids are.

    Python's own sets serve ids of any kind. Whole numbers are neither sorted nor numbered anew: every user has a filter
    of a few thousand slots, an id's hash names its slot, and only the predictions whose slot a target marked, which are
    few more than the hits, are compared with that target itself.

    Args:
        depth: how many of the best predictions count.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._marks = np.zeros(0, dtype=np.bool_)  # whether a target has the slot; all False between blocks
        self._owners = np.zeros(0, dtype=np.int32)  # which target has it, where one has

    def __call__(self, predictions: Block, targets: Block) -> Hits:
        """The hits of a block of users."""
        numbers = whole_numbers(predictions, targets, self._depth)
        if numbers is None:
            return _hits_of_rows(rows_of(predictions), rows_of(targets), self._depth)
        tops, wants = numbers
        if (wants.lengths == 1).all():
            return _hits_of_single_targets(tops, wants)
        bits = _bits(wants.lengths)
        users = max(_SLOTS >> bits, 1)  # whose filters are in use together
        self._grow(min(users, len(wants)) << bits)
        starts = range(0, len(wants), users)
        return _joined([self._hits(_block(tops, i, users), _block(wants, i, users), bits) for i in starts], users)

    def _grow(self, slots: int) -> None:
        if slots > len(self._marks):
            self._marks, self._owners = np.zeros(slots, dtype=np.bool_), np.empty(slots, dtype=np.int32)

    def _hits(self, tops: Ragged, wants: Ragged, bits: int) -> Hits:
        taken, keys = _slots(wants, bits), _slots(tops, bits)
        self._marks[taken] = True
        candidates = np.flatnonzero(self._marks.take(keys))
        self._marks[taken] = False
        first, again = self._settle(tops.values[candidates], keys[candidates], wants.values, taken)
        users, places = _places(tops, candidates[np.sort(first[first >= 0])])
        repeats = np.repeat(np.arange(len(wants)), wants.lengths)[again]
        return Hits(users, places, wants.lengths - np.bincount(repeats, minlength=len(wants)))

    def _settle(self, ids: Ints, keys: Ints, wants: Ints, taken: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Matches candidates and targets by id, a target of every slot in each round.

        Returns:
            Of each target the first candidate with its id, -1 for none; and whether it repeats another of its user's.
        """
        first = np.full(len(wants), -1)
        again = np.zeros(len(wants), dtype=np.bool_)
        candidates, unsettled = np.arange(len(ids)), np.arange(len(wants))
        while len(unsettled):
            slots = taken[unsettled]
            self._owners[slots] = unsettled  # of several targets in a slot, the last
            owners = self._owners[keys[candidates]]
            equal = wants[owners] == ids[candidates]
            first[owners[equal][::-1]] = candidates[equal][::-1]  # backwards, so that the first is written last
            candidates = candidates[~equal]
            owners = self._owners[slots]
            settled = wants[owners] == wants[unsettled]
            again[unsettled] = settled & (owners != unsettled)
            unsettled = unsettled[~settled]
        return first, again


def _hits_of_rows(predictions: Sequence[Sequence[Hashable]], targets: Sequence[Sequence[Hashable]], depth: int) -> Hits:
    """Finds targets among ids of any kind by Python's own equality: the quickest for lists, by far.

    Args:
        predictions: U lists, best first.
        targets: U lists.
        depth: how many of the best predictions count.
    """
    users: list[int] = []
    places: list[int] = []
    relevant = []
    for user, (top, row) in enumerate(zip(predictions, targets, strict=True)):
        wanted = set(row)
        relevant.append(len(wanted))
        found = wanted.intersection(top if len(top) <= depth else top[:depth])
        if found:
            users += [user] * len(found)
            places += sorted(map(top.index, found))
    return Hits(*(np.array(column, dtype=np.int64) for column in (users, places, relevant)))


def _hits_of_single_targets(predictions: Ragged, targets: Ragged) -> Hits:
    equal = predictions.values == np.repeat(targets.values, predictions.lengths)
    users, places = _places(predictions, np.flatnonzero(equal))
    first = np.flatnonzero(np.diff(users, prepend=-1))
    return Hits(users[first], places[first], targets.lengths)


def _bits(lengths: Ints) -> int:
    """Of a filter that few other ids pass, and where few targets of even the longest row share a slot."""
    slots = max(8 * lengths.mean(), lengths.max() / 16) if len(lengths) else 0
    return max(_FEWEST_BITS, int(slots).bit_length())


def _slots(rows: Ragged, bits: int) -> Ints:
    """For each value its slot: the user's filter, and the hash within."""
    slots: Ints = rows.values * _MIX
    slots.view(np.uint64)[...] >>= np.uint64(64 - bits)
    slots += np.repeat(np.arange(len(rows)) << bits, rows.lengths)
    return slots


def _places(predictions: Ragged, positions: Ints) -> tuple[Ints, Ints]:
    users = np.searchsorted(predictions.offsets, positions, side="right") - 1
    return users, positions - predictions.offsets[users]


def _block(rows: Ragged, start: int, users: int) -> Ragged:
    offsets = rows.offsets[start : start + users + 1]
    return Ragged(rows.values[offsets[0] : offsets[-1]], offsets - offsets[0])


def _joined(blocks: Sequence[Hits], users: int) -> Hits:
    if len(blocks) == 1:
        return blocks[0]
    return Hits(
        np.concatenate([block.users + i * users for i, block in enumerate(blocks)] or [np.zeros(0, np.int64)]),
        np.concatenate([block.places for block in blocks] or [np.zeros(0, np.int64)]),
        np.concatenate([block.relevant for block in blocks] or [np.zeros(0, np.int64)]),
    )
