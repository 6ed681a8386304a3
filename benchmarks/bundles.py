"""What the benchmarks serve: a SASRec with random weights, its catalogue, its bundle, and requests to answer.

The bundle is traced and written as any other, but not proved equal to torch: who measures compares the answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.histories import Catalogue, ItemIds, Ragged
from genrec_export.assemble import TOLERANCE, blank_manifest, export_draft
from genrec_export.draft import Draft
from genrec_export.foreign import serving_of
from genrec_export.histories import Requests
from genrec_export.interface import example_of, goldens_of, graphs_of
from genrec_export.report import Report
from genrec_export.variants import check_options, drafts_of
from genrec_models import SASRec
from genrec_runtime.compare import Difference
from genrec_runtime.manifest import Manifest, Semantics

UNMEASURED = {"overlap": 0.0, "histories": 0, "bytes": 0, "speed": {}}  # in the place of what an export finds out


def model_of(items: int, width: int, length: int) -> SASRec:
    """Two layers with two heads, in eval mode; the same weights every time."""
    torch.manual_seed(0)
    return SASRec(items, embedding_dim=width, num_heads=2, num_layers=2, max_seq_length=length).eval()


def catalogue_of(items: int) -> Catalogue:
    """Raw ids as shops have them: whole numbers with gaps, 100003, 100010, 100017, ..."""
    return Catalogue(ItemIds(np.arange(items) * 7 + 100_003), np.arange(1, items + 1))


def write(
    folder: Path,
    model: SASRec,
    catalogue: Catalogue,
    *,
    opset: Any = 20,
    variants: Any = (),
    k_max: int = 100,
) -> Path:
    """Writes a bundle; options as those of ``export_recommender``.

    Returns:
        The bundle's folder, inside ``folder``.
    """
    items, length = model.num_items, model.max_seq_length
    k = min(k_max, items)
    semantics = Semantics(0, items, length, "left", "keep_newest", "bucketed", k, "lowest_index", "logit", None)
    serving = serving_of(
        model.user_state,
        model.item_vectors(),
        None,
        catalogue.items.all(),
        catalogue.items,
        first_item=1,
        pad_index=0,
        max_seq_length=length,
        k_max=k,
    )
    check_options(variants, opset, by_table=True)
    graphs = graphs_of(serving, semantics)
    example = example_of(semantics, graphs)
    draft = Draft(
        serving,
        graphs,
        example,
        goldens_of(serving, semantics, Requests(Ragged.from_rows([np.arange(1, 9)]))),
        Manifest(
            **blank_manifest("recommender", "sasrec", {}, opset),
            capabilities=(),
            semantics=semantics,
        ),
        files=catalogue.files(),
        variants=drafts_of(variants, serving, graphs, example),
    )
    report = Report(TOLERANCE)
    report.add("graph", "nothing: a benchmark", "", Difference(0.0, 0.0, -1))
    measured = dict.fromkeys(variants, UNMEASURED)
    return export_draft(draft, folder, report, lambda *_: measured, promote=False, say=lambda text: None).path


def histories_of(catalogue: Catalogue, lengths: Any, seed: int = 0) -> list[list[Any]]:
    """Random raw histories, one for each length; a history holds no item twice."""
    random = np.random.default_rng(seed)
    return [catalogue.items.raw(random.choice(len(catalogue.items), n, replace=False) + 1) for n in lengths]
