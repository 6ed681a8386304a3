"""The zoo: one recommender a file, each built from ``genrec.modules``. Importing this package imports no torch.

Every model takes ``num_items`` and its settings as constructor arguments and keeps them in a frozen dataclass ``config``. Those
that are trained have ``loss``, ``user_state`` and ``item_vectors``; those that are counted have ``fit_events`` and ``scores``.
"""

import importlib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec_models.baselines import ItemKNN, Markov, Popularity, SequentialRules
    from genrec_models.bert4rec import BERT4Rec, BERT4RecConfig
    from genrec_models.cooccurrence import cooccurrence_vectors
    from genrec_models.gru4rec import GRU4Rec, GRU4RecConfig
    from genrec_models.hstu import HSTU, HSTUConfig
    from genrec_models.item_vectors import read_vectors, text_vectors
    from genrec_models.recommend import TorchRecommender
    from genrec_models.rqvae import RQVAE, RQVAEConfig
    from genrec_models.run import Run, load_run
    from genrec_models.sasrec import SASRec, SASRecConfig
    from genrec_models.semantic_ids import SemanticIds, load_semantic_ids, make_semantic_ids
    from genrec_models.tiger import TIGER, TIGERConfig
    from genrec_models.tokenizer import ResidualKMeans, ResidualKMeansConfig, Tokenizer

__all__ = [
    "BASELINES",
    "HSTU",
    "MODELS",
    "RQVAE",
    "SUMMARIES",
    "TIGER",
    "BERT4Rec",
    "BERT4RecConfig",
    "GRU4Rec",
    "GRU4RecConfig",
    "HSTUConfig",
    "ItemKNN",
    "Markov",
    "Popularity",
    "RQVAEConfig",
    "ResidualKMeans",
    "ResidualKMeansConfig",
    "Run",
    "SASRec",
    "SASRecConfig",
    "SemanticIds",
    "SequentialRules",
    "TIGERConfig",
    "Tokenizer",
    "TorchRecommender",
    "build",
    "cooccurrence_vectors",
    "load_run",
    "load_semantic_ids",
    "make_semantic_ids",
    "model_class",
    "preset_of",
    "read_vectors",
    "recipe_names",
    "recipe_path",
    "text_vectors",
]

MODELS: dict[str, str] = {
    "popularity": "genrec_models.baselines:Popularity",
    "item-knn": "genrec_models.baselines:ItemKNN",
    "markov": "genrec_models.baselines:Markov",
    "sequential-rules": "genrec_models.baselines:SequentialRules",
    "sasrec": "genrec_models.sasrec:SASRec",
    "gru4rec": "genrec_models.gru4rec:GRU4Rec",
    "bert4rec": "genrec_models.bert4rec:BERT4Rec",
    "hstu": "genrec_models.hstu:HSTU",
    "tiger": "genrec_models.tiger:TIGER",
}

BASELINES = (
    "popularity",
    "item-knn",
    "markov",
    "sequential-rules",
)  # counted in one pass; they stand beside all others

SUMMARIES: dict[str, str] = {
    "popularity": "counted: what most people chose, the same for everyone",
    "item-knn": "counted: items that the same people chose (cosine), newer events weigh more",
    "markov": "counted: what most often came right after the newest item",
    "sequential-rules": "counted: what came within a few steps after each of the newest items",
    "sasrec": "trained: a causal transformer over the history (Kang and McAuley 2018)",
    "gru4rec": "trained: a recurrent network over the history (Hidasi et al. 2016)",
    "bert4rec": "trained: a bidirectional transformer that fills in masked events (Sun et al. 2019)",
    "hstu": "trained: gated attention by distance and time, scored by cosine (Zhai et al. 2024)",
    "tiger": "trained: an encoder-decoder that writes the codes of the next item (Rajput et al. 2023)",
}

RECIPES = Path(__file__).parent / "recipes"

_FILES = {
    "baselines": ["ItemKNN", "Markov", "Popularity", "SequentialRules"],
    "bert4rec": ["BERT4Rec", "BERT4RecConfig"],
    "gru4rec": ["GRU4Rec", "GRU4RecConfig"],
    "hstu": ["HSTU", "HSTUConfig"],
    "cooccurrence": ["cooccurrence_vectors"],
    "item_vectors": ["read_vectors", "text_vectors"],
    "rqvae": ["RQVAE", "RQVAEConfig"],
    "semantic_ids": ["SemanticIds", "load_semantic_ids", "make_semantic_ids"],
    "tokenizer": ["ResidualKMeans", "ResidualKMeansConfig", "Tokenizer"],
    "recommend": ["TorchRecommender"],
    "run": ["Run", "load_run"],
    "sasrec": ["SASRec", "SASRecConfig"],
    "tiger": ["TIGER", "TIGERConfig"],
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def model_class(name: str) -> type[Any]:
    """The class behind a zoo name, or behind ``package.module:Class``.

    Raises:
        ValueError: if the zoo has no such name, or the module no such class; the closest names are given.
        ImportError: if the module cannot be imported.
    """
    target = MODELS.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon or not module_name or not class_name:
        raise ValueError(f"no model {name!r}; {_closest(name)}, or give your own as package.module:Class")
    found = getattr(importlib.import_module(module_name), class_name, None)
    if not isinstance(found, type):
        raise ValueError(f"module {module_name} has no class {class_name!r}")
    return found


def preset_of(kind: type[Any], name: str) -> dict[str, Any]:
    """The settings of a model that go by a name, from its ``presets``.

    Raises:
        ValueError: if it has none of this name.
    """
    presets: dict[str, dict[str, Any]] = getattr(kind, "presets", {})
    if name not in presets:
        raise ValueError(f"{kind.__name__} has no preset {name!r}: there are {', '.join(presets) or 'none'}")
    return presets[name]


def build(kind: type[Any], num_items: int, settings: dict[str, Any], seed: int = 0) -> Any:
    """A new model for a catalogue of ``num_items``, its initial weights drawn from ``seed``."""
    import torch

    torch.manual_seed(seed)
    return kind(num_items=num_items, **settings)


def recipe_names(model: str) -> list[str]:
    """The data that there is a shipped recipe for: one of the model, or one for any, which says how to read them."""
    return sorted(
        {file.stem.removeprefix(f"{kind}-") for kind in ("any", model) for file in RECIPES.glob(f"{kind}-*.toml")}
    )


def recipe_path(name: str, model: str) -> Path:
    """The file of a recipe: one shipped for ``model``, or for any, by the name of its data, or a path as it stands.

    Raises:
        ValueError: if there is neither.
    """
    shipped = [RECIPES / f"{kind}-{name}.toml" for kind in (model, "any")]
    if name in recipe_names(model):
        return next(path for path in shipped if path.is_file())
    if Path(name).is_file():
        return Path(name)
    raise ValueError(
        f"no recipe {name!r}: {model} has {', '.join(recipe_names(model)) or 'none'}, and there is no such file"
    )


def _closest(name: str) -> str:
    close = get_close_matches(name, MODELS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the zoo has {', '.join(MODELS)}"


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("torch", "safetensors"):
            raise
        raise ImportError(f"{name} needs {error.name}; install it with: pip install 'genrec[train]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
