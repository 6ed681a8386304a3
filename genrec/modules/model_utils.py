"""Counting, freezing and initialising a model's weights."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn

_RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "xavier": nn.init.xavier_uniform_,
    "kaiming": nn.init.kaiming_uniform_,
    "normal": partial(nn.init.normal_, mean=0.0, std=0.02),
}
_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


class ModelUtils:
    """Tools for any ``nn.Module``; all are static."""

    @staticmethod
    def count_parameters(model: nn.Module) -> int:
        """How many numbers training can change: parameters that are not frozen, a shared one once.

        >>> ModelUtils.count_parameters(nn.Linear(3, 2))  # 3 * 2 weights + 2 biases
        8
        """
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    @staticmethod
    def get_model_size(model: nn.Module) -> str:
        """The bytes of all parameters and buffers, frozen or not; "MB" stands for 2**20 bytes, to two places.

        >>> ModelUtils.get_model_size(nn.Linear(1024, 512, bias=False))  # 1024 * 512 * 4 bytes
        '2.00 MB'
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
        return f"{size / 2**20:.2f} MB"

    @staticmethod
    def freeze_layers(model: nn.Module, layer_names: Sequence[str]) -> None:
        """Keeps the named parts from being trained.

        Args:
            model: changed in place.
            layer_names: each names whole dotted parts of a path in the model, anywhere in it: "layers.1" is a part of
                "transformer.layers.1.linear1.weight", not of "transformer.layers.10.linear1.weight".

        Raises:
            TypeError: if ``layer_names`` is one string.
            ValueError: if a name is no part of the model; nothing is changed then.

        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        >>> ModelUtils.freeze_layers(model, ["0"])
        >>> ModelUtils.count_parameters(model)  # 2 * 1 weights + 1 bias
        3
        """
        _set_trainable(model, layer_names, trainable=False)

    @staticmethod
    def unfreeze_layers(model: nn.Module, layer_names: Sequence[str]) -> None:
        """Lets the named parts be trained again.

        Args:
            model: changed in place.
            layer_names: as in ``freeze_layers``.

        Raises:
            TypeError: if ``layer_names`` is one string.
            ValueError: if a name is no part of the model; nothing is changed then.
        """
        _set_trainable(model, layer_names, trainable=True)

    @staticmethod
    def initialize_weights(model: nn.Module, init_type: str = "xavier") -> None:
        """Draws a model's weights anew.

        Weights of two axes and more (of linear layers, embeddings, attention, recurrences) follow the rule; biases
        become 0, gains of norms 1, and an embedding's padding row 0. Other parameters are left alone.

        Args:
            model: changed in place.
            init_type: "xavier" (uniform, Glorot and Bengio 2010), "kaiming" (uniform, He et al. 2015) or "normal"
                (mean 0, deviation 0.02).

        Raises:
            ValueError: if ``init_type`` is unknown; nothing is changed then.
        """
        if init_type not in _RULES:
            raise ValueError(f"init_type ({init_type!r}) must be one of {sorted(_RULES)}")
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name:
                    nn.init.zeros_(parameter)
                elif isinstance(module, _NORMS):
                    nn.init.ones_(parameter)
                elif "weight" in name and parameter.dim() > 1:
                    _RULES[init_type](parameter)
        for module in model.modules():  # last, as a table may be shared with a linear layer
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])


def _set_trainable(model: nn.Module, layer_names: Sequence[str], *, trainable: bool) -> None:
    if isinstance(layer_names, str):
        raise TypeError(f"layer_names must be a list of names, got the string {layer_names!r}")
    paths = [name for name, _ in (*model.named_modules(), *model.named_parameters(), *model.named_buffers())]
    for name in layer_names:
        if not any(_is_part(name, path) for path in paths):
            close = difflib.get_close_matches(name, sorted({part for path in paths for part in _parts(path)}))
            raise ValueError(f"layer_names: {name!r} is no part of the model; close names are {close}")
    for path, parameter in model.named_parameters():
        if any(_is_part(name, path) for name in layer_names):
            parameter.requires_grad_(trainable)


def _is_part(name: str, path: str) -> bool:
    """Whether ``name`` is a run of whole dotted parts of ``path``."""
    return name != "" and f".{name}." in f".{path}."


def _parts(path: str) -> Iterator[str]:
    """A path and its single parts, as they may be meant by a name."""
    yield path
    yield from path.split(".")
