"""Fitting: the best epoch is kept and measured once, a run folder tells all, and an interrupted run goes on exactly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genrec.data import Cases, Split
from genrec.results import read_result
from genrec.training import FitConfig, evaluate, fit
from genrec.training.batches import Windows, epoch_order
from genrec.training.folder import parity_histories
from genrec_models import ItemKNN, SASRec, load_run

Make = Callable[[], SASRec]
QUICK = FitConfig(max_epochs=3, batch_size=32, learning_rate=0.01)
FALLING = FitConfig(max_epochs=3, batch_size=32, learning_rate=0.01, schedule="cosine", warmup_epochs=1.5)


def weights_of(model: nn.Module) -> list[list[Any]]:
    return [tensor.tolist() for tensor in model.state_dict().values()]


class Halting(SASRec):
    """Is interrupted, or ill, at a given step."""

    zoo_name = "sasrec"  # the run is to be continued by a healthy one

    def halt(self, step: int, error: BaseException | None) -> "Halting":
        self.step, self.error = step, error
        return self

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.step -= 1
        losses = super().loss(batch)
        if self.step == 0:
            if self.error is not None:
                raise self.error
            return {"loss": losses["loss"] * float("nan")}
        return losses


def steps_an_epoch(split: Split) -> int:
    return len(epoch_order(Windows.cut(split.train_histories(), 5).lengths, QUICK.batch_size, 0, 0))


def halting(model: SASRec, step: int, error: BaseException | None) -> SASRec:
    model.__class__ = Halting
    assert isinstance(model, Halting)
    return model.halt(step, error)


def test_training_learns_and_leaves_the_best_epoch(split: Split, new_model: Make) -> None:
    before = evaluate(new_model(), split, split.valid).metrics["ndcg@10"]
    result = fit(new_model(), split, config=FitConfig(max_epochs=6, batch_size=32, learning_rate=0.02))
    rows = result.metrics["epochs"]
    best = max(rows, key=lambda row: row["valid_ndcg@10"])
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert result.metrics["best_epoch"] == best["epoch"]
    assert best["valid_ndcg@10"] > before
    assert evaluate(result.model, split, split.valid).metrics["ndcg@10"] == best["valid_ndcg@10"]
    assert evaluate(result.model, split, full=True).to_json() == result.metrics["test"]
    assert not result.model.training


def test_a_model_is_shown_the_training_events_before_it_is_fitted(split: Split) -> None:
    model = SASRec(
        len(split.data.items), embedding_dim=8, max_seq_length=5, loss="sampled_softmax", negatives="popularity"
    )
    fit(model, split, config=FitConfig(max_epochs=1, batch_size=32))  # its loss refuses to draw by counts it has not
    seen = split.popularity()[1:] + 1.0
    expected = seen**0.75 / np.sum(seen**0.75)
    np.testing.assert_allclose(model.objective.shares[1:].numpy(), expected, rtol=1e-5)  # kept in float32


def test_the_same_seed_gives_the_same_run_and_another_one_another(split: Split, new_model: Make) -> None:
    first, second, other = (fit(new_model(), split, seed=seed, config=QUICK) for seed in (1, 1, 2))
    assert first.metrics == second.metrics
    assert weights_of(first.model) == weights_of(second.model)
    assert first.metrics["epochs"] != other.metrics["epochs"]


def test_training_stops_when_patience_is_out(split: Split, new_model: Make) -> None:
    config = FitConfig(max_epochs=50, patience=2, batch_size=32, learning_rate=1e-12)  # nothing is learnt
    metrics = fit(new_model(), split, config=config).metrics
    assert metrics["best_epoch"] == 1
    assert len(metrics["epochs"]) == 3


def test_the_learning_rate_rises_and_falls_as_the_schedule_says(
    split: Split, new_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    fit(new_model(), split, config=FALLING)
    count = steps_an_epoch(split)
    epochs = (np.arange(3 * count) + 0.5) / count
    rising, falling = (
        0.01 * epochs / 1.5,
        0.01 * np.cos(np.pi / 2 * (epochs - 1.5) / 1.5) ** 2,
    )  # (1 + cos 2a) / 2 = cos^2 a
    np.testing.assert_allclose(rates, np.where(epochs < 1.5, rising, falling), rtol=1e-12)


def test_clipping_and_bfloat16_train_too(split: Split, new_model: Make) -> None:
    config = FitConfig(max_epochs=1, batch_size=32, gradient_clip=0.1, weight_decay=0.01, precision="bf16-mixed")
    loss = fit(new_model(), split, config=config).metrics["epochs"][0]["train_loss"]
    exact = fit(new_model(), split, config=FitConfig(max_epochs=1, batch_size=32)).metrics["epochs"][0]["train_loss"]
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.05)  # 8 bits of mantissa, a few steps


def test_a_run_folder_holds_what_serving_and_people_need(split: Split, new_model: Make, tmp_path: Path) -> None:
    result = fit(new_model(), split, out=tmp_path / "run", seed=4, config=QUICK, data_options={"source": "shop"})
    run = load_run(tmp_path / "run")
    assert weights_of(run.model) == weights_of(result.model)
    assert run.catalogue.items == split.data.items
    assert run.catalogue.titles == split.data.titles
    assert run.metrics == result.metrics
    assert run.config["model"] == "sasrec"
    assert run.config["seed"] == 4
    assert run.config["data"]["options"] == {"source": "shop"}
    assert run.config["data"]["hash"] == split.data.content_hash
    assert {"split", "ranking", "seen_filter", "ties", "content_hash", "test"} <= run.metrics["protocol"].keys()
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "model.safetensors", "metrics.json", "last.ckpt", "logs", "histories.npz"} <= names
    assert not [name for name in names if name.endswith(".part")]
    logged = (tmp_path / "run/logs/csv/version_0/metrics.csv").read_text().splitlines()
    assert len(logged) == 1 + len(result.metrics["epochs"])
    assert list((tmp_path / "run/logs/tensorboard").glob("events.*"))


def test_a_run_folder_can_be_compared_by_user(split: Split, new_model: Make, tmp_path: Path) -> None:
    run = fit(new_model(), split, out=tmp_path / "run", seed=4, config=QUICK)
    found = read_result(tmp_path / "run")
    measured = evaluate(run.model, split, full=True)
    assert found.users.tolist() == split.data.user_ids[split.test.users].tolist()
    assert {name: column.tolist() for name, column in found.values.items()} == {
        name: column.tolist() for name, column in measured.values.items()
    }
    assert (found.metrics, found.name) == (measured.metrics, "run")
    assert (found.details["model"], found.details["seed"]) == ("sasrec", 4)
    assert found.protocol == run.metrics["protocol"]


def test_a_counted_model_goes_through_the_same_door(split: Split, tmp_path: Path) -> None:
    result = fit(ItemKNN(len(split.data.items)), split, out=tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert evaluate(run.model, split, full=True).to_json() == result.metrics["test"] == run.metrics["test"]
    assert run.metrics["epochs"] == []
    with pytest.raises(ValueError, match="exists and is not empty"):
        fit(ItemKNN(len(split.data.items)), split, out=tmp_path / "run")
    assert fit(ItemKNN(len(split.data.items)), split, out=tmp_path / "run", resume=True).already_done


@pytest.mark.parametrize(
    ("epochs", "steps", "config"),
    [(0, 1, QUICK), (1, 0, QUICK), (1, 2, QUICK), (2, 1, QUICK), (1, 2, FALLING)],
)
def test_an_interrupted_run_goes_on_exactly(
    split: Split, new_model: Make, tmp_path: Path, epochs: int, steps: int, config: FitConfig
) -> None:
    whole = fit(new_model(), split, out=tmp_path / "whole", config=config)
    last_step = epochs * steps_an_epoch(split) + steps
    with pytest.raises(KeyboardInterrupt):
        fit(halting(new_model(), last_step, KeyboardInterrupt()), split, out=tmp_path / "run", config=config)
    assert not (tmp_path / "run" / "metrics.json").exists()
    torch.rand(3)  # the process that goes on has drawn other random numbers
    resumed = fit(new_model(), split, out=tmp_path / "run", config=config, resume=True)
    assert resumed.metrics == whole.metrics
    assert weights_of(resumed.model) == weights_of(whole.model)
    saved, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(saved[name], expected[name]) for name in expected)


def test_a_run_that_died_before_its_metrics_were_written_is_only_measured(
    split: Split, new_model: Make, tmp_path: Path
) -> None:
    whole = fit(new_model(), split, out=tmp_path, config=QUICK)
    (tmp_path / "metrics.json").unlink()
    last = (tmp_path / "last.ckpt").read_bytes()
    assert fit(new_model(), split, out=tmp_path, config=QUICK, resume=True).metrics == whole.metrics
    assert (tmp_path / "last.ckpt").read_bytes() == last


def test_the_checkpoint_opens_without_pickle_and_holds_the_random_states(
    split: Split, new_model: Make, tmp_path: Path
) -> None:
    fit(new_model(), split, out=tmp_path, config=QUICK)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(saved["random"][0]) == {"torch", "cuda", "numpy", "python"}


def test_a_finished_run_is_left_alone(split: Split, new_model: Make, tmp_path: Path) -> None:
    first = fit(new_model(), split, out=tmp_path, config=QUICK)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = fit(new_model(), split, out=tmp_path, config=QUICK, resume=True)
    assert again.already_done
    assert again.metrics == first.metrics
    assert weights_of(again.model) == weights_of(first.model)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times


def test_other_settings_cannot_resume(split: Split, new_model: Make, tmp_path: Path) -> None:
    fit(new_model(), split, out=tmp_path, config=QUICK)
    with pytest.raises(ValueError, match=r"fit.learning_rate was 0.01 and is 0.5; seed was 0 and is 3"):
        fit(new_model(), split, out=tmp_path, config=FitConfig(3, 32, 0.5), seed=3, resume=True)
    moved = FitConfig(max_epochs=3, batch_size=32, learning_rate=0.01, device="cpu", eval_batch_size=7)
    assert fit(new_model(), split, out=tmp_path, config=moved, resume=True).already_done


def test_a_folder_in_use_is_refused_before_any_work(split: Split, new_model: Make, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="exists and is not empty"):
        fit(new_model(), split, out=tmp_path, config=QUICK)
    with pytest.raises(ValueError, match=r"no config\.json, so there is nothing to resume"):
        fit(new_model(), split, out=tmp_path, config=QUICK, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="resume needs out"):
        fit(new_model(), split, resume=True)


def test_a_loss_that_is_no_number_stops_with_the_place_and_the_cure(
    split: Split, new_model: Make, tmp_path: Path
) -> None:
    with pytest.raises(FloatingPointError, match=r"became nan by step \d+ of epoch 2; try a lower learning_rate"):
        fit(halting(new_model(), steps_an_epoch(split) + 1, None), split, out=tmp_path, config=QUICK)
    assert not any(tensor.isnan().any() for tensor in load_file(tmp_path / "model.safetensors").values())


def test_the_histories_for_parity_are_of_all_lengths(split: Split) -> None:
    lengths = split.histories(split.test).lengths
    sample = np.diff(parity_histories(split, size=9)["offsets"])
    assert len(sample) == 9
    assert (sample.min(), sample.max()) == (lengths.min(), lengths.max())
    assert len(parity_histories(split)["users"]) == len(split.test)


def test_a_model_and_a_split_that_do_not_fit_are_refused(split: Split, new_model: Make) -> None:
    with pytest.raises(ValueError, match="built for num_items 9, the data have"):
        fit(SASRec(9, embedding_dim=4), split)
    with pytest.raises(TypeError, match="Linear lacks the attributes"):
        fit(nn.Linear(1, 1), split)
    unset = new_model()
    unset.config = None  # type: ignore[assignment]  # wrong on purpose
    with pytest.raises(TypeError, match=r"SASRec\.config must be a dataclass instance"):
        fit(unset, split)
    with pytest.raises(ValueError, match=r"seed \(-1\)"):
        fit(new_model(), split, seed=-1)
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="no test case"):
        fit(new_model(), Split(split.data, split.train_ends, split.valid, Cases(none, none), "leave_one_out"))
    with pytest.raises(ValueError, match="no validation case"):
        fit(new_model(), Split(split.data, split.train_ends, Cases(none, none), split.test, "leave_one_out"))
    with pytest.raises(ValueError, match="no user has two events"):
        fit(new_model(), Split(split.data, np.minimum(split.train_ends, 1), split.valid, split.test, "leave_one_out"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 0}, r"max_epochs \(0\) must be at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate \(0.0\) must be above 0"),
        ({"schedule": "linear"}, r"schedule \('linear'\) must be 'constant' or 'cosine'"),
        ({"warmup_epochs": -1.0}, r"warmup_epochs \(-1.0\) must not be negative"),
        ({"warmup_epochs": 2.0, "max_epochs": 2}, r"warmup_epochs \(2.0\) must be below max_epochs \(2\)"),
        ({"gradient_clip": -1.0}, r"gradient_clip \(-1.0\) must not be negative"),
        ({"precision": "64"}, r"precision \('64'\) must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitConfig(**settings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FitConfig(device="gpu"), "device .'gpu'. must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (FitConfig(device="cuda:99"), "asked for device 'cuda:99' but torch finds"),
        (FitConfig(device="cpu", precision="16-mixed"), "precision '16-mixed' needs a GPU"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(
    split: Split, new_model: Make, config: FitConfig, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(new_model(), split, config=config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_run_is_named(split: Split, tmp_path: Path) -> None:
    fit(ItemKNN(len(split.data.items)), split, out=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit"):
        load_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format_version": 2}))
    with pytest.raises(ValueError, match="readable here is 'genrec-run', version 1"):
        load_run(tmp_path)
    for damage in ({"config": {}}, {"config": None}, {"config": {"num_itms": 3}}, {"model": None}):
        (tmp_path / "config.json").write_text(json.dumps(config | damage))
        with pytest.raises(ValueError, match="does not describe a model that can be built"):
            load_run(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is no run folder"):
        load_run(tmp_path / "nowhere")
