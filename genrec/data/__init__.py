"""Interactions, splits and data sets: from files to histories of numbered items, without torch."""

try:
    from genrec.data.errors import DataError
    from genrec.data.interactions import Interactions
    from genrec.data.loading import load_data, load_titles
    from genrec.data.reading import read_split
    from genrec.data.sequences import SequenceData
    from genrec.data.splits import Cases, Split, leave_one_out, temporal_split
    from genrec.data.synthetic import Ceiling, Shop, make_shop
    from genrec.data.writing import write_split
except ModuleNotFoundError as error:
    if error.name != "polars":
        raise
    raise ImportError("genrec.data needs polars; install it with: pip install 'genrec[train]'") from error

__all__ = [
    "Cases",
    "Ceiling",
    "DataError",
    "Interactions",
    "SequenceData",
    "Shop",
    "Split",
    "leave_one_out",
    "load_data",
    "load_titles",
    "make_shop",
    "read_split",
    "temporal_split",
    "write_split",
]
