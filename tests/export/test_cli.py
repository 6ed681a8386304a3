"""``genrec-export``: a trained run and a saved module from folder to store, and every way to misuse it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import genrec_export
from genrec.data import leave_one_out, make_shop
from genrec.modules import TransformerEncoder, save
from genrec.training import FitConfig, fit
from genrec_export.cli import main
from genrec_models import Popularity, SASRec, TorchRecommender, load_run
from genrec_runtime import Module, Recommender

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SASRec trained for an epoch."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    data = dataclasses.replace(make_shop(users=60, items=40).data, source=str(folder.parent / "events.csv"))
    split = leave_one_out(data)
    model = SASRec(len(split.data.items), embedding_dim=8, num_layers=1, max_seq_length=6)
    fit(model, split, out=folder, config=FitConfig(max_epochs=1, device="cpu"))
    return folder


def command(*arguments: object, code: str = "", **environment: str) -> Done:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom genrec_export.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The store that the command made of the run without the trainer's packages, and what it said."""
    store = tmp_path_factory.mktemp("exported") / "store"
    hidden = "import sys; sys.modules.update(dict.fromkeys(['polars', 'lightning', 'tensorboard', 'pooch', 'seaborn']))"
    return store, command(run, store, "--k-max", "15", code=hidden, PYTHONHASHSEED="7")


def test_a_trained_run_is_exported_and_answers_as_the_run_does(run: Path, exported: tuple[Path, Done]) -> None:
    store, done = exported
    assert done.returncode == 0, done.stderr
    served = Recommender.load(store / "current", device="cpu")
    trained = load_run(run)
    items = trained.catalogue.items
    histories = [items.raw([3, 9, 4, 1, 8, 20, 6]), items.raw([2])]
    expected = TorchRecommender(trained.model, trained.catalogue).recommend(histories, 15)
    assert served.recommend(histories, k=15).items == [ids for ids, _ in expected]
    manifest = served.manifest
    assert manifest.model["name"] == "sasrec"
    assert manifest.model["config"]["embedding_dim"] == 8
    assert manifest.provenance["seed"] == 0
    assert manifest.semantics is not None
    assert (manifest.semantics.k_max, manifest.semantics.window) == (15, "bucketed")
    assert served.catalogue.titles == trained.catalogue.titles


def test_results_go_to_standard_output_and_stages_to_standard_error(exported: tuple[Path, Done]) -> None:
    store, done = exported
    version = (store / "current").resolve().name
    assert "FAILED" not in done.stdout
    assert f"{store / 'current'} is {version}" in done.stdout
    assert f"wrote {store / version}" in done.stdout
    stages = [line for line in done.stderr.splitlines() if line.endswith(" ...")]
    assert stages[-2:] == ["serving in a process without torch ...", "timing the bundle and torch ..."]


def test_options_make_another_version_and_another_process_the_same(run: Path, exported: tuple[Path, Done]) -> None:
    store, _ = exported
    first = (store / "current").resolve().name
    done = invoke(run, store, "--k-max", "15", "--window", "fixed", "--include-seen", "--promote")
    assert done.exit_code == 0, done.output
    served = Recommender.load(store / "current", device="cpu")
    assert served.manifest.semantics is not None
    assert served.manifest.semantics.window == "fixed"
    assert served.manifest.defaults.exclude_seen is False
    done = invoke(run, store, "--k-max", "15")
    assert done.exit_code == 0, done.output
    assert f"the store has this version already: {store / first} " in done.output
    assert f"is {served.manifest.version}; --promote changes it" in done.output
    assert {path.name for path in store.iterdir()} == {"current", "previous", first, served.manifest.version}


def test_a_saved_module_is_exported(tmp_path: Path) -> None:
    save(TransformerEncoder(9, 4, 2, 1, 8, max_seq_length=3), tmp_path / "encoder")
    done = invoke(tmp_path / "encoder", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert Module.load(tmp_path / "store" / "current", device="cpu").run(input_ids=[[1, 2]], attention_mask=[[1, 0]])[
        "encoded"
    ].shape == (1, 2, 4)


def failed(*arguments: object) -> str:
    """The one line that a failure says, beside stages."""
    done = invoke(*arguments)
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, lines
    return lines[0]


def test_what_is_no_model_is_said_in_one_line(run: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert failed(tmp_path / "none", store) == (
        f"error: {tmp_path / 'none'} holds no config.json: it is neither a run nor a saved module"
    )
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "histories.npz").unlink()
    assert "histories.npz is missing or damaged" in failed(copy, store)
    (copy / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors does not fit the model" in failed(copy, store)
    (copy / "config.json").write_text("{")
    assert failed(copy, store).startswith("error: ")
    (copy / "config.json").write_text("[]")
    assert failed(copy, store).startswith("error: ")
    save(TransformerEncoder(9, 4, 2, 1, 8), tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors does not fit the module of config.json" in failed(tmp_path / "encoder", store)
    store.write_text("in the way")
    assert failed(run, store) == f"error: cannot write to the store {store}: Not a directory"


def test_a_counted_model_is_said_to_be_served_from_torch_only(tmp_path: Path) -> None:
    split = leave_one_out(make_shop(users=30, items=40).data)
    fit(Popularity(len(split.data.items)), split, out=tmp_path / "run", config=FitConfig(device="cpu"))
    assert "popularity is a baseline that is counted, not a network" in failed(tmp_path / "run", tmp_path / "store")


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["run", "store", "--k-max", "0"], ["run", "store", "--window", "any"], ["--none"]]
)
def test_misuse_is_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_help_needs_neither_torch_nor_onnx() -> None:
    block = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxscript', 'safetensors', 'onnxruntime']))"
    )
    done = command("--help", code=block)
    assert done.returncode == 0, done.stderr
    assert "--promote" in done.stdout


def test_missing_packages_are_named_with_the_command_that_installs_them() -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxruntime']))"
    done = command("run", "store", code=block)
    assert (done.returncode, done.stdout) == (1, "")
    message = "exporting needs onnx, onnxruntime; install with: pip install 'genrec[cpu,export]'"
    assert done.stderr == f"error: {message}\n"


def test_the_names_of_the_package_are_all_there() -> None:
    assert all(hasattr(genrec_export, name) for name in genrec_export.__all__)
    assert set(genrec_export.__all__) <= set(dir(genrec_export))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        genrec_export.nonsense  # noqa: B018  # the access is the test


def test_the_card_tells_the_protocol_and_the_test_figures_but_no_folder(run: Path, exported: tuple[Path, Done]) -> None:
    card = (exported[0] / "current" / "README.md").read_text()
    for title in ("## Settings", "## Data", "## Protocol", "## Accuracy", "## Parity with torch"):
        assert title in card
    assert "- ties: higher score first, then lower item index" in card
    assert "- source: events.csv" in card
    data = json.loads((run / "config.json").read_text())["data"]
    assert f"- hash: {data['hash']}" in card
    assert data["source"].startswith(str(run.parent))
    assert str(run.parent) not in card + (exported[0] / "current" / "manifest.json").read_text()


def test_a_variant_a_picture_and_a_repository_come_with_the_bundle(run: Path, tmp_path: Path) -> None:
    store, picture, repository = tmp_path / "store", tmp_path / "parity.png", tmp_path / "triton"
    done = invoke(run, store, "--variant", "int8", "--opset", "23", "--plot", picture, "--triton", repository)
    assert done.exit_code == 0, done.output
    assert "comparing int8 with fp32 ..." in done.stderr
    assert f"wrote {picture}" in done.stderr
    assert f"wrote {repository}, a model repository for Triton" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    graphs = ("encode", "item_vectors", "recommend", "score", "similar")
    assert sorted(path.name for path in repository.iterdir()) == [f"sasrec_{graph}" for graph in graphs]
    served = Recommender.load(store / "current", device="cpu", variant="int8")
    assert served.manifest.opset == 23
    assert served.recommend([[]]).status == ["cold_start"]


def test_a_refused_export_is_drawn(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec_export.variants.overlaps", lambda *_: np.zeros(5))
    done = invoke(run, tmp_path / "store", "--variant", "int8", "--plot", tmp_path / "parity.png")
    assert done.exit_code == 1
    assert "error: parity failed at variant level: recommend.int8, overlap@10 0.00000" in done.stderr
    assert (tmp_path / "parity.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parity.png", "store.failed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "no/such/folder/parity.png"], "there is no folder no/such/folder"),
        (["--triton", "."], ". exists and is no empty folder; name a new one"),
    ],
)
def test_places_are_tried_before_the_long_work(
    run: Path, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec_export.draft.trace", lambda *_: pytest.fail("it was traced"))
    done = invoke(run, tmp_path / "store", *arguments)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_module_has_no_variants(tmp_path: Path) -> None:
    save(TransformerEncoder(9, 8, 2, 1, 8, max_seq_length=4), tmp_path / "encoder")
    done = invoke(tmp_path / "encoder", tmp_path / "store", "--variant", "fp16")
    assert done.exit_code == 1
    assert "variants (fp16) are forms of recommenders" in done.stderr
