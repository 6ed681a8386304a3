"""The settings of a training run."""

import math
from dataclasses import dataclass
from typing import Literal

Precision = Literal["32", "bf16-mixed", "16-mixed"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class FitConfig:
    """How a model is fitted; counted models use ``eval_batch_size`` and ``device`` alone.

    Args:
        max_epochs: passes over the training data at most.
        batch_size: training windows a step on average, over all processes together.
        learning_rate: AdamW's, the highest.
        schedule: "constant", or "cosine": half a wave down to 0 at the end of ``max_epochs``, which a lower ``patience`` may
            cut short.
        warmup_epochs: in which the rate rises in a line from 0; a part of an epoch is as good.
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
    schedule: Schedule = "constant"
    warmup_epochs: float = 0.0
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
        for name in ("warmup_epochs", "weight_decay", "gradient_clip", "valid_cases"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must not be negative")
        if self.precision not in ("32", "bf16-mixed", "16-mixed"):
            raise ValueError(f"precision ({self.precision!r}) must be '32', 'bf16-mixed' or '16-mixed'")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule ({self.schedule!r}) must be 'constant' or 'cosine'")
        if self.warmup_epochs >= self.max_epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below max_epochs ({self.max_epochs})")

    def rate_at(self, epoch: float) -> float:
        """The learning rate after so many epochs, a part of one included: of 0 to ``max_epochs``.

        >>> config = FitConfig(max_epochs=5, learning_rate=0.2, schedule="cosine", warmup_epochs=1)
        >>> [round(config.rate_at(epoch), 3) for epoch in (0.5, 1, 3, 5)]
        [0.1, 0.2, 0.1, 0.0]
        """
        if epoch < self.warmup_epochs:
            return self.learning_rate * epoch / self.warmup_epochs
        if self.schedule == "constant":
            return self.learning_rate
        fallen = (epoch - self.warmup_epochs) / (self.max_epochs - self.warmup_epochs)  # 0..1
        return self.learning_rate * (1 + math.cos(math.pi * fallen)) / 2
