"""The one error that data can raise."""


class DataError(ValueError):
    """The data, or what was asked of it, is wrong; the message names the file, the row and the column."""
