"""The runtime against OpenVINO: RePlay's way (all scores, then torch.topk) and OpenVINO on our own graph. CPU.

In an environment of its own, so that nothing of OpenVINO's is in the project's:

    python -m venv OV && OV/bin/pip install -c constraints.txt torch==2.13.0 openvino --editable '.[cpu,export]'
    OV/bin/python benchmarks/openvino_peer.py [--items 10000 100000 1000000] [--batches 1 32 256] [--threads 1 2]
    OV/bin/python benchmarks/openvino_peer.py --profile   # each engine's share of time by operator, on our graph

Same weights and requests, peers taking turns in one process, whole requests from raw ids to raw ids. OpenVINO knows every input
shape beforehand, as RePlay compiles it; the runtime serves any. OpenVINO computes in bfloat16 by itself where the CPU has it:
"f32" is told not to, and its answers are held to ours; "bf16" is left alone, and answers otherwise than the model.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from bundles import histories_of, write
from peers import Pipeline
from rounds import ratio, require_equal, take_turns
from torch import Tensor, nn

from genrec.histories import Catalogue
from genrec_models import SASRec
from runtime import K, add_grid, answers_of, ours, speed

Nodes = dict[tuple[str, str], list[float]]  # microseconds of every run, by operator and node
RUNS = 30  # that are profiled
PRECISIONS = {"f32": {"INFERENCE_PRECISION_HINT": "f32"}, "bf16": {}}


class AllScores(nn.Module):
    """The trainer's model up to the scores of all items: what RePlay exports."""

    def __init__(self, model: SASRec) -> None:
        super().__init__()
        self.model = model

    def forward(self, item_ids: Tensor) -> Tensor:
        """(B, L) -> (B, V + 1)."""
        return self.model.encoder(item_ids, item_ids != 0)[:, -1] @ self.model.item_vectors().T


def compiled(path: Path, shapes: dict[str, list[int]], threads: int, options: dict[str, Any]) -> Any:
    """An ONNX file compiled by OpenVINO for inputs of these shapes."""
    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape(shapes)
    return core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, **options})


def all_scores(path: Path, batch: int, length: int, threads: int, options: dict[str, Any]) -> Callable[..., Any]:
    """RePlay's way: all scores come back, the seen are filled in a copy, torch.topk takes the best."""
    network = compiled(path, {"item_ids": [batch, length]}, threads, options)

    def search(item_ids: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.from_numpy(network({"item_ids": item_ids.numpy()})[0])  # (B, V + 1)
        scores = scores.clone()
        scores.scatter_(1, item_ids, float("-inf"))
        scores[:, 0] = float("-inf")
        values, indices = scores.topk(K, dim=1)
        return values, indices

    return search


def our_graph(bundle: Path, batch: int, length: int, threads: int, options: dict[str, Any]) -> Callable[..., Any]:
    """The graph that the runtime runs, by OpenVINO, without copies on the way in and out."""
    rows = [batch, length]
    request = compiled(
        bundle / "recommend.onnx", {"item_ids": rows, "exclude": rows}, threads, options
    ).create_infer_request()
    available = np.ones(request.model_inputs[-1].shape, np.bool_)

    def search(item_ids: Tensor) -> tuple[Tensor, Tensor]:
        ids = item_ids.numpy()
        inputs = {"item_ids": ids, "exclude": ids, "available": available}
        found = request.infer(inputs, share_inputs=True, share_outputs=True)
        items, scores = (torch.from_numpy(found[place][:, :K]) for place in (0, 1))
        return scores, items

    return search


def against_openvino(
    folder: Path, model: SASRec, catalogue: Catalogue, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Rows of how many times faster each variant is than each way of using OpenVINO."""
    bundle = write(folder / "store", model, catalogue, variants=[name for name in options.variants if name != "fp32"])
    exported = export_scores(folder / "scores.onnx", model)
    raw, length = catalogue.items.all(), model.max_seq_length
    for threads, batch in itertools.product(options.threads, options.batches):
        torch.set_num_threads(threads)
        histories = histories_of(catalogue, [length] * batch)
        calls = ours(bundle, options.variants, threads, histories)
        for precision, hint in PRECISIONS.items():
            ways = {"RePlay's way": all_scores(exported, batch, length, threads, hint)}
            ways["our graph"] = our_graph(bundle, batch, length, threads, hint)
            for name, search in ways.items():
                pipeline = Pipeline(search, raw, length, fixed=True)
                calls[f"{name} {precision}"] = functools.partial(pipeline.recommend, histories)
        require_equal(answers_of({name: call for name, call in calls.items() if "bf16" not in name}), "fp32")
        times = take_turns(calls, options.rounds, clock=options.clock)
        theirs = [name for name in calls if name not in options.variants]
        pairs = [("fp32", name) for name in theirs] + [("int8", name) for name in theirs if "int8" in calls]
        yield {"batch": batch, "threads": threads} | {f"{a} / {b}": ratio(times[b], times[a]) for a, b in pairs}


def export_scores(path: Path, model: SASRec) -> Path:
    """``AllScores`` as an ONNX file of any batch, at the model's full length."""
    example = torch.randint(1, model.num_items + 1, (2, model.max_seq_length))
    batch = {0: torch.export.Dim.DYNAMIC}
    names = {"input_names": ["item_ids"], "output_names": ["scores"]}
    torch.onnx.export(
        AllScores(model).eval(),
        (example,),
        str(path),
        dynamo=True,
        verbose=False,
        opset_version=20,
        dynamic_shapes=(batch,),
        **names,
    )
    return path


def profile(folder: Path, model: SASRec, catalogue: Catalogue, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of what each operator of our graph takes, in hundredths of onnxruntime's whole time; engines take turns."""
    graph = write(folder / "store", model, catalogue) / "recommend.onnx"
    for threads, batch in itertools.product(options.threads, options.batches):
        ids = np.random.default_rng(0).integers(1, model.num_items + 1, (batch, model.max_seq_length))
        inputs = {"item_ids": ids, "exclude": ids, "available": np.ones(model.num_items + 1, np.bool_)}
        own = _profiled_session(graph, threads, folder)
        shapes = {name: list(inputs[name].shape) for name in ("item_ids", "exclude")}
        theirs = {
            f"OpenVINO {name}": compiled(graph, shapes, threads, {"PERF_COUNT": True, **hint}).create_infer_request()
            for name, hint in PRECISIONS.items()
        }
        nodes: dict[str, Nodes] = {name: defaultdict(list) for name in ("onnxruntime", *theirs)}
        for _ in range(RUNS):
            own.run(None, inputs)
            for name, request in theirs.items():
                request.infer(inputs, share_inputs=True, share_outputs=True)
                for part in request.get_profiling_info():
                    nodes[name][part.node_type, part.node_name].append(part.real_time.total_seconds() * 1e6)
        for event in json.loads(Path(own.end_profiling()).read_text()):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                nodes["onnxruntime"][event["args"]["op_name"], event["name"]].append(event["dur"])
        found = {name: _by_operator(times) for name, times in nodes.items()}
        whole = sum(found["onnxruntime"].values())
        for name, operators in found.items():
            shares = [f"{kind} {100 * taken / whole:.0f}" for kind, taken in operators.most_common(7)]
            total = f"{100 * sum(operators.values()) / whole:.0f}"
            yield {"batch": batch, "threads": threads, "engine": name, "all": total, "operators": ", ".join(shares)}


def _profiled_session(graph: Path, threads: int, folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _by_operator(nodes: Nodes) -> Counter[str]:
    """The medians of all nodes of an operator together."""
    found: Counter[str] = Counter()
    for (kind, _), taken in nodes.items():
        found[kind] += statistics.median(taken)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_grid(parser, [10_000, 100_000, 1_000_000])
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print(speed(options, profile if options.profile else against_openvino, "openvino"))


if __name__ == "__main__":
    main()
