"""Exporting what lies in a folder: a run of ``genrec train``, or a module saved by ``genrec.modules.save``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.histories import Ragged, RawId
from genrec.modules.saving import FORMAT as MODULE_FORMAT
from genrec.modules.saving import load
from genrec_export.assemble import Exported, Say
from genrec_export.errors import ExportError
from genrec_export.modules import export_module
from genrec_export.recommender import Window, export_recommender
from genrec_export.signatures import parse_signature
from genrec_export.variants import Opset, VariantName
from genrec_models import TorchRecommender, load_run


def export_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    k_max: int = 100,
    exclude_seen: bool = True,
    window: Window = "auto",
    variants: Sequence[VariantName] = (),
    opset: Opset = 20,
    promote: bool = False,
    say: Say | None = None,
) -> Exported:
    """Exports the model in a folder to a store; arguments and errors as ``export_recommender``'s.

    Raises:
        FileNotFoundError: if the folder holds no model.
    """
    path = Path(source) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{source} holds no config.json: it is neither a run nor a saved module")
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config, dict) and config.get("format") == MODULE_FORMAT:
        if variants:
            raise ValueError(f"variants ({', '.join(variants)}) are forms of recommenders; {source} holds a module")
        return _export_saved_module(Path(source), config, out, opset, promote, say)
    return export_run(
        source,
        out,
        k_max=k_max,
        exclude_seen=exclude_seen,
        window=window,
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
    variants: Sequence[VariantName] = (),
    opset: Opset = 20,
    promote: bool = False,
    say: Say | None = None,
) -> Exported:
    """Exports a trained zoo model, held to ``TorchRecommender`` on the run's own histories; as ``export_recommender``."""
    run = load_run(source)
    model: Any = run.model
    if not hasattr(model, "user_state"):
        raise ExportError(
            f"{run.config['model']} is a baseline that is counted, not a network: it is served from torch only"
        )
    items = run.catalogue.items
    torch_path = TorchRecommender(run.model, run.catalogue)

    def reference(histories: list[list[RawId]]) -> Sequence[tuple[Sequence[RawId], Sequence[float]]]:
        return torch_path.recommend(histories, min(k_max, len(items)), exclude_seen=exclude_seen)

    return export_recommender(
        encode=model.user_state,
        item_vectors=model.item_vectors(),
        item_ids=items.all(),
        max_seq_length=model.max_seq_length,
        reference=reference,
        histories=[items.raw(row) for row in _histories(run.folder).rows()],
        out=out,
        window=window,
        k_max=k_max,
        exclude_seen=exclude_seen,
        cold_start=items.raw(run.catalogue.cold_start),
        titles=None if run.catalogue.titles is None else dict(zip(items.all(), run.catalogue.titles, strict=True)),
        name=run.config["model"],
        config=run.config["config"],
        facts=_facts(run.config, run.metrics),
        variants=variants,
        opset=opset,
        promote=promote,
        say=say,
    )


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


def _histories(folder: Path) -> Ragged:
    path = folder / "histories.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Ragged(arrays["values"], arrays["offsets"])
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{path} is missing or damaged; it holds the histories that the proof is run on") from error


def _facts(config: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """What the bundle says of its training: data, protocol, test metrics, seed. Folders of the trainer's machine stay there."""
    facts: dict[str, Any] = {"seed": config.get("seed")}
    data, protocol = config.get("data"), config.get("protocol")
    if isinstance(data, dict):
        kept = {key: value for key, value in data.items() if key != "options"}
        facts["data"] = kept | {"source": Path(str(data.get("source"))).name}
    if isinstance(protocol, dict):
        facts["protocol"] = {key: value for key, value in protocol.items() if key not in ("source", "content_hash")}
    if isinstance(metrics.get("test"), dict):
        facts["test"] = metrics["test"]
    return facts
