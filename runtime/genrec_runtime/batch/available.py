"""The file of the items that may be recommended, as a job knows it: by its bytes, so that no part is made after another one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from genrec.histories import ItemIds, RawId
from genrec_runtime.availability import read_available
from genrec_runtime.errors import InputError


@dataclass(frozen=True)
class Availability:
    """A file of raw ids, one a line.

    Attributes:
        path: where it is, links resolved.
        sha256: of its bytes.
    """

    path: str
    sha256: str

    def ids(self, items: ItemIds) -> list[RawId]:
        """The file's ids.

        Args:
            items: of the bundle.

        Raises:
            InputError: if it is another file by now.
            OSError: if it cannot be read.
        """
        content = Path(self.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            message = f"{self.path} has changed since the job began; begin again in another folder"
            raise InputError(message, code="table", field="availability", value=self.path)
        return read_available(content, Path(self.path), items)


def look(path: str | os.PathLike[str], items: ItemIds) -> Availability:
    """A file as it is now.

    Args:
        path: where it is.
        items: of the bundle.

    Raises:
        InputError: if it is no such file for this bundle, as of ``read_available``.
        OSError: if it cannot be read.
    """
    resolved = Path(path).resolve()
    content = resolved.read_bytes()
    read_available(content, resolved, items)
    return Availability(str(resolved), hashlib.sha256(content).hexdigest())
