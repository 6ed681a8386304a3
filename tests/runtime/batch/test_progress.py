import io
import sys

import pytest

from genrec_runtime.batch import Counts
from genrec_runtime.batch.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_rich_a_line_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress(1_200) as watch:
        assert watch is not None
        watch(Counts(0, rows=1_000, answered=1_000, bad=0))
        watch(Counts(1, rows=150, answered=147, bad=3))
    assert sys.stderr.getvalue().split("\r\x1b[K") == ["", "1,000 of 1,200 rows  ", "1,150 of 1,200 rows  3 bad", ""]


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress(7) as watch:
        assert watch is None
    assert sys.stderr.getvalue() == ""
