"""Users as tokens: a number for every id there may ever be, the same in training and in serving."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from genrec.histories.items import RawId
from genrec.histories.ragged import Ints


def user_index(user: RawId | None, num_users: int = 2000) -> int:
    """A user's token, 1..``num_users``, the same in every process: blake2b of the id's text; 0 stands for nobody known.

    >>> user_index("A1YJEY40YUW4SE") == user_index("A1YJEY40YUW4SE"), 1 <= user_index(7, num_users=3) <= 3, user_index(None)
    (True, True, 0)
    """
    if user is None:
        return 0
    digest = hashlib.blake2b(str(user).encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "big") % num_users


def user_indices(users: Sequence[RawId | None], num_users: int) -> Ints:
    """The token of each user by ``user_index``: int64 (B,)."""
    return np.fromiter((user_index(user, num_users) for user in users), dtype=np.int64, count=len(users))
