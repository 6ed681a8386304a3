"""What a fresh process costs, torch against the runtime: start to first answer, resident memory, size when installed.

Used by runtime.py --startup and --install.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bundles import catalogue_of, histories_of, model_of, write
from peers import save
from rounds import machine, ratio, table

HERE = Path(__file__).parent
TREE = HERE.parent
WAIT = "; print('there', flush=True); sys.stdin.read()"  # alive, so that its memory can be read
CHILDREN = {
    "torch imported": "import sys, numpy, torch, genrec_models.sasrec",
    "runtime imported": "import sys, numpy, onnxruntime, genrec_runtime.recommender",
    "torch": "import sys, json; sys.path.insert(0, {here!r}); import torch; torch.set_num_threads(1); import peers; "
    "pipeline = peers.load({torch!r}); pipeline.recommend([json.load(open({request!r}))])",
    "fp32": "import sys, json; from genrec_runtime import Recommender; "
    "own = Recommender.load({bundle!r}, device='cpu', threads=1); own.recommend([json.load(open({request!r}))], k=10)",
    "int8": "import sys, json; from genrec_runtime import Recommender; "
    "own = Recommender.load({bundle!r}, device='cpu', threads=1, variant='int8'); "
    "own.recommend([json.load(open({request!r}))], k=10)",
}


@dataclass(frozen=True)
class Start:
    """What one fresh process took.

    Attributes:
        seconds: from its start to its answer.
        resident: bytes that then lay in memory.
    """

    seconds: float
    resident: int


def start(code: str) -> Start:
    """Runs code that ends in ``WAIT`` in a fresh Python."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answered = process.stdout.readline() == b"there\n"
        taken = time.perf_counter() - begin
        if not answered:
            raise SystemExit(f"a fresh process gave no answer: {code}")
        found = Start(taken, resident(process.pid))
        process.stdin.close()
    return found


def resident(pid: int) -> int:
    """Bytes of a process that lie in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def startup(items: Sequence[int], width: int, length: int, rounds: int) -> str:
    """A table with two rows for each catalogue, "fp32" and "int8"."""
    rows = [row for count in items for row in _starts(count, width, length, rounds)]
    title = f"{machine('torch', 'onnxruntime', 'numpy')}; one thread, wall-clock time, {rounds} rounds, D={width}, L={length}"
    return f"{title}\n\n{table(list(rows[0]), [list(row.values()) for row in rows])}"


def _starts(items: int, width: int, length: int, rounds: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, catalogue = model_of(items, width, length), catalogue_of(items)
        bundle = write(folder, model, catalogue, variants=("int8",))
        request = save(folder / "torch", model, catalogue.items.all(), histories_of(catalogue, [length])[0])
        places = {"here": str(HERE), "torch": str(folder / "torch"), "bundle": str(bundle), "request": str(request)}
        runs: dict[str, list[Start]] = {name: [] for name in CHILDREN}
        for _ in range(rounds):
            for name, code in CHILDREN.items():
                runs[name].append(start(code.format(**places) + WAIT))
    times = {name: [run.seconds for run in found] for name, found in runs.items()}
    memory = {name: sorted(run.resident for run in found)[rounds // 2] for name, found in runs.items()}
    tables = 4 * (items + 1) * width
    for own in ("fp32", "int8"):
        yield {
            "items": f"{items:,}",
            "variant": own,
            "start to first answer, torch / runtime": ratio(times["torch"], times[own]),
            "resident, runtime / torch": f"{memory[own] / memory['torch']:.2f}",
            "runtime above its imports, in fp32 tables": f"{(memory[own] - memory['runtime imported']) / tables:.2f}",
            "torch above its imports, in fp32 tables": f"{(memory['torch'] - memory['torch imported']) / tables:.2f}",
        }


def installed() -> str:
    """A table of what pip lays down for each side."""
    needs = {"genrec[cpu]": f"{TREE}[cpu]", "torch and numpy": f"torch=={torch.__version__.partition('+')[0]}"}
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, requirement in needs.items():
            target = Path(folder) / name
            command = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={target}", requirement, "numpy"]
            subprocess.run(
                [*command, f"--constraint={TREE / 'constraints.txt'}"], check=True, stderr=subprocess.DEVNULL
            )
            sizes[name] = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    theirs = sizes["torch and numpy"]
    rows = [[name, f"{size / 2**20:.0f}", f"{theirs / size:.1f}"] for name, size in sizes.items()]
    title = (
        f"{machine('torch', 'onnxruntime', 'numpy')}; torch's build for CPUs alone, dependencies and bytecode included"
    )
    return f"{title}\n\n{table(['installed', 'MiB', 'torch / this'], rows)}"
