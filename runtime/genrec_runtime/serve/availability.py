"""The file that says which items may be recommended: one raw id a line, watched, the last good one kept."""

from __future__ import annotations

import os
from pathlib import Path

from genrec.histories import ItemIds, RawId
from genrec_runtime.availability import read_available
from genrec_runtime.errors import InputError

_Stamp = tuple[int, ...]


class AvailabilityFile:
    """A file of raw ids. Replace it by a rename: what is written in place may be read by half.

    Args:
        path: one id a line, UTF-8; blank lines count for nothing.

    Attributes:
        last_error: why the file as it is now was refused; None where it was not.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.last_error: Exception | None = None
        self._seen: _Stamp | None = None

    def changed(self, items: ItemIds) -> list[RawId] | None:
        """The ids of the file, if it is another than at the last call; None if not.

        Args:
            items: of the bundle that serves.

        Raises:
            OSError: if it cannot be read.
            InputError: if it is no text, a line is no id of such a catalogue, or no line is an item: an empty file is
                more often one that is being written than a shop that is closed.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            self._seen = stamp
            found = read_available(self.path.read_bytes(), self.path, items)
        except (OSError, InputError) as error:
            self.last_error = error
            raise
        self.last_error = None
        return found

    def again(self) -> None:
        """The next ``changed`` reads the file whether it changed or not: another bundle may know its ids."""
        self._seen = None

    def _stamp(self) -> _Stamp:
        try:
            status = os.stat(self.path)
        except OSError:
            if self._seen == ():  # missing as before: told once
                return ()
            self._seen = ()
            raise
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
