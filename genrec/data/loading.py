"""From a file or a data set's name to sequences, in one call."""

from __future__ import annotations

from pathlib import Path

from genrec.data.columns import Role, as_ids, find_column
from genrec.data.datasets import DATASETS, read_dataset
from genrec.data.errors import DataError
from genrec.data.interactions import Dedup, Interactions
from genrec.data.sequences import SequenceData
from genrec.data.synthetic import make_shop
from genrec.data.tables import column_names, read_columns
from genrec.histories import RawId

QUICKSTART = "quickstart"
NAMES = (QUICKSTART, *DATASETS)


def load_data(
    source: str | Path,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    rating_col: str | None = None,
    min_rating: float | None = None,
    dedup: Dedup = "first",
    k_core: int | None = None,
    items: str | Path | None = None,
    title_col: str | None = None,
) -> SequenceData:
    """Loads events, leaves out what is not wanted, and groups them by user.

    The filters work in this order: ``min_rating``, ``dedup``, ``k_core``.

    Args:
        source: a CSV, TSV (or .gz of them) or Parquet file, ``"quickstart"`` for the embedded shop, or a data set that
            is fetched from its publisher: ``"movielens-100k"``, ``"movielens-1m"``, ``"online-retail"``.
        user_col: name of the users' column in a file; None looks for a common name, likewise for the next ones.
        item_col: name of the items' column, in the file of events and in that of titles, where it is looked for
            anew if it has no such column.
        time_col: name of the times' column.
        rating_col: name of the ratings' column, needed for ``min_rating`` only.
        min_rating: events with a lower rating are left out.
        dedup: ``"first"`` keeps the earliest event of a user and an item, ``"none"`` all.
        k_core: fewest events of a user and of an item; None and 0 keep all.
        items: a file with the items' titles.
        title_col: name of the titles' column in it.

    Raises:
        DataError: if anything about the data is wrong; it names the file, the row and the column.
        ValueError: if an option is out of range, or names a column where there is no file.
    """
    named = {"user_col": user_col, "item_col": item_col, "time_col": time_col, "rating_col": rating_col}
    if str(source) in NAMES:
        if given := [option for option, name in named.items() if name is not None]:
            raise ValueError(f"{', '.join(given)}: the columns of {str(source)!r} are known; leave this out")
        events, titles = _named(str(source), min_rating)
    else:
        if not Path(source).exists():
            raise DataError(f"{source}: no such file, and no data set's name ({', '.join(NAMES)})")
        events, titles = Interactions.read(source, **named, min_rating=min_rating), None
    if items is not None:
        column = item_col if item_col in column_names(Path(items)) else None
        titles = load_titles(items, item_col=column, title_col=title_col)
    return SequenceData.from_interactions(events.dedup(dedup).k_core(k_core or 0), titles)


def load_titles(path: str | Path, *, item_col: str | None = None, title_col: str | None = None) -> dict[RawId, str]:
    """Reads a table of items.

    Args:
        path: a file of the kinds that ``load_data`` takes.
        item_col: name of the items' column; None looks for a common name.
        title_col: name of the titles' column; None looks for a common name.

    Returns:
        Raw item id to title; items without a title are left out, and of several titles the first one stays.

    Raises:
        DataError: if the file, a column or an id is missing or wrong.
    """
    path = Path(path)
    wanted: list[tuple[Role, str | None]] = [("item", item_col), ("title", title_col)]
    names = column_names(path)
    item, title = (find_column(str(path), names, role, name) for role, name in wanted)
    table = read_columns(path, sorted({item, title}))
    ids = as_ids(table, item).to_list()
    titles: dict[RawId, str] = {}
    for raw, text in zip(ids, table.frame[title].to_list(), strict=True):
        if text is not None:
            titles.setdefault(raw, str(text))
    return titles


def _named(name: str, min_rating: float | None) -> tuple[Interactions, dict[RawId, str]]:
    if name != QUICKSTART:
        return read_dataset(name, min_rating=min_rating)
    if min_rating is not None:
        raise DataError(f"{name}: min_rating={min_rating:g} needs ratings, which these events lack")
    shop = make_shop()
    return shop.interactions, dict(zip(shop.data.items.all(), shop.data.titles or (), strict=True))
