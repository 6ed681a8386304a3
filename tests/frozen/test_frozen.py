"""Bundles of every version of the format so far, frozen: read and replayed for ever, by this runtime and by later ones."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from frozen.replay import look, replay
from genrec_runtime import BundleCorrupt, Unsupported, load
from genrec_runtime.bundle import Bundle
from genrec_runtime.manifest import FORMAT_VERSION, Tolerance, content_of, identity

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Nobody freezes a version twice: where one of these is another, a frozen file was changed, and not the code that reads it.
FROZEN = {
    "1.0/recommender": "sha256:4e7b7eff343e73b93cba7ef335952a3538fffdbd36a7f09625f2b339f99991b0",
    "1.0/module": "sha256:087b70d12af95ddfe75a36b49905703b7027515b64f0644b4106ca69ab2a8d3c",
}
ANSWERS = {"1.0": "d96801608b992967164827d52d0094ca90d3710fe7522cd8c9d5a9dc6538ef53"}
KINDS = pytest.mark.parametrize("name", FROZEN)


def asked(name: str) -> list[dict[str, Any]]:
    """The calls of a frozen bundle, with their answers."""
    version, kind = name.split("/")
    return json.loads((HERE / version / "answers.json").read_bytes())[kind]


def later_runtime(folder: Path, major: int) -> Path:
    """A copy of this runtime that calls itself ``major``.3.0, and its format ``major``.0; the folder to import it from."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "runtime" / "genrec_runtime", folder / "genrec_runtime", ignore=ignored)
    for part in ("histories", "metrics"):  # what a runtime takes of the core
        shutil.copytree(ROOT / "genrec" / part, folder / "genrec" / part, ignore=ignored)
    shutil.copy(ROOT / "genrec" / "__init__.py", folder / "genrec")
    for name, pattern, text in (
        ("genrec/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{major}.3.0"'),
        ("genrec_runtime/manifest.py", r"^FORMAT_VERSION = \(\d+, \d+\)$", f"FORMAT_VERSION = ({major}, 0)"),
    ):
        changed, count = re.subn(pattern, text, (folder / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert count == 1, name
        (folder / name).write_text(changed, encoding="utf-8")
    return folder


def look_with(runtime: Path, name: str) -> subprocess.CompletedProcess[str]:
    """``look`` at a frozen bundle, in a process that finds another runtime first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(runtime), *sys.path])}
    command = [sys.executable, str(HERE / "replay.py"), str(HERE / name)]
    return subprocess.run(command, input=json.dumps(asked(name)), env=environment, capture_output=True, text=True)


def look_later(name: str, folder: Path) -> dict[str, Any]:
    """What a runtime of the next major version sees."""
    done = look_with(later_runtime(folder, 2), name)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["genrec"] == "2.3.0"
    return seen


LOOKS = {"this runtime": lambda name, folder: look(HERE / name, asked(name)), "a runtime 2.x": look_later}


def same(found: Any, expected: Any, tolerance: Tolerance) -> bool:
    """Whether answers agree: a list of floats within the tolerance of its largest, all else exactly."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list) and len(found) != len(expected):
        return False
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        allowed = tolerance.atol + tolerance.rtol * max(map(abs, expected))
        return all(abs(a - b) <= allowed for a, b in zip(found, expected, strict=True))
    if isinstance(expected, list):
        return all(same(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    return bool(found == expected)


@KINDS
def test_frozen_files_are_those_that_were_frozen(name: str) -> None:
    bundle = Bundle.open(HERE / name, expect_digest=FROZEN[name])
    assert {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()} == {
        *bundle.manifest.files,
        "manifest.json",
    }


def test_what_they_are_asked_is_frozen_too() -> None:
    for version, digest in ANSWERS.items():
        assert hashlib.sha256((HERE / version / "answers.json").read_bytes()).hexdigest() == digest


def test_every_minor_version_up_to_this_one_is_frozen_in_both_kinds() -> None:
    major, newest = FORMAT_VERSION
    wanted = {f"{major}.{minor}/{kind}" for minor in range(newest + 1) for kind in ("recommender", "module")}
    assert wanted <= set(FROZEN)
    assert set(FROZEN) == {path.parent.relative_to(HERE).as_posix() for path in HERE.glob("*/*/manifest.json")}
    for name in FROZEN:
        assert ".".join(map(str, Bundle.read_manifest(HERE / name).format_version)) == name.split("/")[0]


@pytest.mark.parametrize("looking", LOOKS)
@KINDS
def test_a_frozen_bundle_answers_as_it_did_in_every_variant(name: str, looking: str, tmp_path: Path) -> None:
    manifest = Bundle.read_manifest(HERE / name)
    seen = LOOKS[looking](name, tmp_path)
    files = {file.removesuffix(".onnx") for files in manifest.graphs.values() for file in files.values()}
    assert seen["excess"].keys() == files
    assert max(seen["excess"].values()) <= 1
    assert list(seen["answers"]) == ["fp32", *manifest.variants]
    for variant, answers in seen["answers"].items():
        for call, answer in zip(asked(name), answers, strict=True):
            assert same(answer, call["answer"], manifest.tolerance_of(variant)), (variant, call["method"])


@KINDS
def test_a_runtime_two_majors_later_refuses_with_both_versions_and_what_to_do(name: str, tmp_path: Path) -> None:
    done = look_with(later_runtime(tmp_path, 3), name)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"genrec_runtime.errors.BundleVersionError: the bundle has format {name.split('/')[0]}, this runtime reads majors "
        "3, 2; upgrade genrec, or export the model again"
    )


def changed(name: str, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a frozen bundle with another, consistent manifest."""
    copy = Path(shutil.copytree(HERE / name, folder / "bundle"))
    data = json.loads((copy / "manifest.json").read_bytes())
    change(data)
    data["content_id"] = content_of(data)
    data["bundle_id"] = identity(data)
    (copy / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    return copy


def parts(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of a manifest that has fields."""
    yield from (data, data["defaults"], data["tolerance"], *data["files"].values())
    yield from [data["semantics"]] if data["semantics"] else []
    for variant in data["variants"].values():
        yield from (variant, variant["tolerance"])
    for weights in data["weights"].values():
        yield from weights
    for signature in data["signature"].values():
        yield from (signature, *signature["inputs"], *signature["outputs"])


def to_1_7(data: dict[str, Any]) -> None:
    """What a later minor version may do: fields at every level, a file of an unknown role, a capability."""
    for part in list(parts(data)):
        part["novelty"] = {"of": [1.5, None, "a later version"]}
    data["format_version"] = [1, 7]
    data["capabilities"].append("novelty")
    data["files"]["novelty.bin"] = {"size": 3, "sha256": hashlib.sha256(b"new").hexdigest(), "role": "novelty"}


@KINDS
def test_a_minor_version_that_is_newer_is_read_and_what_it_adds_ignored(name: str, tmp_path: Path) -> None:
    copy = changed(name, tmp_path, to_1_7)
    (copy / "novelty.bin").write_bytes(b"new")
    manifest = Bundle.read_manifest(copy)
    assert manifest.format_version == (1, 7)
    assert manifest.signature == Bundle.read_manifest(HERE / name).signature
    for variant in ("fp32", *manifest.variants):
        for call, answer in zip(asked(name), replay(copy, variant, asked(name)), strict=True):
            assert same(answer, call["answer"], manifest.tolerance_of(variant))
    text = (copy / "manifest.json").read_text(encoding="utf-8")
    (copy / "manifest.json").write_text(text.replace("a later version", "another one"), encoding="utf-8")
    with pytest.raises(BundleCorrupt, match="bundle_id is not that of its content"):
        load(copy, device="cpu")


@KINDS
def test_a_newer_minor_version_may_leave_more_out_of_what_names_a_bundle(name: str, tmp_path: Path) -> None:
    copy = changed(name, tmp_path, lambda data: data.update(format_version=[1, 7]))
    data = json.loads((copy / "manifest.json").read_bytes())
    data["content_id"] = "0" * 64
    data["bundle_id"] = identity(data)
    (copy / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    assert Bundle.read_manifest(copy).content_id == "0" * 64


@KINDS
def test_a_feature_of_a_newer_minor_version_that_must_be_understood_is_refused_by_name(
    name: str, tmp_path: Path
) -> None:
    copy = changed(name, tmp_path, lambda data: data.update(format_version=[1, 7], must_understand=["session_windows"]))
    with pytest.raises(Unsupported, match="needs session_windows, which this runtime does not have; upgrade genrec"):
        load(copy, device="cpu")


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_git_does_not_alter_a_frozen_byte_even_where_it_turns_line_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    origin = tmp_path / "origin"
    shutil.copytree(HERE, origin / "tests" / "frozen", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitattributes", origin)
    (origin / "text").write_bytes(b"a\nb\n")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    turning = ["-c", "core.autocrlf=true"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        [*who, "commit", "--quiet", "--message", "frozen"],
        ["clone", *turning, "--quiet", ".", str(tmp_path / "clone")],
    ):
        subprocess.run(["git", *command], cwd=origin, env=environment, check=True, capture_output=True)
    assert (tmp_path / "clone" / "text").read_bytes() == b"a\r\nb\r\n"  # so git really does it here
    for version in ANSWERS:
        for path in (HERE / version).rglob("*"):
            if path.is_file():
                assert (
                    tmp_path / "clone" / "tests" / "frozen" / path.relative_to(HERE)
                ).read_bytes() == path.read_bytes()
