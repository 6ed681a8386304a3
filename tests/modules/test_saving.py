"""A module goes to a folder and comes back the same, and what cannot come back is not written."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from genrec.modules import LearnedPositions, MultiHeadAttention, PositionalEncoding, TransformerEncoder, load, save

MODULES = [
    TransformerEncoder(11, 6, 2, 1, 5, 0.2, 7, causal=True, padding_idx=0, activation="gelu", norm_first=True),
    TransformerEncoder(11, 6, 2, 2, 5, final_norm=True, max_seq_length=7, pos_encoding=LearnedPositions(6, 9)),
    MultiHeadAttention(6, 2, 0.3, need_weights=False),
    LearnedPositions(6, 9),
    PositionalEncoding(6, 9),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_modules_come_back_the_same(tmp_path: Path, module: nn.Module) -> None:
    save(module, tmp_path / "new" / "folder")
    opened = load(tmp_path / "new" / "folder")
    assert type(opened) is type(module)
    assert repr(opened) == repr(module.eval())
    assert not opened.training
    torch.testing.assert_close(dict(opened.state_dict()), dict(module.state_dict()), atol=0, rtol=0)
    assert opened.arguments == module.arguments
    if isinstance(module, TransformerEncoder):
        ids = torch.tensor([[0, 4, 5]])
        assert torch.equal(module(ids, ids != 0), opened(ids, ids != 0))


def test_the_config_names_the_class_the_arguments_and_the_signature(tmp_path: Path) -> None:
    save(MultiHeadAttention(6, 2), tmp_path, signature={"inputs": ["query"]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "format": "genrec-module",
        "format_version": 1,
        "class": "genrec.modules.attention:MultiHeadAttention",
        "arguments": {"embedding_dim": 6, "num_heads": 2, "dropout": 0.1, "need_weights": True},
        "signature": {"inputs": ["query"]},
    }


def test_modules_of_others_come_back_with_the_arguments_given(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"torch.nn.modules.linear:Linear does not tell .* pass arguments=\{...\}"):
        save(module, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    save(module, tmp_path, arguments={"in_features": 3, "out_features": 2})
    assert torch.equal(load(tmp_path).weight, module.weight)  # type: ignore[arg-type]  # any module comes back


def test_foreign_positions_leave_the_encoder_without_arguments(tmp_path: Path) -> None:
    encoder = TransformerEncoder(11, 6, 2, 1, 5, pos_encoding=nn.Identity())
    with pytest.raises(TypeError, match="TransformerEncoder does not tell its constructor's arguments"):
        save(encoder, tmp_path)


class Tied(nn.Module):
    """One table at both ends."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.arguments = {"items": items}
        self.table, self.head = nn.Embedding(items, 3), nn.Linear(3, items, bias=False)
        self.head.weight = self.table.weight


def test_a_shared_table_comes_back_shared(tmp_path: Path) -> None:
    module = Tied(5)
    save(module, tmp_path)
    opened = load(tmp_path)
    assert isinstance(opened, Tied)
    assert opened.head.weight is opened.table.weight
    assert torch.equal(opened.table.weight, module.table.weight)


def test_what_cannot_be_opened_again_is_not_written(tmp_path: Path) -> None:
    class Local(nn.Module):
        arguments: ClassVar[dict[str, Any]] = {}

        def forward(self, x: Tensor) -> Tensor:
            return x

    script = type("Script", (nn.Module,), {"__module__": "__main__", "arguments": {}})
    encoder = TransformerEncoder(11, 6, 2, 1, 5, pos_encoding=Local())
    for module, message in (
        (Local(), "Local cannot be imported by its name"),
        (script(), "__main__:Script lives in a script"),
        (encoder, "Local cannot be imported by its name"),
    ):
        with pytest.raises(ValueError, match=message):
            save(module, tmp_path / "out")
    for arguments in ({"in_features": {3}}, {"in_features": float("nan")}):
        with pytest.raises(ValueError, match="arguments and signature must be JSON values"):
            save(nn.Linear(3, 2), tmp_path / "out", arguments=arguments)
    assert not (tmp_path / "out").exists()


class Warm(MultiHeadAttention):
    """Takes an argument more than the class whose ``arguments`` it inherits."""

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float = 0.1, temperature: float = 1.0) -> None:
        super().__init__(embedding_dim, num_heads, dropout)
        self.temperature = temperature


def test_a_setting_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    module = Warm(6, 2, temperature=7.0)
    with pytest.raises(TypeError, match="Warm takes temperature, which its arguments do not tell"):
        save(module, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    save(module, tmp_path / "out", arguments={"embedding_dim": 6, "num_heads": 2, "temperature": 7.0})
    assert load(tmp_path / "out").temperature == 7.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "genrec-run"}, "does not describe a genrec-module"),
        ({"format_version": 2}, "has format_version 2, this genrec reads 1"),
        ({"arguments": None}, "a module is described by its class and arguments"),
        ({"class": "genrec.modules.nowhere:Thing"}, "genrec.modules.nowhere:Thing cannot be imported"),
        ({"class": "genrec.modules.attention:Thing"}, "genrec.modules.attention:Thing cannot be imported"),
        ({"class": ":"}, "cannot be imported"),
        ({"class": "math:sqrt"}, "math:sqrt is no nn.Module"),
    ],
)
def test_a_changed_config_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save(MultiHeadAttention(6, 2), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path)
    save(MultiHeadAttention(6, 2), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load(tmp_path)
