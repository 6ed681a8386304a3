import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genrec_runtime import Recommender
from genrec_runtime.cli import main
from tiny import Tiny


def call(*arguments: Any, stdin: str = "") -> Result:
    """Runs the command; a traceback would be an exception other than the exit."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def failed(*arguments: Any, stdin: str = "") -> str:
    """The one line on standard error of a command that ends with 1."""
    result = call(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- recommend


def test_recommend_after_the_items_of_the_command_line(tiny: Tiny, served: Recommender) -> None:
    result = call("recommend", tiny.path, "item 01", "item 02", "-k", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    (first, score), (second, _) = served.recommend([["item 01", "item 02"]], k=2).to_list()[0]
    lines = result.stdout.splitlines()
    assert lines[0] == "after item 01, item 02  [model]"
    assert lines[1].split() == f"1 {score:.4f} {first} Title of {first}".split()
    assert lines[2].split()[0] == "2"
    assert lines[2].endswith(f"{second}  Title of {second}")


def test_recommend_after_several_histories(tiny: Tiny, served: Recommender) -> None:
    found = rows(call("recommend", tiny.path, "--history", "item 01,item 02", "--history", "item 05", "--json"))
    answer = served.recommend([["item 01", "item 02"], ["item 05"]])
    assert [row["items"] for row in found] == answer.items
    assert [row["status"] for row in found] == ["model", "model"]
    for row, scores in zip(found, answer.scores, strict=True):
        assert row["scores"] == pytest.approx(scores.tolist(), rel=1e-5)


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_recommend_after_a_file_of_histories(tiny: Tiny, served: Recommender, tmp_path: Path, stdin: bool) -> None:
    text = '["item 01"]\n\n[]\n["item 36", "?"]\n'
    (tmp_path / "h.jsonl").write_text(text)
    found = call("recommend", tiny.path, "--file", "-" if stdin else tmp_path / "h.jsonl", "--json", stdin=text)
    assert [row["items"] for row in rows(found)] == served.recommend([["item 01"], [], ["item 36"]]).items
    assert [row["status"] for row in rows(found)] == ["model", "cold_start", "model"]


def test_recommend_without_a_history_gives_the_most_popular(tiny: Tiny) -> None:
    lines = call("recommend", tiny.path).stdout.splitlines()
    assert lines[0] == "after nothing  [cold_start]"
    assert "item 36" in lines[1]


def test_recommend_again_what_was_seen(tiny: Tiny, served: Recommender) -> None:
    history = ["item 01", "item 02"]
    found = rows(call("recommend", tiny.path, *history, "--include-seen", "--json"))
    assert found[0]["items"] == served.recommend([history], exclude_seen=False).items[0]


def test_an_unknown_item_is_noted_on_standard_error(tiny: Tiny) -> None:
    result = call("recommend", tiny.path, "item 01", "nothing", "-k", 1)
    assert result.exit_code == 0
    assert result.stderr == "unknown to the bundle and left out: 1 of the history's ids\n"


@pytest.mark.filterwarnings("default:.*unknown to the bundle:UserWarning")
def test_a_warning_is_one_line_too(tiny: Tiny) -> None:
    result = call("recommend", tiny.path, *map(str, range(20)), "-k", 1)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == (
        "warning: 20 of 20 item ids are unknown to the bundle: got str like '0', the bundle has str like 'item 00'"
    )


def test_int_ids_are_read_as_numbers(numbers: Path) -> None:
    expected = Recommender.load(numbers, device="cpu", threads=1).recommend([[3, 0, -7]], k=3).items
    assert rows(call("recommend", numbers, "--json", "-k", 3, "--", 3, 0, -7))[0]["items"] == expected[0]
    assert rows(call("recommend", numbers, "--json", "-k", 3, "--history=3,0,-7"))[0]["items"] == expected[0]
    plain = call("recommend", numbers, 3, 0, "-k", 1).stdout.splitlines()
    assert plain[0] == "after 3, 0  [model]"
    assert len(plain[1].split()) == 3  # place, score, id: there are no titles


@pytest.mark.parametrize("text", ["abc", "3.0", "1_000", " 3", "0x3", "9" * 5000, "٣"])
def test_what_is_no_whole_number_is_an_unknown_item_of_an_int_catalogue(numbers: Path, text: str) -> None:
    result = call("recommend", numbers, text, "-k", 1, "--json")
    assert json.loads(result.stdout)["status"] == "all_unknown"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", 0], "k (0) must be a whole number of at least 1"),
        (["-k", 21], "k (21) is above this bundle's 20; export with --k-max 21"),
        (["--device", "cdua"], "device ('cdua') must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (["--file", "no/such/file"], "No such file or directory"),
        (["--file", "."], "Is a directory"),
    ],
)
def test_a_request_that_cannot_be_answered_ends_with_1_and_one_line(
    tiny: Tiny, arguments: list[Any], message: str
) -> None:
    assert message in failed("recommend", tiny.path, *arguments)


def test_fault_83_a_gpu_that_is_not_there_ends_with_1_and_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec_runtime.device.count_gpus", lambda: "there is no NVIDIA driver")
    for command in (["recommend"], ["similar", "item 01"], ["verify"]):
        message = failed(command[0], tiny.path, *command[1:], "--device", "cuda")
        assert "device 'cuda' cannot be used" in message


def test_a_file_of_histories_may_hold_anything(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "h.jsonl"
    for text, message in (
        ('["item 01"]\n[1.5]\n', "histories[1]: an item id must be an int or a string, got 1.5"),
        ("[NaN]\n", "got nan"),
        ("[[]]\n", "got []"),
        ("[true]\n", "got True"),
    ):
        file.write_text(text)
        assert message in failed("recommend", tiny.path, "--file", file)
    file.write_bytes(b'["\xff"]\n')
    assert "'utf-8' codec" in failed("recommend", tiny.path, "--file", file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["item 01"]\n["item', "line 2 is no JSON"),
        ('{"items": []}', "line 1 must be a JSON list of item ids"),
        ('"item 01"', "line 1 must be a JSON list"),
        ("[" * 100_000, "line 1 is no JSON"),
    ],
)
def test_a_line_that_is_no_list_is_misuse(tiny: Tiny, text: str, message: str) -> None:
    result = call("recommend", tiny.path, "--file", "-", stdin=text)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["recommend"],
        ["recommend", "B", "-k", "many"],
        ["recommend", "B", "--nonsense"],
        ["similar", "B"],
        ["inspect"],
        ["verify", "B", "C"],
        ["nonsense"],
    ],
)
def test_misuse_ends_with_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_two_sources_of_histories_are_misuse(tiny: Tiny) -> None:
    result = call("recommend", tiny.path, "item 01", "--history", "item 02")
    assert result.exit_code == 2
    assert "give ITEMS, --history or --file, one of them" in result.stderr


# --- similar


def test_similar_lists_for_each_item_those_like_it_with_titles(tiny: Tiny, served: Recommender) -> None:
    result = call("similar", tiny.path, "item 03", "item 01", "-k", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = []
    for item, pairs in zip(["item 03", "item 01"], served.similar(["item 03", "item 01"], k=2).to_list(), strict=True):
        expected.append(f"like {item}")
        expected += [f"{place} {score:.4f} {i} Title of {i}" for place, (i, score) in enumerate(pairs, start=1)]
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == expected


def test_similar_as_json_is_an_object_an_item(tiny: Tiny, served: Recommender) -> None:
    answer = served.similar(["item 05", "item 05"])
    for row, items, scores in zip(
        rows(call("similar", tiny.path, "item 05", "item 05", "--json")), answer.items, answer.scores, strict=True
    ):
        assert row == {"item": "item 05", "items": items, "scores": pytest.approx(scores.tolist(), abs=1e-6)}


def test_similar_reads_int_ids_as_numbers(numbers: Path) -> None:
    expected = Recommender.load(numbers, device="cpu", threads=1).similar([-7, 100], k=3).items
    found = rows(call("similar", numbers, "--json", "-k", 3, "--", -7, 100))
    assert [row["items"] for row in found] == expected
    assert [row["item"] for row in found] == [-7, 100]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["item 01", "item 99"], "items holds 'item 99', which the catalogue does not have"),
        (["item 01", "-k", 0], "k (0) must be a whole number of at least 1"),
    ],
)
def test_similar_items_of_what_is_none_end_with_1_and_one_line(tiny: Tiny, arguments: list[Any], message: str) -> None:
    assert message in failed("similar", tiny.path, *arguments)


# --- inspect and verify


@pytest.mark.parametrize("command", ["recommend", "similar", "inspect", "verify"])
def test_a_missing_bundle_ends_with_1_and_one_line(tmp_path: Path, command: str) -> None:
    items = ["item 01"] * (command == "similar")
    assert "there is no bundle at" in failed(command, tmp_path / "none", *items)
    (tmp_path / "store").mkdir()
    assert "holds no manifest.json" in failed(command, tmp_path / "store", *items)


@pytest.mark.parametrize("command", ["recommend", "inspect", "verify"])
def test_a_damaged_bundle_ends_with_1_and_names_the_file(copied: Path, command: str) -> None:
    (copied / "weights.bin").write_bytes(b"")
    assert "weights.bin has 0 bytes, the manifest says" in failed(command, copied)


def test_inspect_shows_what_is_in_a_bundle(tiny: Tiny, features: Path) -> None:
    text = call("inspect", tiny.path).stdout
    assert "37 with str ids" in text
    assert "graph recommend" in text
    assert json.loads(call("inspect", tiny.path, "--json").stdout) == json.loads(
        (tiny.path / "manifest.json").read_bytes()
    )
    assert "graph module" in call("inspect", features).stdout


def test_verify_says_what_was_checked(tiny: Tiny) -> None:
    result = call("verify", tiny.path, "--device", "cpu")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].endswith("bytes: all hashes agree")
    graphs = {line.split()[1].rstrip(":") for line in lines if line.startswith("golden")}
    assert graphs == set(tiny.exported.manifest.graphs)
    assert lines[-1].startswith("sha256:")
    assert call("verify", tiny.path, "--expect-digest", lines[-1]).exit_code == 0
    assert "manifest.json has sha256:" in failed("verify", tiny.path, "--expect-digest", "sha256:0")


def test_verify_notes_what_does_not_belong_to_the_bundle(copied: Path) -> None:
    (copied / "nohup.out").touch()
    result = call("verify", copied)
    assert result.exit_code == 0
    assert result.stderr == "not part of the bundle, and never read: nohup.out\n"


def test_fault_76_verify_ends_with_1_where_a_golden_differs(
    copied: Path, reseal: Callable[..., None], tmp_path: Path
) -> None:
    shutil.copy(copied / "golden" / "recommend.npz", tmp_path / "kept.npz")
    weights = bytearray((copied / "weights.bin").read_bytes())
    weights[3::4] = bytes(byte ^ 0x80 for byte in weights[3::4])  # every sign
    (copied / "weights.bin").write_bytes(weights)
    reseal(copied)
    assert "answers the golden requests differently here" in failed("verify", copied)


def test_a_module_cannot_recommend(features: Path) -> None:
    assert "is a bundle of kind 'module'" in failed("recommend", features)
    assert "is a bundle of kind 'module'" in failed("similar", features, "a")


def test_help_and_version_are_there() -> None:
    said = call("--help").stdout
    for command in (
        "recommend",
        "similar",
        "inspect",
        "verify",
        "doctor",
        "bench",
        "list",
        "promote",
        "rollback",
        "prune",
        "diff",
    ):
        assert f"\n  {command} " in said
    assert call("--version").exit_code == 0
