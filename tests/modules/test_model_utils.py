"""Counting, freezing and initialising, on the encoder and on modules of others."""

import pytest
import torch
from torch import nn

from genrec.modules import LearnedPositions, ModelUtils, TransformerEncoder


def encoder(num_layers: int = 1, padding_idx: int | None = None) -> TransformerEncoder:
    return TransformerEncoder(11, 6, 2, num_layers, 5, max_seq_length=4, padding_idx=padding_idx)


def frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_mend_25_initialising_follows_the_rule_and_spares_norms_and_padding() -> None:
    model = encoder(num_layers=2, padding_idx=3)
    for init_type in ("xavier", "kaiming", "normal"):
        for parameter in model.parameters():
            nn.init.constant_(parameter, 7.0)
        ModelUtils.initialize_weights(model, init_type=init_type)
        for name, parameter in model.named_parameters():
            if "bias" in name:
                assert parameter.eq(0).all(), name
            elif "norm" in name:
                assert parameter.eq(1).all(), name
            else:
                assert parameter.ne(7).all(), name
                assert parameter.std() > 0.01, name
        assert model.embedding.weight[3].eq(0).all()
        assert model.embedding.weight[2].ne(0).any()


def test_mend_25_an_unknown_rule_changes_nothing() -> None:
    model = encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"init_type \('zeros'\) must be one of \['kaiming', 'normal', 'xavier'\]"):
        ModelUtils.initialize_weights(model, init_type="zeros")
    torch.testing.assert_close(dict(model.state_dict()), before, atol=0, rtol=0)


def test_initial_spreads_are_those_of_their_rules() -> None:
    linear = nn.Linear(300, 200)
    for init_type, spread in (("xavier", (2 / 500) ** 0.5), ("kaiming", (2 / 300) ** 0.5), ("normal", 0.02)):
        ModelUtils.initialize_weights(linear, init_type)
        assert linear.weight.std().item() == pytest.approx(spread, rel=0.02)  # 60 000 draws


def test_padding_stays_zero_where_the_table_is_shared_with_a_head() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(5, 4, padding_idx=0), "head": nn.Linear(4, 5)})
    model["head"].weight = model["table"].weight
    ModelUtils.initialize_weights(model)
    assert model["head"].weight[0].eq(0).all()
    assert model["head"].weight[1:].ne(0).all()


def test_norms_and_recurrences_of_others_are_initialised_too() -> None:
    model = nn.ModuleList([nn.BatchNorm1d(3), nn.GroupNorm(1, 3), nn.RMSNorm(3), nn.GRU(3, 4), nn.PReLU()])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    ModelUtils.initialize_weights(model)
    for norm in (model[0], model[1], model[2]):
        assert norm.weight.eq(1).all()
    assert model[0].bias.eq(0).all()
    assert model[3].weight_hh_l0.ne(7).all()
    assert model[3].bias_ih_l0.eq(0).all()
    assert model[4].weight.eq(7).all()  # neither a matrix nor a norm


def test_mend_26_a_name_matches_whole_dotted_parts() -> None:
    model = encoder(num_layers=12)
    for name in ("layers.1", "transformer.layers.1"):
        ModelUtils.freeze_layers(model, [name])
        assert {part.split(".")[2] for part in frozen(model)} == {"1"}
        assert len(frozen(model)) == 12  # projections 4, feed-forward 4, norms 4
        ModelUtils.unfreeze_layers(model, [name])
        assert frozen(model) == set()
    ModelUtils.freeze_layers(model, ["embedding", "layers.0.norm1"])
    assert frozen(model) == {
        "embedding.weight",
        "transformer.layers.0.norm1.weight",
        "transformer.layers.0.norm1.bias",
    }


@pytest.mark.parametrize("name", ["embeding", "", "layer", "transformer.layers.1.", "1.linear"])
def test_mend_26_a_name_that_matches_nothing_is_refused(name: str) -> None:
    model = encoder(num_layers=2)
    for change in (ModelUtils.freeze_layers, ModelUtils.unfreeze_layers):
        with pytest.raises(ValueError, match=f"layer_names: '{name}' is no part of the model"):
            change(model, ["transformer", name])
    assert frozen(model) == set()
    with pytest.raises(ValueError, match=r"close names are \['embedding'"):
        ModelUtils.freeze_layers(model, ["embeding"])
    with pytest.raises(TypeError, match="must be a list of names, got the string 'embedding'"):
        ModelUtils.freeze_layers(model, "embedding")


def test_mend_26_a_part_with_buffers_only_is_allowed() -> None:
    model = encoder()
    ModelUtils.freeze_layers(model, ["embedding", "pos_encoding"])
    assert frozen(model) == {"embedding.weight"}
    ModelUtils.freeze_layers(nn.BatchNorm1d(3), ["running_mean"])


def test_mend_27_parameters_are_trainable_ones_and_a_megabyte_has_two_to_the_twenty_bytes() -> None:
    model = nn.Sequential(nn.Linear(1024, 256), nn.BatchNorm1d(256), LearnedPositions(4, 8))
    numbers = (1024 * 256 + 256) + 2 * 256 + 4 * 8
    assert ModelUtils.count_parameters(model) == numbers
    ModelUtils.freeze_layers(model, ["0"])
    assert ModelUtils.count_parameters(model) == 2 * 256 + 4 * 8
    size = 4 * numbers + 2 * 4 * 256 + 8  # frozen ones, running mean and variance, a counter
    assert ModelUtils.get_model_size(model) == f"{size / 1024 / 1024:.2f} MB" == "1.01 MB"
    assert ModelUtils.get_model_size(model.half()) == "0.50 MB"
