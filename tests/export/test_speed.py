"""Speed is a ratio of medians of calls that take turns, and its measurement ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec_export import speed
from genrec_runtime.device import available_threads
from recent import Recent, export_recent, newest_left, reference_of


class Clock:
    """Time that passes in calls only.

    Args:
        monkeypatch: puts it in the place of the computer's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[float] = []
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def call(self, *seconds: float) -> Callable[[], None]:
        """Takes so long, once after the other, and then as long as the last time."""
        left = list(seconds)

        def run() -> None:
            taken = left.pop(0) if len(left) > 1 else left[0]
            self.calls.append(taken)
            self.now += taken

        return run


def test_speed_is_the_ratio_of_the_medians_without_the_first_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    slow_at_first = clock.call(*[1.0] * speed.WARM, 0.009, 0.003)
    assert speed.times_as_fast(slow_at_first, clock.call(0.002)) == 1.5
    assert clock.calls[-4:] == [0.003, 0.002, 0.003, 0.002]
    assert len(clock.calls) == 2 * (speed.WARM + speed.RUNS)


def test_long_calls_are_made_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert speed.times_as_fast(clock.call(speed.SECONDS), clock.call(4 * speed.SECONDS)) == 0.25
    assert len(clock.calls) == 2 * (speed.WARM + speed.LEAST)


def test_torch_has_as_many_threads_as_the_bundle_while_they_are_timed(tmp_path: Path) -> None:
    seen, net, before = [], Recent().eval(), torch.get_num_threads()
    other = 2 if available_threads() == 1 else 1
    answer = reference_of(net, newest_left)

    def reference(histories: Any) -> Any:
        seen.append(torch.get_num_threads())
        return answer(histories)

    torch.set_num_threads(other)
    try:
        export_recent(tmp_path / "store", net=net, reference=reference)
        assert torch.get_num_threads() == seen[0] == other  # the proof's are the caller's
    finally:
        torch.set_num_threads(before)
    assert seen[-1] == available_threads()
