"""``genrec quickstart``: from nothing to torch-free recommendations on the embedded data, each step by the library's own call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.data import Split

BASELINES = ("popularity", "item-knn", "markov", "sequential-rules")
METRICS = ("recall@10", "ndcg@10")
RESULTS = "quickstart.json"
SERVE = "import sys; sys.modules['torch'] = None; from genrec_runtime.cli import main; main()"
Say = Callable[[str], None]


def quickstart(out: Path, seed: int, say: Say) -> None:
    """Trains, measures, exports, proves, serves and draws.

    Args:
        out: the folder to write; what an earlier quickstart left there is replaced.
        seed: of everything random.
        say: where results go, a line or a table at a time.

    Raises:
        ValueError: if ``out`` holds something else than an earlier quickstart.
        ExportError: if the bundle does not answer as torch does.
    """
    from genrec_export import export_run

    _make_room(out)
    split = _load(say)
    metrics = _train(out, split, seed, say)
    say("\n== exporting, and comparing the bundle with torch")
    exported = export_run(out / "run", out / "store", promote=True)
    say(exported.report.table())
    say(f"equal to torch in {len(exported.report.cells)} comparisons")
    say("\n== ten recommendations, from a process where torch cannot be imported")
    say(_serve(out / "store" / "current", split))
    pictures = _draw(out, split, metrics)
    say("\n== written")
    for path in (out / "run", exported.path, out / "store" / "current", *pictures):
        say(f"{path}")


def _make_room(out: Path) -> None:
    marker = out / RESULTS
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise ValueError(f"{out} holds something else than an earlier quickstart; name another folder by --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    marker.write_text("{}\n")


def _load(say: Say) -> Split:
    from genrec.training import DataOptions

    split = DataOptions(source="quickstart").load()
    events, users = len(split.data.events.values), len(split.data.events)
    say(f"== the embedded shop: {users:,} shoppers, {len(split.data.items)} items, {events:,} purchases")
    return split


def _train(out: Path, split: Split, seed: int, say: Say) -> dict[str, Any]:
    """Fits the baselines in memory and SASRec into its run folder; the test metrics of all beside the best possible."""
    from genrec.data import make_shop
    from genrec.training import DataOptions, FitConfig, fit, read_recipe
    from genrec_models import build, model_class, recipe_path

    say("== training the baselines and SASRec (a minute)")
    found: dict[str, dict[str, float]] = {}
    for name in BASELINES:
        result = fit(build(model_class(name), len(split.data.items), {}, seed), split, seed=seed)
        found[name] = {metric: result.metrics["test"][metric] for metric in METRICS}
    recipe = read_recipe(recipe_path("quickstart", "sasrec"))
    model = build(model_class("sasrec"), len(split.data.items), recipe.model, seed)
    options = asdict(DataOptions(source="quickstart"))
    config = FitConfig(**recipe.fit)
    result = fit(model, split, out=out / "run", seed=seed, config=config, progress=True, data_options=options)
    found["sasrec"] = {metric: result.metrics["test"][metric] for metric in METRICS}
    ceiling = make_shop().ceiling(split)
    found["the best possible"] = dict(zip(METRICS, (ceiling.recall, ceiling.ndcg), strict=True))
    found["  its standard error"] = dict(zip(METRICS, (ceiling.recall_error, ceiling.ndcg_error), strict=True))
    say(f"\n{'test: all items ranked, seen ones left out':<44}" + "".join(f"{metric:>11}" for metric in METRICS))
    for name, row in found.items():
        say(f"{name:<44}" + "".join(f"{row[metric]:>11.4f}" for metric in METRICS))
    (out / RESULTS).write_text(json.dumps(found, indent=2) + "\n")
    return result.metrics


def _serve(bundle: Path, split: Split) -> str:
    """The command ``genrec-runtime recommend`` for one shopper, in a process of its own without torch."""
    history = [str(item) for item in _one_history(split)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SERVE, "recommend", str(bundle), "--history", ",".join(history), "--k", "10"]
    child = subprocess.run(command, capture_output=True, text=True, env=environment)
    if child.returncode != 0:
        raise RuntimeError(f"genrec-runtime recommend failed: {child.stderr.strip()}")
    data = split.data
    titles = [
        data.titles[index - 1] if data.titles else raw
        for index, raw in zip(data.items.index(history), history, strict=True)
    ]
    return f"bought: {', '.join(map(str, titles))}\n{child.stdout.rstrip()}"


def _draw(out: Path, split: Split, metrics: dict[str, Any]) -> list[Path]:
    """The training curve, and what SASRec's first layer looks at in one shopper's history."""
    import torch

    from genrec.visualization import attention_figure, save_figure, training_curve_figure
    from genrec_models import load_run

    paths = [out / "training_curve.png", out / "attention.png"]
    save_figure(training_curve_figure(metrics["epochs"]), paths[0])
    run = load_run(out / "run")
    item_ids = torch.from_numpy(run.catalogue.items.index(_one_history(split))[None])
    encoder: Any = run.model.encoder
    with torch.no_grad():
        weights = encoder.attention_maps(item_ids, item_ids != 0)[0][0]
    names = [run.catalogue.title(int(index)) for index in item_ids[0]]
    save_figure(attention_figure(weights, names, names, "What each purchase looks back at, first layer"), paths[1])
    return paths


def _one_history(split: Split) -> list[Any]:
    """The newest twelve purchases of the first test case."""
    first = split.histories(split.test).row(0)[-12:]
    return split.data.items.raw(first)
