"""Exporting what lies in a folder: a run of ``genrec train``, or a module saved by ``genrec.modules.save``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.cards import facts_of
from genrec.histories import Ragged, RawId
from genrec.modules import reads
from genrec.modules.saving import FORMAT as MODULE_FORMAT
from genrec.modules.saving import load
from genrec_export.assemble import Exported, Say
from genrec_export.errors import ExportError
from genrec_export.modules import export_module
from genrec_export.proving import Window
from genrec_export.recommender import export_recommender
from genrec_export.signatures import parse_signature
from genrec_export.variants import Opset, VariantName
from genrec_models import Run, TorchRecommender, load_run


def export_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    k_max: int = 100,
    exclude_seen: bool = True,
    window: Window = "auto",
    beam: int | None = None,
    variants: Sequence[VariantName] = (),
    opset: Opset = 20,
    promote: bool = False,
    say: Say | None = None,
) -> Exported:
    """Exports the model in a folder to a store; arguments and errors as ``export_recommender``'s, ``beam`` as of ``export_run``.

    Raises:
        FileNotFoundError: if the folder holds no model.
    """
    path = Path(source) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{source} holds no config.json: it is neither a run nor a saved module")
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config, dict) and config.get("format") == MODULE_FORMAT:
        if beam is not None:
            raise ValueError(f"beam ({beam}) is for models that search; {source} holds a module")
        if variants:
            raise ValueError(f"variants ({', '.join(variants)}) are forms of recommenders; {source} holds a module")
        return _export_saved_module(Path(source), config, out, opset, promote, say)
    return export_run(
        source,
        out,
        k_max=k_max,
        exclude_seen=exclude_seen,
        window=window,
        beam=beam,
        variants=variants,
        opset=opset,
        promote=promote,
        say=say,
    )


def export_run(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    k_max: int = 100,
    exclude_seen: bool = True,
    window: Window = "auto",
    beam: int | None = None,
    variants: Sequence[VariantName] = (),
    opset: Opset = 20,
    promote: bool = False,
    say: Say | None = None,
) -> Exported:
    """Exports a trained zoo model, held to ``TorchRecommender`` on the run's own histories; as ``export_recommender``.

    Of a model that searches the run's test scores are those of a search that keeps ``config.beam`` prefixes. What is served
    keeps ``beam`` of them, and as many as a list is long where that is more; ``TorchRecommender`` is asked with the same.

    Args:
        source: the run's folder.
        out: the store.
        k_max: as of ``export_recommender``, as are all that follow but ``beam``.
        exclude_seen: see there.
        window: see there.
        beam: for models that search, how many prefixes are kept; those of the run's settings when None.
        variants: see there.
        opset: see there.
        promote: see there.
        say: see there.
    """
    run = load_run(source)
    model: Any = run.model
    items = run.catalogue.items
    k = min(k_max, len(items))
    parts = _parts(run, k, beam)
    if say is not None and "search" in parts:
        say(f"searching with {parts['search'].beam} prefixes")
    told = _told(run)
    torch_path = TorchRecommender(model, run.catalogue)

    def reference(histories: list[list[RawId]], **read: Any) -> Sequence[tuple[Sequence[RawId], Sequence[float]]]:
        return torch_path.recommend(histories, k, exclude_seen=exclude_seen, **read)

    return export_recommender(
        **parts,
        **told,
        item_ids=items.all(),
        max_seq_length=model.max_seq_length,
        reference=reference,
        out=out,
        window=window,
        k_max=k_max,
        exclude_seen=exclude_seen,
        cold_start=items.raw(run.catalogue.cold_start),
        titles=None if run.catalogue.titles is None else dict(zip(items.all(), run.catalogue.titles, strict=True)),
        name=run.config["model"],
        config=run.config["config"],
        facts=facts_of(run.config, run.metrics) | _searched(parts, run.config["config"]),
        variants=variants,
        opset=opset,
        promote=promote,
        say=say,
    )


def _parts(run: Run, k: int, beam: int | None) -> dict[str, Any]:
    """The parts of a model that are traced, by the argument of ``export_recommender``.

    A model that searches has its settings changed to the beam that is served, so that its ``scores``, by which
    ``TorchRecommender`` ranks, search as widely.

    Raises:
        ExportError: if the model is counted.
        ValueError: if ``beam`` is below 1, or given for a model that does not search.
    """
    model: Any = run.model
    searches = hasattr(model, "serving_module")
    if beam is not None and not searches:
        raise ValueError(f"beam ({beam}) is for models that search; {run.config['model']} scores every item")
    if beam is not None and beam < 1:
        raise ValueError(f"beam ({beam}) must be at least 1")
    if searches:
        search = model.serving_module(k, beam)
        model.config = dataclasses.replace(model.config, beam=search.beam)
        return {"search": search, "score_candidates": model.score}
    if not hasattr(model, "user_state"):
        raise ExportError(
            f"{run.config['model']} is a baseline that is counted, not a network: it is served from torch only"
        )
    return {"encode": model.user_state, "item_vectors": model.item_vectors()}


def _searched(parts: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of a search."""
    search = parts.get("search")
    return {} if search is None else {"search": {"beam": search.beam, "beam of the test": config.get("beam")}}


def _export_saved_module(
    folder: Path, config: dict[str, Any], out: str | os.PathLike[str], opset: Opset, promote: bool, say: Say | None
) -> Exported:
    from safetensors import SafetensorError

    try:
        module = load(folder)
    except (RuntimeError, SafetensorError) as error:
        raise ExportError(f"{folder / 'model.safetensors'} does not fit the module of config.json: {error}") from error
    if "signature" not in config:
        return export_module(module, out=out, opset=opset, promote=promote, say=say)
    signature = parse_signature(config["signature"])
    return export_module(
        module,
        out=out,
        inputs=signature.inputs,
        outputs=signature.outputs,
        limits=signature.limits,
        opset=opset,
        promote=promote,
        say=say,
    )


def _told(run: Run) -> dict[str, Any]:
    """The run's own histories and what its model reads of them, by the argument of ``export_recommender``.

    Raises:
        ExportError: if they are missing or damaged, or lack what the model reads.
    """
    path, read = run.folder / "histories.npz", reads(run.model)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        rows = Ragged(arrays["values"], arrays["offsets"])
        told: dict[str, Any] = {"histories": [run.catalogue.items.raw(row) for row in rows.rows()]}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ExportError(f"{path} is missing or damaged; it holds the histories that the proof is run on") from error
    for argument, name in (("timestamps", "times"), ("users", "users")):
        if argument in read and name not in arrays:
            raise ExportError(
                f"{path} holds no {name}, which {run.config['model']} reads: the run was made by an older version, or of data "
                "without them; train it again to export it"
            )
    if "timestamps" in read:
        told["timestamps"] = [row.tolist() for row in Ragged(arrays["times"], rows.offsets).rows()]
    if "users" in read:
        told |= {"users": arrays["users"].tolist(), "num_users": run.model.num_users}
    return told
