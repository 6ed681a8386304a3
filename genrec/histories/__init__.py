"""Catalogues and histories: numbering, truncating, padding. The only code that does this, for training as for serving.

Items are numbered 1..V in the order of their sorted raw ids; 0 is padding. A history is a user's items, oldest first.
"""

from genrec.histories.catalogue import Catalogue, read_npy
from genrec.histories.items import ItemIds, NotAnId, RawId
from genrec.histories.ragged import PAD, Ints, Ragged, Side, offsets_of
from genrec.histories.users import user_index, user_indices

__all__ = [
    "PAD",
    "Catalogue",
    "Ints",
    "ItemIds",
    "NotAnId",
    "Ragged",
    "RawId",
    "Side",
    "offsets_of",
    "read_npy",
    "user_index",
    "user_indices",
]
