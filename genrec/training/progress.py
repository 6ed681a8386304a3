"""What training shows on standard error: a bar in a terminal, a line an epoch elsewhere, nothing when not asked."""

from __future__ import annotations

from types import TracebackType
from typing import Any

Row = dict[str, float]


class Progress:
    """Follows a training.

    Args:
        shown: whether to show anything at all; only one of several processes should.
        max_epochs: how many epochs there are at most.
    """

    def __init__(self, shown: bool, max_epochs: int) -> None:
        self._max_epochs = max_epochs
        self._bar: Any = None
        self._task: Any = None
        if shown:
            self._bar = _bar()
            self._task = self._bar.add_task("", total=None, note="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Step ``step`` of ``steps`` of an epoch, from 1, is done."""
        if self._bar is not None:
            name = f"epoch {epoch} of at most {self._max_epochs}"
            self._bar.update(self._task, description=name, completed=step, total=steps)

    def epoch_ended(self, row: Row, best_epoch: int) -> None:
        """An epoch was validated."""
        if self._bar is None:
            return
        note = f"loss {row['train_loss']:.4f}  NDCG@10 {row['valid_ndcg@10']:.4f}  best in epoch {best_epoch}"
        self._bar.update(self._task, note=note)
        if not self._bar.console.is_terminal:
            self._bar.console.print(f"epoch {row['epoch']}: {note}")


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)
