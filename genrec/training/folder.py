"""The run folder: what training leaves for serving, for people, and for going on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from genrec.data import Cases, Split
from genrec.results.files import beside, write_json, write_whole
from genrec.results.result import METRICS, Floats, write_per_user

PARITY_HISTORIES = 512
_MAY_DIFFER = {
    "fit.device",
    "fit.eval_batch_size",
    "data.source",
    "protocol.source",
}  # neither weights nor metrics hang on them
_OPTIONS = "data.options."  # what they lead to is held by the data's hash and the protocol

State = Literal["fresh", "started", "finished"]


class RunFolder:
    """Names and writers of the files of one run. Every file appears whole or not at all.

    Args:
        path: the folder; made when first written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / METRICS
        self.weights = self.path / "model.safetensors"
        self.last = self.path / "last.ckpt"
        self.logs = self.path / "logs"

    def state(self, config: Mapping[str, Any], resume: bool) -> State:
        """What there is to go on from.

        Args:
            config: what would be written to ``config.json``.
            resume: whether going on is wanted.

        Raises:
            ValueError: if the folder is in use and ``resume`` is not given, or its run had other settings or data.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return "fresh"
        if not resume:
            raise ValueError(
                f"{self.path} exists and is not empty; name another folder, or go on with its run by resume"
            )
        if not self.config.exists():
            raise ValueError(f"{self.path} is no run folder: it has no config.json, so there is nothing to resume")
        self._check_same(json.loads(self.config.read_text(encoding="utf-8")), config)
        return "finished" if self.metrics.exists() else "started"

    def start(self, config: Mapping[str, Any], split: Split) -> None:
        """Writes what is known before training: settings, items, and histories to check an export with."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name, content in split.catalogue().files().items():
            write_whole(self.path / name, content)
        with (self.path / "histories.npz").open("wb") as file:
            np.savez(file, **parity_histories(split))  # type: ignore[arg-type]  # savez has a flag among its keywords
        write_json(self.config, config)

    def write_metrics(self, metrics: Mapping[str, Any], users: NDArray[Any], values: Mapping[str, Floats]) -> None:
        """Writes ``per_user.npz`` and then ``metrics.json``, by which the run is finished."""
        write_per_user(self.path, users, values)
        write_json(self.metrics, metrics)

    def write_card(self, text: str) -> None:
        """Writes ``README.md``, the model card."""
        write_whole(self.path / "README.md", text.encode())

    def write_weights(self, weights: dict[str, Tensor]) -> None:
        """Writes ``model.safetensors``."""
        part = beside(self.weights)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part)
        os.replace(part, self.weights)

    def read_weights(self) -> dict[str, Tensor]:
        """Reads ``model.safetensors``."""
        return load_file(self.weights)

    def write_last(self, state: dict[str, Any]) -> None:
        """Writes ``last.ckpt``, which ``torch.load(weights_only=True)`` opens."""
        part = beside(self.last)
        torch.save(state, part)
        os.replace(part, self.last)

    def read_metrics(self) -> dict[str, Any]:
        """Reads ``metrics.json``."""
        metrics: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        return metrics

    def _check_same(self, saved: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        before, now = _flat(saved), _flat(json.loads(json.dumps(config)))
        names = sorted(before.keys() | now.keys())
        changed = [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in names
            if before.get(name) != now.get(name) and name not in _MAY_DIFFER and not name.startswith(_OPTIONS)
        ]
        if changed:
            raise ValueError(f"{self.path} cannot be resumed with other settings: {'; '.join(changed)}")


def parity_histories(split: Split, size: int = PARITY_HISTORIES) -> dict[str, NDArray[Any]]:
    """Up to ``size`` whole histories of the test cases, of all lengths, the shortest and the longest among them.

    Returns:
        Item numbers ``values`` with their ``offsets``; ``times`` in seconds of the values, where they are known; the raw ids
        ``users``, int64 or fixed-width text.
    """
    order = np.argsort(split.test.ends, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(size, len(order))).round().astype(np.int64))]
    cases = Cases(split.test.users[chosen], split.test.ends[chosen])
    histories, times = split.histories(cases), split.history_times(cases)
    known = {} if times is None else {"times": times.values}
    users = np.array(split.data.user_ids[cases.users].tolist())
    return {"values": histories.values, "offsets": histories.offsets, **known, "users": users}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
