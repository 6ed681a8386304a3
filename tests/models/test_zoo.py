"""The zoo's names: what they stand for, that listing them is light, and that shipped recipes fit their models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genrec_models
from genrec.training import DataOptions, FitConfig, check_settings, read_recipe
from genrec_models import MODELS, SUMMARIES, build, model_class, recipe_names, recipe_path


def test_every_name_has_a_summary() -> None:
    assert list(SUMMARIES) == list(MODELS)


def test_every_name_leads_to_a_class_that_knows_its_name() -> None:
    assert {name: model_class(name).zoo_name for name in MODELS} == {name: name for name in MODELS}


def test_every_public_name_is_there() -> None:
    assert all(hasattr(genrec_models, name) for name in genrec_models.__all__)
    assert set(genrec_models.__all__) <= set(dir(genrec_models))


def test_an_unknown_attribute_is_no_model() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SASrec'"):
        genrec_models.SASrec  # noqa: B018  # the access is the test


def test_the_names_come_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from genrec_models import MODELS, recipe_names; recipe_names('sasrec')"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_a_model_without_torch_names_the_install_command() -> None:
    code = "import sys; sys.modules['torch'] = None; from genrec_models import SASRec"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "pip install 'genrec[train]'" in done.stderr


def test_a_misspelt_model_gets_the_closest_name() -> None:
    with pytest.raises(ValueError, match="no model 'sasrek'; did you mean 'sasrec'"):
        model_class("sasrek")
    with pytest.raises(ValueError, match="the zoo has popularity, item-knn"):
        model_class("xyz")
    with pytest.raises(ValueError, match=r"genrec_models\.sasrec has no class 'Sasrec'"):
        model_class("genrec_models.sasrec:Sasrec")


def test_a_class_of_ones_own_is_found_by_its_path() -> None:
    assert model_class("genrec_models.sasrec:SASRec") is genrec_models.SASRec


def test_a_model_is_built_from_its_seed_alone() -> None:
    first, second, other = (build(model_class("sasrec"), 5, {"embedding_dim": 4}, seed) for seed in (1, 1, 2))
    assert first.item_vectors().equal(second.item_vectors())
    assert not first.item_vectors().equal(other.item_vectors())


@pytest.mark.parametrize(("model", "name"), [(model, name) for model in MODELS for name in recipe_names(model)])
def test_a_shipped_recipe_fills_the_dataclasses_and_builds_the_model(model: str, name: str) -> None:
    recipe = read_recipe(recipe_path(name, model))
    taken = check_settings(recipe.model | recipe.fit, model=model_class(model), fit=FitConfig)
    assert taken["model"] == recipe.model
    assert FitConfig(**taken["fit"])
    with torch.device("meta"):
        assert model_class(model)(num_items=300, **taken["model"]).num_items == 300
    assert DataOptions(**{"source": "events.csv", **recipe.data})


def test_the_shipped_recipes_are_named_by_their_data() -> None:
    assert recipe_names("sasrec") == ["amazon-beauty", "movielens-1m", "movielens-small", "online-retail", "quickstart"]
    assert recipe_path("online-retail", "sasrec").name == "sasrec-online-retail.toml"
    everywhere = ["amazon-beauty", "movielens-1m", "movielens-small", "online-retail"]
    assert all(set(everywhere) <= set(recipe_names(model)) for model in MODELS)


def test_models_that_count_share_the_recipes_that_only_say_how_to_read_the_data() -> None:
    path = recipe_path("online-retail", "markov")
    assert path == recipe_path("online-retail", "my_models:Own")
    assert (read_recipe(path).model, read_recipe(path).fit) == ({}, {})
    assert read_recipe(path).data == read_recipe(recipe_path("online-retail", "sasrec")).data


def test_what_was_not_run_says_so() -> None:
    for model in MODELS:
        for name in recipe_names(model):
            text = recipe_path(name, model).read_text(encoding="utf-8")
            not_run = name == "movielens-1m" or (model, name) == ("tiger", "online-retail")
            assert ("Not run." in text.splitlines()[0]) == not_run, (model, name)


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.touch()
    assert recipe_path(str(own), "sasrec") == own
    with pytest.raises(ValueError, match="no recipe 'beauty': sasrec has amazon-beauty, movielens-1m"):
        recipe_path("beauty", "sasrec")
