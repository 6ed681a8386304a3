"""Looking at a bundle: is it whole, does it answer here as it did when exported, and what is in it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import Difference
from genrec_runtime.device import DeviceReport
from genrec_runtime.engine import Engine
from genrec_runtime.manifest import FP32
from genrec_runtime.options import Options


@dataclass(frozen=True)
class Verified:
    """What ``verify`` saw.

    Attributes:
        digest: "sha256:..." of the manifest.
        files: how many files were hashed.
        size: their bytes.
        undeclared: files in the folder that the manifest does not list; nothing reads them.
        device: where the golden requests were replayed.
        differences: by file, such as "recommend" or "recommend.int8", the worst difference to the recorded answers.
    """

    digest: str
    files: int
    size: int
    undeclared: tuple[str, ...]
    device: DeviceReport
    differences: dict[str, Difference]


def verify(path: str | os.PathLike[str], *, device: str = "cpu", expect_digest: str | None = None) -> Verified:
    """Hashes every file of a bundle and replays its golden requests on this machine, in every variant.

    Raises:
        BundleError: if a file is missing or changed.
        InferenceError: if an answer differs by more than the bundle's tolerance.
        DeviceUnavailable: if the device does not start.
    """
    bundle = Bundle.open(path, expect_digest=expect_digest)
    engine = Engine(bundle, Options(device))
    differences = engine.replay()
    for variant in bundle.manifest.variants:
        differences |= Engine(bundle, Options(device, variant=variant)).replay()
    if bundle.manifest.kind == "recommender":
        bundle.catalogue()
    size = sum(entry.size for entry in bundle.manifest.files.values())
    return Verified(bundle.digest, len(bundle.files), size, _undeclared(bundle), engine.report, differences)


def describe(path: str | os.PathLike[str]) -> str:
    """A bundle in words, one fact a line, for people.

    Raises:
        BundleError: if the bundle is missing or damaged.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    lines = [
        ("path", str(bundle.path)),
        ("kind", manifest.kind),
        ("model", str(manifest.model.get("name", "?"))),
        ("version", manifest.version),
        ("digest", bundle.digest),
        ("created", manifest.created),
        ("format", ".".join(map(str, manifest.format_version))),
        ("capabilities", ", ".join(manifest.capabilities) or "-"),
        ("variants", ", ".join((FP32, *manifest.variants))),
    ]
    if manifest.semantics is not None:
        semantics, defaults = manifest.semantics, manifest.defaults
        lines += [
            ("items", f"{semantics.num_items:,} with {bundle.catalogue().items.kind} ids"),
            ("history", f"newest {semantics.max_seq_length}, padded {semantics.padding}, window {semantics.window}"),
            ("k", f"{defaults.k} by default, up to {semantics.k_max}"),
            ("seen items", "left out" if defaults.exclude_seen else "may come again"),
            ("unknown items", defaults.on_unknown),
        ]
    for graph, signature in manifest.signature.items():
        inputs = ", ".join(f"{t.name} {t.dtype}({', '.join(map(str, t.axes))})" for t in signature.inputs)
        outputs = ", ".join(f"{t.name} {t.dtype}({', '.join(map(str, t.axes))})" for t in signature.outputs)
        lines.append((f"graph {graph}", f"{inputs} -> {outputs}"))
    lines += [(f"file {name}", f"{entry.size:,} bytes, {entry.role}") for name, entry in sorted(manifest.files.items())]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _undeclared(bundle: Bundle) -> tuple[str, ...]:
    """Hidden ones left out: where files come from a config map or over a network, the system adds such."""
    listed = {*bundle.files, "manifest.json", "golden"}
    names = [path.relative_to(bundle.path) for place in ("*", "golden/*") for path in bundle.path.glob(place)]
    return tuple(sorted(n.as_posix() for n in names if n.as_posix() not in listed and not n.name.startswith(".")))
