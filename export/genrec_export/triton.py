"""A published bundle as a model repository of NVIDIA's Triton server; ``docs/triton.md`` has the client's side.

Triton's onnxruntime backend runs the graphs alone: raw ids, padding and the checks of a request stay with the client.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from genrec_export.errors import ExportError
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import compare_outputs
from genrec_runtime.device import CPU, available_threads, import_onnxruntime
from genrec_runtime.manifest import FP32, Signature, TensorSpec
from genrec_runtime.signatures import check_session

GRAPH_FOLDER = "1/model.onnx"  # a graph whose weights lie beside it is a folder of that name to Triton
GRAPH_FILE = f"{GRAPH_FOLDER}/model.onnx"

# What genrec_runtime asks of CUDA, too: TF32 would keep 10 of a float's 23 bits. Nobody reads it without a GPU.
NO_TF32 = """\
optimization {
  execution_accelerators {
    gpu_execution_accelerator {
      name: "cuda"
      parameters { key: "use_tf32" value: "0" }
    }
  }
}"""


def write_repository(bundle: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Writes each graph of a bundle as a model of Triton's, and tries what was written before it gets its name.

    ``OUT/<model>_<graph>/`` holds ``config.pbtxt``, the graph in float32 and its weights under ``1/model.onnx/``, and for
    the client the bundle's ``manifest.json`` and item files. Every model has a copy of the weights that it uses.

    Args:
        bundle: the folder of a published bundle, or a link to it.
        out: the repository: a folder that is new or empty.

    Returns:
        ``out``.

    Raises:
        BundleError: if there is no bundle, or it is damaged.
        ExportError: if ``out`` is neither new nor empty, cannot be written, or what was written does not answer the
            bundle's recorded requests as they were recorded; then ``out`` is left as it was.
    """
    opened = Bundle.open(bundle, variant=FP32)
    models = _models(opened)
    check_new(out)
    target = Path(os.path.realpath(out))
    staged = target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        for name, graph in models.items():
            _write_model(opened, graph, staged / name)
            _try_model(opened, graph, staged / name)
        for place, _, _ in os.walk(staged):
            os.chmod(place, 0o755)  # whoever serves is often not who exported
        os.rename(staged, target)
    except OSError as error:
        raise ExportError(f"cannot write the Triton model repository {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Path(out)


def check_new(out: str | os.PathLike[str]) -> None:
    """Refuses a place where something lies already.

    Raises:
        ExportError: if ``out`` is neither new nor an empty folder.
    """
    place = Path(out)
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise ExportError(f"{out} exists and is no empty folder; name a new one for the Triton model repository")


def model_name(model: str, graph: str) -> str:
    """A graph's name in Triton, a folder and a part of an address: what is no letter, digit, "_" or "-" becomes "-".

    >>> model_name("mypkg.mymodel:MyModel", "recommend")
    'mypkg-mymodel-MyModel_recommend'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{model}_{graph}").strip("-")


def config_text(signature: Signature, parameters: Mapping[str, str]) -> str:
    """The ``config.pbtxt`` of one graph.

    ``max_batch_size`` is 0, so that ``dims`` are whole shapes, -1 where a size is free: Triton's own batch axis would have
    to stand in front of every tensor. All tensors are stated, so that Triton completes nothing by itself.

    Args:
        signature: what the graph takes and gives.
        parameters: kept by Triton, and told to whoever asks for the model's configuration.
    """
    stated = [
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in parameters.items()
    ]
    return "\n".join(
        [
            'backend: "onnxruntime"',
            'platform: "onnxruntime_onnx"',
            'default_model_filename: "model.onnx"',
            "max_batch_size: 0",
            *[_tensor("input", spec) for spec in signature.inputs],
            *[_tensor("output", spec) for spec in signature.outputs],
            NO_TF32,
            *stated,
            "",
        ]
    )


def _models(bundle: Bundle) -> dict[str, str]:
    """Triton's names of the graphs, and the bundle's."""
    manifest = bundle.manifest
    model = str(manifest.model.get("name", manifest.kind))
    models = {model_name(model, graph): graph for graph in manifest.graphs}
    if len(models) < len(manifest.graphs):
        raise ExportError(f"the graphs {', '.join(manifest.graphs)} would share a folder: {', '.join(models)}")
    return models


def _write_model(bundle: Bundle, graph: str, folder: Path) -> None:
    content = bundle.bytes(bundle.manifest.graphs[graph][FP32])
    parameters = {"genrec.digest": bundle.digest, "genrec.graph": graph}
    files: dict[str, bytes | memoryview] = {
        "config.pbtxt": config_text(bundle.manifest.signature[graph], parameters).encode(),
        "manifest.json": (bundle.path / "manifest.json").read_bytes(),
        GRAPH_FILE: content,
    }
    items = [name for name, entry in bundle.manifest.files.items() if entry.role == "items"]
    files |= {name: bundle.files[name].data for name in items}
    files |= {f"{GRAPH_FOLDER}/{name}": bundle.files[name].data for name in _weights(content) & bundle.files.keys()}
    (folder / GRAPH_FOLDER).mkdir(parents=True)
    for name, blob in files.items():
        (folder / name).write_bytes(blob)
        (folder / name).chmod(0o644)


def _weights(graph: bytes) -> set[str]:
    """The files in which a graph's large tensors lie."""
    tensors = onnx.load_model_from_string(graph).graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def _try_model(bundle: Bundle, graph: str, folder: Path) -> None:
    """Opens a written model as Triton's backend does, by its path, and replays the recorded requests.

    Raises:
        ExportError: if onnxruntime does not open it, Triton would not take its configuration, or an answer differs.
    """
    signature, tolerance = bundle.manifest.signature[graph], bundle.manifest.tolerance
    session = _session(folder / GRAPH_FILE)
    check_session(graph, signature, session)
    shapes = {tensor.name: tensor.shape for tensor in session.get_outputs()}
    for spec in signature.outputs:
        if _dims(spec.axes) != _dims(shapes[spec.name]):  # Triton has outputs agree to the letter, and inputs not
            raise ExportError(
                f"graph {graph!r} gives {spec.name} as {shapes[spec.name]}, the manifest says {spec.axes}"
            )
    for inputs, expected in bundle.golden(graph):
        found = dict(zip(shapes, session.run(list(shapes), inputs), strict=True))
        difference = compare_outputs(graph, found, expected, tolerance)
        if not difference.same:
            raise ExportError(
                f"graph {graph!r}, written for Triton, answers a recorded request differently: error "
                f"{difference.error:.3g}, {difference.excess:.1f} times the tolerance, in row {difference.row}"
            )


def _session(path: Path) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    except Exception as error:  # onnxruntime raises many types
        raise ExportError(f"onnxruntime does not open what was written for Triton: {error}") from error


def _tensor(field: str, spec: TensorSpec) -> str:
    return "\n".join(
        [
            f"{field} {{",
            f"  name: {_quoted(spec.name)}",
            f"  data_type: {_data_type(spec.dtype)}",
            f"  dims: {_dims(spec.axes)}  # {_quoted(list(spec.axes))}",
            "}",
        ]
    )


def _data_type(dtype: str) -> str:
    return "TYPE_" + dtype.upper().replace("FLOAT", "FP")


def _dims(axes: Any) -> list[int]:
    return [axis if isinstance(axis, int) else -1 for axis in axes]


def _quoted(value: Any) -> str:
    """As the text format of protobuf reads it; no line break is left."""
    return json.dumps(value, ensure_ascii=False)
