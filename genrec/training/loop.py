"""The training loop: epochs of AdamW steps on Fabric, validation after each, the best kept, every epoch's end resumable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from genrec.data import Split
from genrec.histories import Ints
from genrec.training.batches import Batch, Windows, epoch_order
from genrec.training.config import FitConfig
from genrec.training.contract import recommender
from genrec.training.evaluation import evaluate, sample_cases
from genrec.training.folder import RunFolder
from genrec.training.inputs import FurtherInputs
from genrec.training.processes import random_states, restore_random_states, seed_everything
from genrec.training.progress import Progress

MONITOR = "valid_ndcg@10"
_CHECK_EVERY = 50  # steps between looks at the loss, which make a GPU wait

Row = dict[str, float]
Weights = dict[str, Tensor]


@dataclass
class Course:
    """How a training has gone so far.

    Args:
        rows: one an epoch, from epoch 1: ``epoch``, ``train_loss``, ``valid_recall@10``, ``valid_ndcg@10``.
    """

    rows: list[Row] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the highest validation NDCG@10, the first of equals; 0 before there is one."""
        return int(max(self.rows, key=lambda row: row[MONITOR], default={"epoch": 0})["epoch"])

    def ended(self, config: FitConfig) -> bool:
        """Whether all epochs are done, or too many were no better than the best."""
        return len(self.rows) >= config.max_epochs or len(self.rows) - self.best_epoch >= config.patience


class _Loss(nn.Module):
    """Lets a model's ``loss`` be called as a module, which is what Fabric and DistributedDataParallel wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: Batch) -> Tensor:
        loss: Tensor = self.model.loss(batch)["loss"]
        return loss


class Trainer:
    """Fits one model.

    Args:
        fabric: launched.
        model: one of the zoo's interface; moved to Fabric's device.
        split: whose training events are learnt and whose validation cases choose the epoch.
        config: how.
        seed: of batches, dropout and whatever else the model draws.

    Raises:
        ValueError: if no user has two training events, or there is no validation case.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, split: Split, config: FitConfig, seed: int) -> None:
        self.fabric, self.model, self.split, self.config, self.seed = fabric, model, split, config, seed
        further, events = FurtherInputs.of(model, split), split.train_histories()
        tokens = further.tokens(split, np.arange(len(events)))
        self.windows = Windows.cut(events, recommender(model).max_seq_length, further.train_times(split), tokens)
        if not len(self.windows):
            raise ValueError("nothing to train on: no user has two events in the training part")
        if not len(split.valid):
            raise ValueError("nothing to validate on: the split has no validation case")
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=config.precision != "16-mixed",  # a fused step would unscale by itself, which forbids clipping
        )
        self.loss, self.optimizer = fabric.setup(_Loss(model), optimizer)
        self.valid = sample_cases(split.valid, config.valid_cases, seed)
        self.course = Course()
        self.best: Weights = _copy(model)
        seed_everything(seed)

    def restore(self, folder: RunFolder) -> None:
        """Goes on from the folder's last checkpoint, where there is one.

        Raises:
            ValueError: if the run was started with another number of processes.
        """
        if not folder.last.exists():
            return
        saved = torch.load(folder.last, map_location="cpu", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.fabric.strategy.precision.load_state_dict(saved["precision"])
        self.course = Course(saved["rows"])
        self.best = folder.read_weights()
        restore_random_states(saved["random"])

    def run(self, folder: RunFolder | None, progress: Progress) -> None:
        """Trains to the end and leaves the best weights in the model.

        Raises:
            FloatingPointError: if the loss is no longer finite.
        """
        while not self.course.ended(self.config):
            epoch = len(self.course.rows)
            train_loss = self._train_epoch(epoch, progress)
            valid = evaluate(
                self.model, self.split, self.valid, ks=(10,), batch_size=self.config.eval_batch_size
            ).metrics
            row = {"epoch": epoch + 1, "train_loss": train_loss} | {
                f"valid_{k}": valid[k] for k in ("recall@10", "ndcg@10")
            }
            self.course.rows.append(row)
            if self.course.best_epoch == epoch + 1:
                self.best = _copy(self.model)
            self._save(folder)
            self.fabric.log_dict({k: v for k, v in row.items() if k != "epoch"}, step=epoch + 1)
            progress.epoch_ended(row, self.course.best_epoch)
        self.model.load_state_dict(self.best)

    def _train_epoch(self, epoch: int, progress: Progress) -> float:
        """One pass over the windows; the mean of the steps' losses, over all processes."""
        steps = epoch_order(
            self.windows.lengths,
            self.config.batch_size,
            self.seed,
            epoch,
            self.fabric.global_rank,
            self.fabric.world_size,
        )
        self.loss.train()
        total = torch.zeros((), device=self.fabric.device)
        for step, index in enumerate(steps, start=1):
            self._set_rate(self.config.rate_at(epoch + (step - 0.5) / len(steps)))  # of the step's middle: never 0
            total += self._step(index)
            if step % _CHECK_EVERY == 0 or step == len(steps):
                self._check_finite(total, epoch, step)
            progress.step(epoch + 1, step, len(steps))
        mean: Any = self.fabric.all_reduce(total / len(steps))
        return float(mean)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _step(self, index: Ints) -> Tensor:
        batch = self.fabric.to_device(self.windows.batch(index))
        loss: Tensor = self.loss(batch)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.config.gradient_clip:
            self.fabric.clip_gradients(
                self.loss, self.optimizer, max_norm=self.config.gradient_clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        return loss.detach()

    def _check_finite(self, total: Tensor, epoch: int, step: int) -> None:
        """A sum that once met NaN or infinity never leaves it, so a look now and then misses nothing."""
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"the loss became {float(total)} by step {step} of epoch {epoch + 1}; try a lower learning_rate (now "
                f"{self.config.learning_rate}), gradient_clip (now {self.config.gradient_clip}) or precision '32'"
            )

    def _save(self, folder: RunFolder | None) -> None:
        """Best weights first: whatever moment the process dies at, the checkpoint never speaks of weights not written."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": random_states(),
            "rows": self.course.rows,
        }
        if folder is None or not self.fabric.is_global_zero:
            return
        if self.course.best_epoch == len(self.course.rows):
            folder.write_weights(self.best)
        folder.write_last(state)


def _copy(model: nn.Module) -> Weights:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
