"""The model repository for Triton: read by its schema, run by onnxruntime, asked by the code of docs/triton.md."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import json_format, text_format
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from genrec_export import ExportError, TensorSpec, export_module
from genrec_export.report import npz
from genrec_export.triton import config_text, write_repository
from genrec_runtime import BundleCorrupt, BundleNotFound, Recommender
from genrec_runtime.bundle import Bundle
from genrec_runtime.checks import ONNX_TYPES
from genrec_runtime.compare import compare_outputs
from genrec_runtime.manifest import FileEntry, Signature, Tolerance, Variant
from recent import Blend
from tiny import ITEMS, Tiny

PAGE = (Path(__file__).parents[2] / "docs" / "triton.md").read_text(encoding="utf-8")
GRAPHS = ("recommend", "score", "encode", "item_vectors", "similar")
TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32", "bool": "TYPE_BOOL"}
GRAPH = "1/model.onnx/model.onnx"


@pytest.fixture(scope="session")
def schema() -> ModuleType:
    """Triton's schema as its client ships it; taken by its path, since the package around it needs grpc."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("triton_model_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def repository(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tiny bundle; not to be changed."""
    return write_repository(tiny.path, tmp_path_factory.mktemp("triton") / "repository")


@pytest.fixture
def copied(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to be changed."""
    return Path(shutil.copytree(tiny.path, tmp_path / "bundle"))


def change(folder: Path, contents: dict[str, bytes], **fields: Any) -> None:
    """Gives a bundle other files and other fields in its manifest, all consistent."""
    manifest = Bundle.read_manifest(folder)
    files = dict(manifest.files)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        files[name] = FileEntry(len(content), hashlib.sha256(content).hexdigest(), "graph")
    changed = dataclasses.replace(manifest, files=files, **fields).identified()
    (folder / "manifest.json").write_bytes(changed.to_json())


def expected_config(schema: ModuleType, signature: Signature, digest: str, graph: str) -> Any:
    """What the manifest says of a graph, in Triton's words."""
    config = schema.ModelConfig(
        backend="onnxruntime", platform="onnxruntime_onnx", default_model_filename="model.onnx", max_batch_size=0
    )
    for field, specs in ((config.input, signature.inputs), (config.output, signature.outputs)):
        for spec in specs:
            dims = [-1 if isinstance(axis, str) else axis for axis in spec.axes]
            field.add(name=spec.name, data_type=TYPES[spec.dtype], dims=dims)
    cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    cuda.parameters["use_tf32"] = "0"
    config.parameters["genrec.digest"].string_value = digest
    config.parameters["genrec.graph"].string_value = graph
    return config


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_configuration_says_in_the_schema_what_the_manifest_says(
    tiny: Tiny, repository: Path, schema: ModuleType, graph: str
) -> None:
    text = (repository / f"sasrec_{graph}" / "config.pbtxt").read_text(encoding="utf-8")
    digest = "sha256:" + hashlib.sha256((tiny.path / "manifest.json").read_bytes()).hexdigest()
    signature = tiny.exported.manifest.signature[graph]
    assert text_format.Parse(text, schema.ModelConfig()) == expected_config(schema, signature, digest, graph)


def test_the_axes_of_recommend_are_free_but_for_the_catalogue_and_the_list(
    repository: Path, schema: ModuleType
) -> None:
    text = (repository / "sasrec_recommend" / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, schema.ModelConfig())
    dims = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    rows = len(ITEMS) + 1
    assert dims == {
        "item_ids": [-1, -1],
        "exclude": [-1, -1],
        "available": [rows],
        "items": [-1, 20],
        "scores": [-1, 20],
    }


def test_of_an_item_the_batch_is_the_only_axis(repository: Path, schema: ModuleType) -> None:
    dims = {}
    for graph in ("item_vectors", "similar"):
        text = (repository / f"sasrec_{graph}" / "config.pbtxt").read_text(encoding="utf-8")
        config = text_format.Parse(text, schema.ModelConfig())
        assert config.max_batch_size == 0  # above it Triton would put the batch before each of these, available too
        dims[graph] = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    assert dims == {
        "item_vectors": {"item": [-1], "vectors": [-1, 12]},
        "similar": {"item": [-1], "available": [len(ITEMS) + 1], "items": [-1, 20], "scores": [-1, 20]},
    }


def test_the_configuration_on_the_page_is_the_one_written(repository: Path) -> None:
    (block,) = re.findall(r"```protobuf\n(.*?)```", PAGE, flags=re.DOTALL)
    text = (repository / "sasrec_recommend" / "config.pbtxt").read_text(encoding="utf-8")
    assert block == re.sub(r"sha256:[0-9a-f]{64}", "sha256:...", text)


def test_every_type_and_any_name_can_be_stated(schema: ModuleType) -> None:
    specs = tuple(TensorSpec(f'a "{dtype}"\n\\', dtype, ("batch\n}", 3)) for dtype in ONNX_TYPES)
    config = text_format.Parse(config_text(Signature(specs, specs[:1]), {'"\n': "x\ty"}), schema.ModelConfig())
    for tensor, spec in zip(config.input, specs, strict=True):
        assert tensor.name == spec.name
        assert schema.DataType.Name(tensor.data_type) == f"TYPE_{np_to_triton_dtype(np.dtype(spec.dtype))}"
        assert list(tensor.dims) == [-1, 3]
    assert config.parameters['"\n'].string_value == "x\ty"


@pytest.mark.parametrize("graph", GRAPHS)
def test_onnxruntime_answers_the_goldens_from_a_copy_of_the_repository(
    tiny: Tiny, repository: Path, tmp_path: Path, graph: str
) -> None:
    folder = shutil.copytree(repository / f"sasrec_{graph}", tmp_path / "renamed")
    session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    cases = Bundle.open(tiny.path).golden(graph)
    assert cases
    for inputs, expected in cases:
        found = dict(zip(names, session.run(names, inputs), strict=True))
        assert compare_outputs(graph, found, expected, tiny.exported.manifest.tolerance).same


def test_a_model_has_its_own_graph_weights_and_items_and_no_more(tiny: Tiny, repository: Path) -> None:
    items = {name: name for name, entry in tiny.exported.manifest.files.items() if entry.role == "items"}
    assert {"items.utf8", "items.offsets.npy", "cold_start.npy"} <= items.keys()
    for graph in GRAPHS:
        folder = repository / f"sasrec_{graph}"
        copies = {**items, "manifest.json": "manifest.json", GRAPH: f"{graph}.onnx"}
        copies["1/model.onnx/weights.bin"] = "weights.bin"
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert found == {*copies, "config.pbtxt"}
        for here, there in copies.items():
            assert (folder / here).read_bytes() == (tiny.path / there).read_bytes()
    assert {path.name for path in repository.iterdir()} == {f"sasrec_{graph}" for graph in GRAPHS}


def test_everybody_may_read_what_was_written(tiny: Tiny, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        out = write_repository(tiny.path, tmp_path / "private" / "repository")
    finally:
        os.umask(before)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (out, *out.rglob("*"))}
    assert modes == {True: 0o755, False: 0o644}


def test_variants_and_their_weights_stay_behind(copied: Path, tmp_path: Path) -> None:
    graphs = {graph: {"fp32": f"{graph}.onnx", "fp16": f"{graph}.fp16.onnx"} for graph in GRAPHS}
    other = {f"{graph}.fp16.onnx": b"of no use" for graph in GRAPHS} | {"weights.fp16.bin": b"nor this"}
    change(copied, other, graphs=graphs, variants={"fp16": Variant(tuple(other), Tolerance(1, 1), k=5, gate=0.5)})
    out = write_repository(copied, tmp_path / "out")
    assert (out / "sasrec_score" / GRAPH).read_bytes() == (copied / "score.onnx").read_bytes()
    assert not [path for path in out.rglob("*") if "fp16" in path.name]


def test_a_module_is_one_model_without_items(tmp_path: Path, schema: ModuleType) -> None:
    exported = export_module(
        Blend(5),
        inputs=[
            TensorSpec("features", "float32", ("batch", "time", 5)),
            TensorSpec("kept", "int64", ("batch", "time"), 0, 1),
        ],
        outputs=[TensorSpec("summed", "float32", ("batch", 5)), TensorSpec("distance", "float32", ("batch", "time"))],
        out=tmp_path / "store",
    )
    folder = write_repository(tmp_path / "store" / "current", tmp_path / "out") / "Blend_module"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.pbtxt", "manifest.json", GRAPH}  # its weights are small and lie in the graph
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), schema.ModelConfig())
    signature = exported.manifest.signature["module"]
    assert config == expected_config(schema, signature, Bundle.open(exported.path).digest, "module")
    session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    features, kept = torch.linspace(-1, 1, 30).reshape(2, 3, 5), torch.ones(2, 3, dtype=torch.int64)
    torch.manual_seed(0)
    summed, distance = session.run(["summed", "distance"], {"features": features.numpy(), "kept": kept.numpy()})
    expected = ((features - torch.linspace(-1, 1, 5)) ** 2).sum(dim=-1)
    assert summed.shape == (2, 5)
    np.testing.assert_allclose(distance, expected, rtol=1e-5)  # float32, in another order


def test_a_models_name_becomes_a_safe_folder_name(copied: Path, tmp_path: Path) -> None:
    change(copied, {}, model={"name": "../my zoo:Größe"})
    out = write_repository(copied, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {f"my-zoo-Gr-e_{graph}" for graph in GRAPHS}


def test_graphs_that_would_share_a_folder_are_refused(copied: Path, tmp_path: Path) -> None:
    manifest = Bundle.read_manifest(copied)
    graphs = {"recommend": {"fp32": "recommend.onnx"}, "a b": {"fp32": "encode.onnx"}, "a/b": {"fp32": "encode.onnx"}}
    change(
        copied,
        {},
        graphs=graphs,
        signature=dict.fromkeys(graphs, manifest.signature["encode"]) | manifest.signature,
    )
    with pytest.raises(
        ExportError, match="the graphs a b, a/b, recommend would share a folder: sasrec_a-b, sasrec_recommend"
    ):
        write_repository(copied, tmp_path / "out")


def test_what_is_no_bundle_is_refused_and_nothing_written(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="there is no bundle at"):
        write_repository(tmp_path / "nowhere", tmp_path / "out")
    with (copied / "weights.bin").open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(BundleCorrupt, match=r"weights.bin was changed"):
        write_repository(copied, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_in_use_or_a_file_is_refused_and_left_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    used, file, empty = tmp_path / "used", tmp_path / "file", tmp_path / "empty"
    (used / "resnet").mkdir(parents=True)
    file.write_text("mine")
    empty.mkdir()
    for out in (used, file):
        with pytest.raises(ExportError, match=rf"{out} exists and is no empty folder; name a new one"):
            write_repository(tiny.path, out)
    with pytest.raises(ExportError, match=r"cannot write the Triton model repository .*file/below: "):
        write_repository(tiny.path, file / "below")
    assert write_repository(tiny.path, empty) == empty
    assert (empty / "sasrec_recommend" / "config.pbtxt").is_file()
    assert file.read_text() == "mine"
    assert [path.name for path in used.iterdir()] == ["resnet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "used"]


def test_a_graph_that_answers_otherwise_than_recorded_is_not_left_behind(copied: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(copied / "golden" / "score.npz"))
    arrays["lengths.out.scores"][2, 3] += 0.01
    change(copied, {"golden/score.npz": npz(arrays)})
    with pytest.raises(ExportError, match=r"graph 'score', written for Triton, answers .* error 0.01, .* in row 2"):
        write_repository(copied, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_outputs_that_triton_would_refuse_are_refused(copied: Path, tmp_path: Path) -> None:
    manifest = Bundle.read_manifest(
        copied
    )  # a graph of a name of its own: the reader holds the known ones to their axes
    fixed = dataclasses.replace(manifest.signature["score"], outputs=(TensorSpec("scores", "float32", ("batch", 7)),))
    graphs = {**manifest.graphs, "more": manifest.graphs["score"]}
    change(copied, {}, graphs=graphs, signature={**manifest.signature, "more": fixed})
    with pytest.raises(ExportError, match=r"graph 'more' gives scores as \['batch', 'candidates'\], .* \('batch', 7\)"):
        write_repository(copied, tmp_path / "out")


def test_a_graph_that_onnxruntime_does_not_open_is_refused(copied: Path, tmp_path: Path) -> None:
    change(copied, {"encode.onnx": (copied / "encode.onnx").read_bytes().replace(b"weights.bin", b"weights.b1n")})
    with pytest.raises(ExportError, match=r"onnxruntime does not open what was written for Triton: .*weights\.b1n"):
        write_repository(copied, tmp_path / "out")


class StandIn(BaseHTTPRequestHandler):
    """As much of Triton's HTTP protocol as the page uses, its shape rule included; the models are run by onnxruntime."""

    protocol_version = "HTTP/1.1"
    repository: Path
    configs: dict[str, Any]  # the models' config.pbtxt as the schema reads it

    def do_GET(self) -> None:
        """A model's configuration."""
        (name,) = re.fullmatch(r"/v2/models/([^/]+)/config", self.path).groups()  # type: ignore[union-attr]
        config = json_format.MessageToDict(self.configs[name], preserving_proto_field_name=True)
        self._reply(200, json.dumps(config).encode())

    def do_POST(self) -> None:
        """One inference: JSON first, then the tensors' bytes in its order."""
        (name,) = re.fullmatch(r"/v2/models/([^/]+)/infer", self.path).groups()  # type: ignore[union-attr]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        start = int(self.headers["Inference-Header-Content-Length"])
        request = json.loads(body[:start])
        arrays = {}
        for tensor in request["inputs"]:
            end = start + tensor["parameters"]["binary_data_size"]
            array = np.frombuffer(body[start:end], triton_to_np_dtype(tensor["datatype"]))
            arrays[tensor["name"]], start = array.reshape(tensor["shape"]), end
        wrong = self._wrong(name, arrays)
        if wrong:
            return self._reply(400, json.dumps({"error": wrong}).encode())
        session = onnxruntime.InferenceSession(self.repository / name / GRAPH, providers=["CPUExecutionProvider"])
        names = [output["name"] for output in request["outputs"] if output["parameters"]["binary_data"]]
        answers = session.run(names, arrays)
        outputs = [
            {
                "name": output,
                "datatype": np_to_triton_dtype(answer.dtype),
                "shape": answer.shape,
                "parameters": {"binary_data_size": answer.nbytes},
            }
            for output, answer in zip(names, answers, strict=True)
        ]
        head = json.dumps({"model_name": name, "model_version": "1", "outputs": outputs}).encode()
        return self._reply(200, head + b"".join(answer.tobytes() for answer in answers), len(head))

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _wrong(self, name: str, arrays: dict[str, Any]) -> str:
        """What Triton checks of a request: names, types, and sizes where ``dims`` state one."""
        config = self.configs[name]
        if {tensor.name for tensor in config.input} != arrays.keys():
            return f"expected {len(config.input)} inputs"
        for tensor in config.input:
            array = arrays[tensor.name]
            fits = len(tensor.dims) == array.ndim and all(
                dim in (-1, size) for dim, size in zip(tensor.dims, array.shape, strict=True)
            )
            if not fits or TYPES[array.dtype.name] != json_format.MessageToDict(tensor)["dataType"]:
                return f"unexpected shape or type for input '{tensor.name}'"
        return ""

    def _reply(self, status: int, body: bytes, head: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if head is not None:
            self.send_header("Inference-Header-Content-Length", str(head))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(repository: Path, schema: ModuleType) -> Iterator[ThreadingHTTPServer]:
    """A stand-in for Triton on loopback, serving the repository."""
    configs = {
        folder.name: text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), schema.ModelConfig())
        for folder in repository.iterdir()
    }
    handler = type("Handler", (StandIn,), {"repository": repository, "configs": configs})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run_page(server: ThreadingHTTPServer, repository: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs the page's Python, and ``more`` lines after it, beside the repository, where torch and onnxruntime are missing."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert all(sum(1 for line in block.splitlines() if line.strip()) <= 15 for block in blocks)
    code = "\n".join(blocks).replace("localhost:8000", f"127.0.0.1:{server.server_address[1]}")
    absent = "import sys; sys.modules.update(torch=None, onnxruntime=None)"
    return subprocess.run(
        [sys.executable, "-c", "\n".join([absent, code, *more])],
        cwd=repository.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_page_recommends_what_the_runtime_does(tiny: Tiny, repository: Path, server: ThreadingHTTPServer) -> None:
    rows: Sequence[Sequence[Any]] = [*tiny.histories, ITEMS[:30], [], ["unheard of", 7], [*ITEMS[3:9], "gone"]]
    asked = f"print(json.dumps([recommend({json.dumps(rows)}, 20), recommend([], 3), recommend([[]], 3)]))"
    done = run_page(server, repository, asked)
    assert done.returncode == 0, done.stderr
    of_page, of_rows = done.stdout.splitlines()
    served = Recommender.load(tiny.path, device="cpu", threads=1)
    expected = served.recommend(rows, k=20).items
    assert len(expected[-4]) == len(ITEMS) - 30  # fewer are left than were asked for
    assert json.loads(of_rows) == [expected, [], served.recommend([[]], k=3).items]
    example = [["item 07", "item 31", "item 07"], ["item 02"], ["unheard of"], []]
    assert of_page == str(served.recommend(example, k=5).items)


def test_the_page_refuses_a_list_longer_than_the_graph_gives(repository: Path, server: ThreadingHTTPServer) -> None:
    done = run_page(server, repository, "recommend([[]], 21)")
    assert "ValueError: k (21) must lie in 1..20" in done.stderr


def test_the_page_stops_where_the_server_has_another_bundle(repository: Path, server: ThreadingHTTPServer) -> None:
    config = server.RequestHandlerClass.configs["sasrec_recommend"]  # type: ignore[attr-defined]
    config.parameters["genrec.digest"].string_value = "sha256:of another"
    done = run_page(server, repository)
    assert done.returncode == 1
    assert done.stderr.startswith("the server has sha256:of another, repository/sasrec_recommend is of sha256:")
