"""``genrec zoo``: what can be trained, how large it is, what it needs, and its recipes."""

from __future__ import annotations

import inspect
import re
from typing import Any

import click

NEEDS = {"timestamps": "the times of the events", "users": "users' ids, where they are known"}
CODES = "codes of the items, of genrec semantic-ids (from item vectors or titles) or made of the training histories"
TYPICAL = 10_000  # items


@click.command()
@click.argument("model", required=False)
@click.option(
    "--items",
    "num_items",
    type=click.IntRange(min=1),
    default=TYPICAL,
    show_default=True,
    help="The size of the catalogue that parameters are counted for.",
)
def zoo(model: str | None, num_items: int) -> None:
    """List the models with their parameters, presets, needs and recipes; of one MODEL the settings, too."""
    from genrec_models import MODELS, SUMMARIES

    if model is not None and model not in MODELS:
        raise click.UsageError(f"no model {model!r}; the zoo has {', '.join(MODELS)}")
    for name in MODELS if model is None else [model]:
        click.echo(f"{name}: {SUMMARIES[name]}")
        for what, values in _facts(name, num_items).items():
            click.echo(f"  {what}: {values}")
    if model is None:
        click.echo(f"\nParameters of default settings, with {num_items:,} items. The settings: genrec zoo MODEL")
        click.echo("Train one: genrec train MODEL --recipe NAME --data FILE")
    else:
        for line in _settings(model):
            click.echo(f"  {line}")


def _facts(name: str, num_items: int) -> dict[str, str]:
    """What is worth a line, by its title."""
    from genrec_models import model_class, recipe_names

    recipes = {"recipes": ", ".join(data + _not_run(name, data) for data in recipe_names(name))}
    try:
        from genrec.modules import reads

        kind = model_class(name)
    except ImportError:
        return recipes | {"parameters": "counted where torch is installed: pip install 'genrec[train]'"}
    built = _unfilled(kind, num_items)
    presets: dict[str, dict[str, Any]] = getattr(kind, "presets", {})
    sizes = [f"{preset} ({_size(_unfilled(kind, num_items, **chosen))})" for preset, chosen in presets.items()]
    further = [NEEDS[one] for one in reads(built) if one in NEEDS] + [CODES] * hasattr(built, "set_codes")
    facts = {
        "parameters": _size(built),
        "presets": ", ".join(sizes),
        "reads beside histories": "; ".join(further),
    }
    return {what: values for what, values in facts.items() if values} | recipes


def _not_run(name: str, data: str) -> str:
    from genrec_models import recipe_path

    return " (not run)" * ("Not run." in recipe_path(data, name).read_text(encoding="utf-8"))


def _unfilled(kind: type[Any], num_items: int, **settings: Any) -> Any:
    """A model without memory for its weights."""
    import torch

    with torch.device("meta"):
        return kind(num_items=num_items, **settings)


def _size(model: Any) -> str:
    count = sum(weight.numel() for weight in model.parameters())
    return f"{count:,}" if count else "none: it counts"


def _settings(name: str) -> list[str]:
    """Each setting of the model, then of its training, with its default and what its class says of it."""
    from genrec.training import FitConfig
    from genrec_models import model_class

    kind = model_class(name)
    takers = {"setting": kind} if hasattr(kind, "fit_events") else {"setting": kind, "training": FitConfig}
    lines = []
    for title, taker in takers.items():
        said = _arguments(inspect.getdoc(taker) or "")
        settings = {key: one for key, one in inspect.signature(taker).parameters.items() if key != "num_items"}
        lines += [f"{title} {key} = {one.default!r}: {said[key]}" for key, one in settings.items()]
    return lines


def _arguments(doc: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    said: dict[str, str] = {}
    name = ""
    for line in doc.partition("Args:\n")[2].partition("\n\n")[0].splitlines():
        entry = re.fullmatch(r" {4}(\w+): (.+)", line)
        if entry:
            name, said[entry[1]] = entry[1], entry[2]
        else:
            said[name] += " " + line.strip()
    return said
