"""What the tests of all pictures share."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def agg(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pyplot on a backend without windows, and no figure left open by a test."""
    pytest.importorskip("seaborn")
    from matplotlib import pyplot

    before = pyplot.get_backend()
    pyplot.switch_backend("agg")
    yield
    assert pyplot.get_fignums() == []
    pyplot.switch_backend(before)


@pytest.fixture
def check_layout() -> Callable[[Any], None]:
    """A check that a figure's panels, with their labels, and its legends stand clear of one another, and so do tick labels."""

    def check(figure: Any) -> None:
        figure.draw_without_rendering()
        parts = [axes.get_tightbbox() for axes in figure.axes]
        legends = [legend.get_window_extent() for legend in figure.legends]
        assert all(figure.bbox.height >= legend.height for legend in legends)
        parts += legends
        for one, other in itertools.combinations(parts, 2):
            assert not one.padded(-1).overlaps(other), (one, other)  # neighbours may touch
        for axes in figure.axes:
            for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
                written = [label for label in labels if label.get_text() and label.get_visible()]
                extents = [label.get_window_extent() for label in written if label.get_rotation() == 0]
                for one, other in itertools.pairwise(extents):
                    assert not one.overlaps(other), [label.get_text() for label in written]

    return check
