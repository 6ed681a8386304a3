"""The settings of a training run."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["32", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class FitConfig:
    """How a model is fitted; counted models use ``eval_batch_size`` and ``device`` alone.

    Args:
        max_epochs: passes over the training data at most.
        batch_size: training windows a step on average, over all processes together.
        learning_rate: AdamW's, constant.
        weight_decay: AdamW's, decoupled; 0 for none.
        patience: epochs without a better validation NDCG@10 after which training stops.
        gradient_clip: largest norm of the gradient; 0 for no clipping.
        precision: "32", "bf16-mixed", or "16-mixed" (GPU only); scores are always computed in float32.
        valid_cases: validation cases that choose the epoch, drawn by the run's seed, the same after every epoch, for models
            that take long to score; 0 for all. Final figures are of all cases.
        eval_batch_size: histories scored at once in validation and test.
        device: "auto" takes a GPU where there is one; "cpu", "cuda" and "cuda:N" are strict.

    Raises:
        ValueError: if a setting is out of range.
    """

    max_epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 10
    gradient_clip: float = 0.0
    precision: Precision = "32"
    valid_cases: int = 0
    eval_batch_size: int = 256
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "patience", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate ({self.learning_rate}) must be above 0")
        for name in ("weight_decay", "gradient_clip", "valid_cases"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must not be negative")
        if self.precision not in ("32", "bf16-mixed", "16-mixed"):
            raise ValueError(f"precision ({self.precision!r}) must be '32', 'bf16-mixed' or '16-mixed'")
