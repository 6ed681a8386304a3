"""Recipes and settings: what they fill, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest

from genrec.training import DataOptions, FitConfig, check_settings, parse_setting, read_recipe
from genrec_models import RQVAE, SASRec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dropout=0.5", ("dropout", 0.5)),
        (" patience = 3", ("patience", 3)),
        ("loss=sampled_softmax", ("loss", "sampled_softmax")),
        ("device='cuda:1'", ("device", "cuda:1")),
        ("device=cuda:1", ("device", "cuda:1")),
        ("out=a=b", ("out", "a=b")),
    ],
)
def test_a_setting_is_a_name_and_a_value(text: str, expected: tuple[str, Any]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["dropout", "=3", ""])
def test_a_setting_without_a_name_or_a_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must have the form name=value"):
        parse_setting(text)


def test_settings_go_to_whoever_knows_them() -> None:
    taken = check_settings({"dropout": 0, "patience": 3, "precision": 32}, model=SASRec, fit=FitConfig)
    assert taken == {"model": {"dropout": 0.0}, "fit": {"patience": 3, "precision": "32"}}
    assert isinstance(taken["model"]["dropout"], float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropuot", 0.5, "unknown setting 'dropuot' of model and fit; did you mean dropout?"),
        ("num_items", 5, "unknown setting 'num_items'"),
        ("zzz", 5, "there are embedding_dim, num_heads"),
        ("dropout", "much", "dropout .'much'. must be a number"),
        ("num_layers", 1.5, "num_layers .1.5. must be a whole number"),
        ("num_layers", True, "num_layers .True. must be a whole number"),
        ("loss", "bce", "loss .'bce'. must be 'cross_entropy' or 'sampled_softmax'"),
        ("precision", 64, "precision .64. must be '32' or 'bf16-mixed' or '16-mixed'"),
    ],
)
def test_a_setting_that_nobody_knows_or_of_another_type_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_settings({name: value}, model=SASRec, fit=FitConfig)


def test_a_setting_may_be_a_list() -> None:
    settings = dict([parse_setting("hidden_dims=[5, 3]")])
    assert check_settings(settings, model=RQVAE) == {"model": {"hidden_dims": (5, 3)}}
    with pytest.raises(ValueError, match=r"an entry of hidden_dims \('wide'\) must be a whole number"):
        check_settings({"hidden_dims": [5, "wide"]}, model=RQVAE)


def test_a_recipe_is_three_tables(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("[data]\nk_core = 5\n[fit]\npatience = 2\n")
    recipe = read_recipe(file)
    assert (recipe.data, recipe.model, recipe.fit) == ({"k_core": 5}, {}, {"patience": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nlr = 1", "'optimizer' is none of the tables"),
        ("fit = 3", "'fit' is none"),
        ("[fit", "is no TOML"),
    ],
)
def test_anything_else_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(file)


def test_data_options_load_the_split_they_describe() -> None:
    assert DataOptions("quickstart").load().name == "leave_one_out"
    moments = {"valid_from": "2023-10-01", "test_from": "2023-11-01"}
    assert DataOptions("quickstart", split="temporal", **moments).load().name == "temporal"  # type: ignore[arg-type]  # moments are strings here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "random"}, "split .'random'. must be 'leave-one-out' or 'temporal'"),
        ({"split": "temporal"}, "needs valid_from and test_from"),
        ({"valid_from": 3}, "belong to split 'temporal', not 'leave-one-out'"),
    ],
)
def test_data_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions("quickstart", **options)
