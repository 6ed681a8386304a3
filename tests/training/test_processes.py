"""Two real processes started by torchrun: the same counts as one, no hang, one writer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.data import Split
from genrec.results import read_result
from genrec.training import FitConfig, fit
from genrec.training.processes import random_states, restore_random_states, seed_everything
from genrec_models import SASRec

DATA = "dict(users=90, items=40, categories=4, events=(5, 14))"  # the shop of the fixtures
HEAD = f"""
import json, os, sys
from pathlib import Path
import torch
from genrec.data import leave_one_out, make_shop
from genrec.training import FitConfig, evaluate, fit, start_fabric
from genrec_models import SASRec, load_run
split = leave_one_out(make_shop(**{DATA}).data)

def tell(found):
    Path(__file__).with_name("told-" + os.environ["RANK"]).write_text(json.dumps(found))

"""
EVALUATE = """
model = load_run(sys.argv[1]).model
fabric = start_fabric("cpu")
valid = evaluate(model, split, split.valid, batch_size=7)
test = evaluate(model, split, batch_size=7, full=True)
values = {name: column.tolist() for name, column in test.values.items()}
tell({"world": fabric.world_size, "found": [valid.to_json(), test.to_json()], "values": values})
"""
TRAIN = """
torch.manual_seed(7)
model = SASRec(len(split.data.items), embedding_dim=8, num_layers=1, dropout=0.2, max_seq_length=5)
result = fit(model, split, out=sys.argv[1], resume=len(sys.argv) > 2,
             config=FitConfig(max_epochs=int(sys.argv[2]) if len(sys.argv) > 2 else 2, batch_size=9, device="cpu"))
sums = [float(p.detach().double().sum()) for p in result.model.parameters()]
tell({"main": result.is_main_process, "done": result.already_done, "sums": sums, "test": result.metrics["test"]})
"""


def torchrun(code: str, folder: Path, *arguments: object) -> list[Any]:
    """Runs code in two processes that find each other over loopback; what each tells."""
    script = folder / "script.py"
    script.write_text(HEAD + code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    done = subprocess.run(
        [*command, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"told-{rank}").read_text()) for rank in range(2)]


def test_two_processes_count_what_one_counts(split: Split, new_model: Callable[[], SASRec], tmp_path: Path) -> None:
    config = FitConfig(max_epochs=2, batch_size=32, eval_batch_size=7, learning_rate=0.01, device="cpu")
    metrics = fit(new_model(), split, out=tmp_path / "run", config=config).metrics
    values = {name: column.tolist() for name, column in read_result(tmp_path / "run").values.items()}
    expected = {"world": 2, "found": [metrics["valid"], metrics["test"]], "values": values}
    assert torchrun(EVALUATE, tmp_path, tmp_path / "run") == [expected, expected]


def test_two_processes_train_as_one_model_and_one_writes(tmp_path: Path) -> None:
    first, second = torchrun(TRAIN, tmp_path, tmp_path / "run")
    assert (first["main"], second["main"]) == (True, False)
    assert first["sums"] == second["sums"]
    assert first["test"] == second["test"] == json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "model.safetensors" in names
    assert [path.name for path in (tmp_path / "run/logs/csv").iterdir()] == ["version_0"]
    saved = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert len(saved["random"]) == 2
    again = torchrun(TRAIN, tmp_path, tmp_path / "run", 2)
    assert [one["done"] for one in again] == [True, True]


def test_random_states_go_round_and_know_how_many_processes_they_are_of() -> None:
    seed_everything(5)
    states = random_states()
    first = torch.rand(2).tolist(), np.random.rand(2).tolist()  # noqa: NPY002  # the legacy state is what is tested
    restore_random_states(states)
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist()) == first  # noqa: NPY002  # the legacy state is what is tested
    with pytest.raises(ValueError, match="started with 2 processes and must be resumed with as many, not 1"):
        restore_random_states(states * 2)
