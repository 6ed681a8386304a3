"""``fit``: from a model and a split to measured weights, and to a run folder where one is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, cast

from lightning.fabric import Fabric
from lightning.fabric.loggers.csv_logs import CSVLogger
from lightning.fabric.loggers.logger import Logger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from torch import nn

from genrec.cards import run_card
from genrec.data import Split
from genrec.results.result import FORMAT, FORMAT_VERSION, Floats
from genrec.training.config import FitConfig
from genrec.training.contract import CountedModel, is_counted, recommender
from genrec.training.evaluation import PROTOCOL, evaluate
from genrec.training.folder import RunFolder, State
from genrec.training.inputs import FurtherInputs
from genrec.training.loop import MONITOR, Course, Trainer
from genrec.training.processes import quiet, start_fabric
from genrec.training.progress import Progress
from genrec.training.standing import intervals, measure_baselines


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model and what it scored.

    Args:
        model: the model that was handed in, with the best epoch's weights, in eval mode, on the CPU.
        metrics: what ``metrics.json`` holds: ``protocol``, ``best_epoch``, ``epochs`` (one row each), ``valid``, ``test``.
        folder: the run folder, or None.
        already_done: the folder held a finished run of these settings, so nothing was done.
        is_main_process: whether this is the process that writes; True but for the others of a torchrun group.
    """

    model: nn.Module
    metrics: dict[str, Any]
    folder: Path | None
    already_done: bool = False
    is_main_process: bool = True


def fit(
    model: nn.Module,
    split: Split,
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    config: FitConfig | None = None,
    resume: bool = False,
    progress: bool = False,
    data_options: Mapping[str, Any] | None = None,
    baselines: Mapping[str, nn.Module] | None = None,
) -> FitResult:
    """Fits a model, keeps its best epoch by validation NDCG@10, and scores the test cases once with that.

    A run that was interrupted goes on by ``resume`` from the end of its last epoch, exactly as if it had not been. Started
    by torchrun, each process calls this alike; only the first one writes.

    Args:
        model: has ``loss`` or ``fit_events``, ``scores`` or ``user_state`` and ``item_vectors``; and ``num_items``,
            ``max_seq_length``, ``config`` (a dataclass of all its constructor's arguments, ``num_items`` among them).
        split: what to learn from, validate on and test on.
        out: the run folder to write; None keeps the result in memory.
        seed: of everything random from here on; the model's initial weights are the caller's.
        config: settings of the fit; the defaults when None.
        resume: go on with the run in ``out``; where there is none yet, start it.
        progress: show a bar on standard error.
        data_options: how the data were loaded, as JSON values, kept in ``config.json`` for loading them again.
        baselines: counted models, by name, to be fitted to the same events and measured beside it, for its card.

    Raises:
        TypeError: if the model lacks a part of the interface.
        ValueError: if ``out`` is in use, ``resume`` finds other settings, or the model and the split do not fit.
        FloatingPointError: if the loss is no longer finite.
    """
    config = FitConfig() if config is None else config
    counted = is_counted(model)
    _check_fits(model, split, seed)
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the run to go on with")
    folder = None if out is None else RunFolder(out)
    loggers = _loggers(folder) if folder is not None and not counted else []
    fabric = start_fabric(config.device, config.precision, loggers)
    description = _describe(model, split, seed, config, data_options or {})
    state = _open(fabric, folder, description, split, resume)
    if folder is not None and state == "finished":
        model.load_state_dict(folder.read_weights())
        return FitResult(model.eval(), folder.read_metrics(), folder.path, True, fabric.is_global_zero)
    with quiet():
        course = (
            _count(fabric, model, split)
            if counted
            else _train(fabric, model, split, config, seed, folder, resume=state == "started", progress=progress)
        )
    metrics, values = _measure(model, split, config, course)
    if baselines:
        others = measure_baselines(baselines, split, values, fabric.device, config.eval_batch_size)
        metrics["baselines"] = others
    model.cpu().eval()
    if folder is not None and fabric.is_global_zero:
        if counted:
            folder.write_weights(model.state_dict())
        folder.write_card(run_card(description, metrics))
        folder.write_metrics(metrics, split.data.user_ids[split.test.users], values)
    return FitResult(model, metrics, None if folder is None else folder.path, False, fabric.is_global_zero)


def _train(
    fabric: Fabric,
    model: nn.Module,
    split: Split,
    config: FitConfig,
    seed: int,
    folder: RunFolder | None,
    *,
    resume: bool,
    progress: bool,
) -> Course:
    prepare = getattr(model, "prepare", None)
    if prepare is not None:
        prepare(split.train_histories())
    trainer = Trainer(fabric, model, split, config, seed)
    if folder is not None and resume:
        trainer.restore(folder)
    try:
        with Progress(progress and fabric.is_global_zero, config.max_epochs) as shown:
            trainer.run(folder, shown)
    finally:
        for logger in fabric.loggers:
            logger.finalize("success")
    return trainer.course


def _count(fabric: Fabric, model: nn.Module, split: Split) -> Course:
    cast(CountedModel, model).fit_events(split.train_histories())
    model.to(fabric.device)
    return Course()


def _measure(
    model: nn.Module, split: Split, config: FitConfig, course: Course
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The contents of ``metrics.json``, and those of the test by user; the one place where the test cases are scored."""
    valid = evaluate(model, split, split.valid, batch_size=config.eval_batch_size)
    test = evaluate(model, split, batch_size=config.eval_batch_size, full=True)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "protocol": split.protocol() | PROTOCOL,
        "monitor": MONITOR,
        "best_epoch": course.best_epoch,
        "epochs": course.rows,
        "valid": valid.to_json(),
        "test": test.to_json(),
        "intervals": intervals(test.values),
    }
    facts = getattr(model, "facts", None)
    return content if facts is None else content | {"facts": facts()}, test.values


def _open(
    fabric: Fabric, folder: RunFolder | None, description: Mapping[str, Any], split: Split, resume: bool
) -> State:
    """What the folder holds, looked at and begun by the first process, agreed on by all."""
    state: State = "fresh"
    error: str | None = None
    if folder is not None and fabric.is_global_zero:
        try:
            state = folder.state(description, resume)
            if state == "fresh":
                folder.start(description, split)
        except (ValueError, OSError) as problem:
            error = str(problem)
    state, error = fabric.broadcast((state, error))
    if error is not None:
        raise ValueError(error)
    return state


def _describe(
    model: nn.Module, split: Split, seed: int, config: FitConfig, data_options: Mapping[str, Any]
) -> dict[str, Any]:
    """The contents of ``config.json``."""
    kind = type(model)
    data = split.data
    return {
        "format": "genrec-run",
        "format_version": 1,
        "model": vars(kind).get("zoo_name", f"{kind.__module__}:{kind.__qualname__}"),  # a subclass is not of the zoo
        "config": asdict(recommender(model).config),
        "fit": asdict(config),
        "seed": None if is_counted(model) else seed,
        "data": {
            "source": data.source,
            "options": dict(data_options),
            "hash": data.content_hash,
            "users": len(data.user_ids),
            "items": len(data.items),
            "events": len(data.events.values),
        },
        "protocol": split.protocol() | PROTOCOL,
    }


def _check_fits(model: nn.Module, split: Split, seed: int) -> None:
    items = len(split.data.items)
    if not is_dataclass(recommender(model).config):
        raise TypeError(
            f"{type(model).__name__}.config must be a dataclass instance that holds all arguments of its constructor, "
            f"not {recommender(model).config!r}"
        )
    if recommender(model).num_items != items:
        raise ValueError(f"the model was built for num_items {recommender(model).num_items}, the data have {items}")
    if not len(split.test):
        raise ValueError("nothing to test on: the split has no test case")
    FurtherInputs.of(model, split)  # refuses a model that reads what the data lack, before a folder is written
    if seed < 0:
        raise ValueError(f"seed ({seed}) must not be negative")


def _loggers(folder: RunFolder) -> list[Logger]:
    """A new CSV file for each start, and one TensorBoard folder for all."""
    return [CSVLogger(folder.logs, name="csv"), TensorBoardLogger(folder.logs, name="tensorboard", version="")]
