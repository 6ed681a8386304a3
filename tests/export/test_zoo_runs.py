"""Runs of the zoo's models that read more than items, or search: from training to the served bundle, as the commands do it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from genrec.data import leave_one_out, make_shop
from genrec.training import FitConfig, fit
from genrec_export.cli import main
from genrec_models import HSTU, SASRec, TorchRecommender, load_run
from genrec_models.tiger import TIGER
from genrec_runtime import Recommender
from grid import BATCHES
from tests.models.slow_tiger import SlowTIGER

ITEMS, LENGTH, K, BEAM = 40, 5, 6, 8
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # the product's own promise


def trained(folder: Path, kind: Callable[..., Any], **settings: Any) -> Path:
    """A run of one epoch, on a shop whose events have times."""
    data = dataclasses.replace(make_shop(users=50, items=ITEMS).data, source="shop")
    split = leave_one_out(data)
    torch.manual_seed(1)
    fit(
        kind(len(split.data.items), max_seq_length=LENGTH, **settings),
        split,
        out=folder,
        config=FitConfig(max_epochs=1, device="cpu"),
    )
    return folder


def export(run: Path, store: Path, *options: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in (run, store, "--k-max", K, *options)])


@pytest.fixture(scope="module")
def hstu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one unit that reads times."""
    sizes = {"embedding_dim": 8, "num_heads": 2, "head_dim": 3, "num_layers": 1}
    return trained(tmp_path_factory.mktemp("hstu") / "run", HSTU, **sizes)


@pytest.fixture(scope="module")
def tiger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one layer and three codes an item."""
    sizes = {"embedding_dim": 8, "num_heads": 2, "head_dim": 3, "num_layers": 1, "ff_dim": 10}
    codes = {"levels": 3, "codebook_size": 7, "num_users": 5, "beam": BEAM}
    return trained(tmp_path_factory.mktemp("tiger") / "run", TIGER, **sizes, **codes)


def asked(run: Path) -> tuple[list[list[Any]], dict[str, Any]]:
    """The run's own histories, those of every third from its newest event alone, and their times and users."""
    items = load_run(run).catalogue.items
    with np.load(run / "histories.npz") as file:
        bounds = file["offsets"]
        rows = [slice(bounds[i + 1] - 1 if i % 3 == 0 else bounds[i], bounds[i + 1]) for i in range(len(bounds) - 1)]
        histories = [items.raw(file["values"][row]) for row in rows]
        return histories, {"timestamps": [file["times"][row].tolist() for row in rows], "users": file["users"].tolist()}


def assert_same(run: Path, store: Path, told: dict[str, Any], histories: list[list[Any]], **options: Any) -> None:
    """What is served is what the torch path answers, in batches of every size."""
    loaded = load_run(run)
    model: Any = loaded.model
    if "beam" in options:
        model.config = dataclasses.replace(model.config, beam=options.pop("beam"))
    expected = TorchRecommender(model, loaded.catalogue).recommend(histories, K, **told)
    served = Recommender.load(store / "current", device="cpu", threads=1)
    for batch in BATCHES:
        for begin in range(0, len(histories), batch):
            part = slice(begin, begin + batch)
            answer = served.recommend(histories[part], k=K, **{name: rows[part] for name, rows in told.items()})
            for row, (items, scores) in enumerate(expected[part]):
                assert answer.items[row] == items
                np.testing.assert_allclose(answer.scores[row], scores, **CLOSE)


@pytest.mark.usefixtures("small_grid")
def test_hstu_is_served_with_the_times_it_was_trained_on(hstu: Path, tmp_path: Path) -> None:
    done = export(hstu, tmp_path / "store")
    assert done.exit_code == 0, done.output
    histories, told = asked(hstu)
    times = {"timestamps": told["timestamps"]}
    assert_same(hstu, tmp_path / "store", times, histories)
    later = [row[-1] + 1000 * i for i, row in enumerate(told["timestamps"])]
    assert_same(hstu, tmp_path / "store", times | {"request_time": later}, histories)
    manifest = json.loads((tmp_path / "store" / "current" / "manifest.json").read_text())
    assert manifest["tolerance"] == {"atol": 1e-5, "rtol": 1e-5}  # the one of all models


@pytest.mark.usefixtures("small_grid")
def test_one_layer_of_tiger_is_one_graph_that_answers_as_the_slow_reference(tiger: Path, tmp_path: Path) -> None:
    """Prefixes kept: fewer than there are, so that what is left behind must be the same, too."""
    done = export(tiger, tmp_path / "store", "--beam", BEAM + 1)
    assert done.exit_code == 0, done.output
    assert f"searching with {BEAM + 1} prefixes ..." in done.stderr
    bundle = tmp_path / "store" / "current"
    histories, told = asked(tiger)
    assert_same(tiger, tmp_path / "store", {"users": told["users"]}, histories, beam=BEAM + 1)

    run = load_run(tiger)
    model: Any = run.model
    slow = SlowTIGER({name: tensor.numpy() for name, tensor in model.state_dict().items()}, model.config)
    served = Recommender.load(bundle, device="cpu", threads=1).recommend(histories, k=K)
    for row, history in enumerate(histories):
        numbers = run.catalogue.items.index(history)
        best = slow.recommend(numbers[-LENGTH:].tolist(), K, BEAM + 1, exclude=numbers.tolist())
        assert served.items[row] == run.catalogue.items.raw([item for item, _ in best])
        np.testing.assert_allclose(served.scores[row], [score for _, score in best], **CLOSE)

    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["ops"]) == {""}
    assert not {"Loop", "If", "Scan", "SequenceAt", "SequenceConstruct", "ConcatFromSequence"} & set(
        manifest["ops"][""]
    )
    card = (bundle / "README.md").read_text()
    assert f"- beam: {BEAM + 1}\n- beam of the test: {BEAM}\n" in card


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hstu", ["--beam", 4], "beam (4) is for models that search; hstu scores every item"),
        ("tiger", ["--variant", "fp16"], "variants (fp16) of a model that searches are not offered"),
    ],
)
def test_what_a_model_has_no_use_for_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, options: list[Any], message: str
) -> None:
    done = export(request.getfixturevalue(name), tmp_path / "store", *options)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("name", "missing"), [("hstu", "times"), ("tiger", "users")])
def test_a_run_without_what_its_model_reads_says_so(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, missing: str
) -> None:
    old = Path(shutil.copytree(request.getfixturevalue(name), tmp_path / "run"))
    with np.load(old / "histories.npz") as file:
        kept = {key: values for key, values in file.items() if key != missing}
    np.savez(old / "histories.npz", **kept)
    done = export(old, tmp_path / "store")
    assert done.exit_code == 1
    assert f"histories.npz holds no {missing}, which {name} reads: the run was made by an older version" in done.stderr


@pytest.mark.usefixtures("small_grid")
def test_a_model_that_reads_items_alone_needs_neither_times_nor_users(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SASRec, embedding_dim=6, num_layers=1)
    with np.load(run / "histories.npz") as file:
        kept = {key: file[key] for key in ("values", "offsets")}
    np.savez(run / "histories.npz", **kept)
    assert export(run, tmp_path / "store").exit_code == 0
