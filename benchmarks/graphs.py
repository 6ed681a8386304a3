"""Which form of the served graph is fastest: prepacked or not, opset 20 or 23, fp32, fp16 or int8. CPU, random weights.

    python benchmarks/graphs.py [--items 10000 100000 1000000] [--widths 64] [--threads 1]

Every form answers the same requests in turn in one process; a figure is the median time of "fp32, opset 20, prepacked" over
that of the form, in CPU time. Memory is what opening the session and answering once added in a process of its own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.histories import ItemIds, Ragged
from genrec_export.assemble import TOLERANCE, blank_manifest, export_draft
from genrec_export.draft import Draft
from genrec_export.foreign import serving_of
from genrec_export.interface import example_of, goldens_of, graphs_of
from genrec_export.report import Report
from genrec_export.variants import check_options, drafts_of
from genrec_models import SASRec
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference
from genrec_runtime.device import processor
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import Manifest, Semantics
from genrec_runtime.options import Options
from genrec_runtime.sessions import Sessions

LENGTH, K_MAX = 50, 100


def write(folder: Path, items: int, width: int, opset: Any) -> Path:
    """A bundle of a SASRec with random weights, traced and written as any other, but not proved: only its speed is looked at."""
    torch.manual_seed(0)
    model = SASRec(items, embedding_dim=width, num_heads=2, num_layers=2, max_seq_length=LENGTH).eval()
    ids = list(range(1, items + 1))
    semantics = Semantics(
        0, items, LENGTH, "left", "keep_newest", "bucketed", min(K_MAX, items), "lowest_index", "logit", None
    )
    serving = serving_of(
        model.user_state,
        model.item_vectors(),
        None,
        ids,
        ItemIds(ids),
        first_item=1,
        pad_index=0,
        max_seq_length=LENGTH,
        k_max=K_MAX,
    )
    variants: Any = ("fp16", "int8")
    check_options(variants, opset, by_table=True)
    graphs = graphs_of(serving, semantics)
    example = example_of(semantics, graphs)
    manifest = Manifest(**blank_manifest("recommender", "sasrec", {}, opset), capabilities=(), semantics=semantics)
    numbered = Ragged.from_rows([np.arange(1, 9)])
    draft = Draft(
        serving,
        graphs,
        example,
        goldens_of(serving, semantics, numbered),
        manifest,
        variants=drafts_of(variants, serving, graphs, example),
    )
    report = Report(TOLERANCE)
    report.add("graph", "nothing: a benchmark", "", Difference(0.0, 0.0, -1))
    return export_draft(draft, folder, report, lambda *_: MEASURED, promote=False, say=lambda text: None).path


MEASURED = {name: {"overlap": 0.0, "histories": 0, "bytes": 0, "speed": {}} for name in ("fp16", "int8")} | {"on": ""}


def resident() -> int:
    """Bytes of this process that lie in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    return 0


def open_engine(bundle: Bundle, variant: str, threads: int, *, packs: bool) -> Engine:
    """An engine, its weights packed or not."""
    Sessions._packs = lambda self, file: packs  # type: ignore[method-assign]
    return Engine(bundle, Options("cpu", threads, variant), trusting=True)


def memory_of(path: Path, variant: str, *, packs: bool) -> int:
    """Bytes that opening a session and answering once adds, in a fresh process."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import graphs; import numpy as np\n"
        "from genrec_runtime.bundle import Bundle\n"
        "bundle = Bundle.open(sys.argv[2], variant=sys.argv[3])\n"
        "import onnxruntime; before = graphs.resident()\n"
        "engine = graphs.open_engine(bundle, sys.argv[3], 1, packs=sys.argv[4] == 'True')\n"
        "engine.run('recommend', graphs.requests(bundle.manifest.semantics.num_items, 1))\n"
        "print(graphs.resident() - before)"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), str(path), variant, str(packs)]
    return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    print(
        f"{processor()}, {options.threads} threads; Python {platform.python_version()}, torch {torch.__version__}",
        end=", ",
    )
    print(f"onnxruntime {metadata.version('onnxruntime')}, numpy {np.__version__}; L={LENGTH}, k={K_MAX}")
    for items in options.items:
        for width in options.widths:
            measure(items, width, options.batches, options.threads, options.runs)


FORMS = {
    "fp32 opset 20 prepacked": (20, "fp32", True),
    "fp32 opset 20": (20, "fp32", False),
    "fp32 opset 23 prepacked": (23, "fp32", True),
    "fp16 opset 20 prepacked": (20, "fp16", True),
    "int8 opset 20 prepacked": (20, "int8", True),
    "int8 opset 20": (20, "int8", False),
}


def measure(items: int, width: int, batches: list[int], threads: int, runs: int) -> None:
    """One table: forms by batch."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {opset: write(Path(folder) / str(opset), items, width, opset) for opset in (20, 23)}
        memory = {name: memory_of(paths[o], v, packs=p) for name, (o, v, p) in FORMS.items()}
        bundles = {opset: Bundle.open(path) for opset, path in paths.items()}
    opened = {name: open_engine(bundles[o], v, threads, packs=p) for name, (o, v, p) in FORMS.items()}
    print(f"\n{items:,} items, D={width}")
    print(
        f"{'':<26}" + "".join(f"B={batch:<8}" for batch in batches) + f"MiB ({items * width * 4 / 2**20:.0f} the table)"
    )
    speeds: dict[str, list[float]] = {name: [] for name in FORMS}
    for batch in batches:
        times = timed(opened, items, batch, max(5, runs // batch * 3 + 5))
        base = statistics.median(next(iter(times.values())))
        for name, taken in times.items():
            speeds[name].append(base / statistics.median(taken))
    for name in FORMS:
        row = "".join(f"{speed:<10.2f}" for speed in speeds[name])
        print(f"{name:<26}{row}{memory[name] / 2**20:.0f}", flush=True)


def requests(items: int, batch: int) -> dict[str, Any]:
    """Full windows of random items, each excluded."""
    ids = np.random.default_rng(0).integers(1, items + 1, (batch, LENGTH))
    return {"item_ids": ids, "exclude": ids, "available": np.ones(items + 1, np.bool_)}


def timed(forms: dict[str, Engine], items: int, batch: int, runs: int) -> dict[str, list[float]]:
    """CPU seconds of each form, taking turns."""
    inputs = requests(items, batch)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for run in range(runs + 2):
        for name, engine in forms.items():
            begin = time.process_time()
            engine.run("recommend", inputs)
            if run >= 2:
                times[name].append(time.process_time() - begin)
    return times


if __name__ == "__main__":
    sys.exit(main())
