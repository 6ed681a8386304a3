"""Building blocks: encoders, losses, ranking, metrics and tools, each name importable from here.

Metrics and plots need numpy only and are imported at once. The rest needs torch and is imported when first asked for,
so that metrics can be had on a machine without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from genrec.metrics import RecommendationMetrics
from genrec.visualization import AttentionVisualization

if TYPE_CHECKING:
    from genrec.modules.attention import MultiHeadAttention
    from genrec.modules.catalogue_losses import NextItemLoss, gbce, next_item_cross_entropy, sampled_softmax
    from genrec.modules.encoder import TransformerEncoder
    from genrec.modules.layers import EncoderLayer
    from genrec.modules.losses import ContrastiveLoss, SequenceLoss, VQVAELoss
    from genrec.modules.model_utils import ModelUtils
    from genrec.modules.positions import LearnedPositions, PositionalEncoding
    from genrec.modules.quantisation import ResidualQuantiser
    from genrec.modules.ranking import catalogue_scores, mask_scores, reads, target_ranks, top_k
    from genrec.modules.saving import load, save

__all__ = [
    "AttentionVisualization",
    "ContrastiveLoss",
    "EncoderLayer",
    "LearnedPositions",
    "ModelUtils",
    "MultiHeadAttention",
    "NextItemLoss",
    "PositionalEncoding",
    "RecommendationMetrics",
    "ResidualQuantiser",
    "SequenceLoss",
    "TransformerEncoder",
    "VQVAELoss",
    "catalogue_scores",
    "gbce",
    "load",
    "mask_scores",
    "next_item_cross_entropy",
    "reads",
    "sampled_softmax",
    "save",
    "target_ranks",
    "top_k",
]

_FILES = {
    "attention": ["MultiHeadAttention"],
    "catalogue_losses": ["NextItemLoss", "gbce", "next_item_cross_entropy", "sampled_softmax"],
    "encoder": ["TransformerEncoder"],
    "layers": ["EncoderLayer"],
    "losses": ["ContrastiveLoss", "SequenceLoss", "VQVAELoss"],
    "model_utils": ["ModelUtils"],
    "positions": ["LearnedPositions", "PositionalEncoding"],
    "ranking": ["catalogue_scores", "mask_scores", "reads", "target_ranks", "top_k"],
    "quantisation": ["ResidualQuantiser"],
    "saving": ["load", "save"],
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("torch", "safetensors"):
            raise
        raise ImportError(f"{name} needs {missing}; install it with: pip install 'genrec[train]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
