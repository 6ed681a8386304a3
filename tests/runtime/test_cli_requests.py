"""JSON lines of requests: lists of ids, or objects with times and users, for ``recommend`` and ``bench``."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genrec_runtime import Recommender
from genrec_runtime.cli import main
from genrec_runtime.cli_options import read_requests
from timed import write_timed
from tiny import Tiny

LINES: list[Any] = [
    {"history": ["item 1", "?", "item 3"], "timestamps": [10, 20, 30], "request_time": 99, "user": "ann"},
    {"history": [], "user": 5},
    {"history": ["item 2"], "timestamps": [7]},
    [],
]


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that reads times and users."""
    return write_timed(tmp_path_factory.mktemp("timed") / "bundle")


def call(*arguments: Any, lines: list[Any]) -> Result:
    """Runs the command with JSON lines on standard input; a traceback would be an exception other than the exit."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_objects_ask_with_times_and_users(timed: Path) -> None:
    expected = Recommender.load(timed, device="cpu", threads=1).recommend(
        [["item 1", "?", "item 3"], [], ["item 2"], []],
        timestamps=[[10, 20, 30], [], [7], []],
        request_time=[99, None, None, None],
        users=["ann", 5, None, None],
    )
    result = call("recommend", timed, "--file", "-", "--json", "--device", "cpu", lines=LINES)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["items"] for row in found] == expected.items
    assert [row["status"] for row in found] == ["model", "cold_start", "model", "cold_start"]
    plain = call("recommend", timed, "--file", "-", "--device", "cpu", lines=LINES)
    assert "after item 2  [model]" in plain.stdout.splitlines()


def test_objects_with_a_history_alone_are_lists(tiny: Tiny, served: Recommender) -> None:
    lines: list[Any] = [{"history": ["item 01"]}, ["item 02"]]
    result = call("recommend", tiny.path, "--file", "-", "--json", lines=lines)
    found = [json.loads(line)["items"] for line in result.stdout.splitlines()]
    assert found == served.recommend([["item 01"], ["item 02"]]).items


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["item 1"], "this model reads when events were: pass timestamps"),
        ({"history": ["item 1"], "timestamps": [1.5]}, "timestamps[0][0] is 1.5 (float)"),
        ({"history": ["item 1"], "timestamps": [1], "user": [2]}, "users[0] is [2] (list)"),
        ({"history": ["item 1"], "timestamps": [1, 2]}, "timestamps[0] has 2 times for the 1 ids of histories[0]"),
    ],
)
def test_a_request_that_does_not_fit_ends_with_1_and_one_line(timed: Path, line: Any, message: str) -> None:
    result = call("recommend", timed, "--file", "-", lines=[line])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert message in result.stderr


def test_a_line_without_times_among_others_is_named(timed: Path) -> None:
    result = call("recommend", timed, "--file", "-", lines=[*LINES, ["item 2"]])
    assert result.exit_code == 1
    assert "timestamps[4] must be a list of times, got None" in result.stderr


def test_times_for_a_model_that_reads_none_are_refused(tiny: Tiny) -> None:
    result = call("recommend", tiny.path, "--file", "-", lines=[{"history": ["item 01"], "timestamps": [1]}])
    assert result.exit_code == 1
    assert "this model takes no timestamps" in result.stderr


@pytest.mark.parametrize("command", [["recommend", "--file"], ["bench", "--histories"]])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"timestamps": [1]}, 'line 2 must be a JSON list of item ids, or an object with such a list as "history"'),
        ({"history": "item 1"}, "line 2 must be a JSON list of item ids, or an object"),
        (5, "line 2 must be a JSON list of item ids, or an object"),
        (
            {"history": [], "timestamp": [], "who": 1},
            "line 2 has timestamp, who; an object may have history, timestamps, request_time, user",
        ),
    ],
)
def test_a_line_that_is_no_request_is_misuse(timed: Path, command: list[str], line: Any, message: str) -> None:
    result = call(command[0], timed, command[1], "-", lines=[[], line])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_only_arguments_that_some_line_has_are_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('["a"]\n\n{"history": ["b", 1], "user": null}\n')
    assert read_requests(file) == {"histories": [["a"], ["b", 1]], "users": [None, None]}
    file.write_text('["a"]\n[]\n')
    assert read_requests(file) == {"histories": [["a"], []]}
    file.write_text("")
    assert read_requests(file) == {"histories": []}


def test_bench_asks_with_the_times_of_a_file_and_draws_those_that_are_not_given(timed: Path) -> None:
    quick = ["--seconds", 0.01, "--device", "cpu", "--threads", 1, "--batches", 2, "--json"]
    for options, lines in (([], []), (["--histories", "-"], LINES), (["--histories", "-"], [["item 1"], ["item 2"]])):
        result = call("bench", timed, *quick, *options, lines=lines)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["cells"][0]["batch"] == 2
    spoilt = call("bench", timed, *quick, "--histories", "-", lines=[{"history": ["item 1"], "timestamps": [1, 2]}])
    assert "timestamps[0] has 2 times for the 1 ids" in spoilt.stderr
