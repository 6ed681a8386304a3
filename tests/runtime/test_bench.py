import dataclasses
import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from genrec_runtime import Recommender, benchview, load
from genrec_runtime import bench as benching
from genrec_runtime.bench import Bench, Cell, Plan, measure, summarise, time_calls
from genrec_runtime.benchview import headline, plot, table
from genrec_runtime.cli import main
from genrec_runtime.manifest import Signature, TensorSpec
from genrec_runtime.workload import FREE_AXIS, draw_histories, draw_inputs, make_workload
from timed import write_timed
from tiny import ITEMS, MAX_SEQ_LENGTH, Tiny

QUICK = ("--seconds", "0.01", "--device", "cpu")


def call(*arguments: Any, stdin: str | None = None) -> Result:
    """Runs the command; a traceback would be an exception other than the exit."""
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def made_up(p99: float | None = 9.5, memory: dict[str, int] | None = None) -> Bench:
    """A benchmark that nobody measured: two batches with one thread, the larger with two as well."""
    cells = (
        Cell(4, 1, 1500, 1.25, 2.5, 3200.0),
        Cell(64, 1, 90, 8.0, None, 8000.0),
        Cell(64, 2, 200, 5.0, p99, 12800.0),
    )
    device = {"asked": "auto", "providers": ("CPUExecutionProvider",), "onnxruntime": "1.2.3"}
    return Bench("net", "0123456789ab", "int8", "words", 3, 0.5, (), device, "Some CPU", "", memory, cells)


# --- timing


def test_percentiles_are_those_of_numpy() -> None:
    seconds = np.random.default_rng(0).gamma(2.0, 0.01, 257)
    cell = summarise(8, 2, seconds, wall=4.0)
    ordered = np.sort(seconds) * 1000
    assert cell.p50_ms == pytest.approx(ordered[128])  # the middle one of 257
    assert cell.p99_ms == pytest.approx(ordered[253] + 0.44 * (ordered[254] - ordered[253]))  # 0.99 * 256 = 253.44
    assert (cell.batch, cell.threads, cell.calls) == (8, 2, 257)
    assert cell.rows_per_second == 257 * 8 / 4.0


@pytest.mark.parametrize(("calls", "shown"), [(1, False), (99, False), (100, True)])
def test_p99_is_given_only_where_it_is_more_than_the_slowest_call(calls: int, shown: bool) -> None:
    cell = summarise(1, 1, np.arange(1.0, calls + 1), wall=1.0)
    assert (cell.p99_ms is not None) == shown
    assert cell.p50_ms == (calls + 1) / 2 * 1000


def test_every_client_calls_in_turn_and_each_call_is_timed_once() -> None:
    made: dict[int, list[int]] = {}  # by client
    together = threading.Barrier(3, timeout=60)

    def one(number: int) -> None:
        if threading.get_ident() not in made:
            together.wait()  # passed only where three call at a time
        made.setdefault(threading.get_ident(), []).append(number)

    calls = [functools.partial(one, number) for number in range(5)]
    taken, wall = time_calls(calls, clients=3, seconds=0.02)
    assert len(taken) == sum(map(len, made.values()))
    assert {numbers[0] for numbers in made.values()} == {0, 1, 2}
    for numbers in made.values():
        assert numbers == [(numbers[0] + i) % 5 for i in range(len(numbers))]
    assert 0 < taken.min() <= taken.max() <= wall


def test_a_call_longer_than_the_time_is_still_timed_and_counted_whole() -> None:
    taken, wall = time_calls([lambda: time.sleep(0.03)], clients=1, seconds=0.001)
    assert len(taken) == 1
    assert 0.03 <= taken[0] <= wall


def test_a_failing_call_ends_the_measurement_with_its_error() -> None:
    def fail() -> None:
        raise ValueError("no such item")

    with pytest.raises(ValueError, match="no such item"):
        time_calls([fail], clients=2, seconds=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": ()}, r"batches \(none\) must be whole numbers of at least 1"),
        ({"batches": (4, 0)}, r"batches \(4, 0\) must be"),
        ({"threads": (0,)}, r"threads \(0\) must be"),
        ({"threads": ()}, r"threads \(none\) must be"),
        ({"clients": 0}, r"clients \(0\) must be"),
        ({"length": 0}, r"length \(0\) must be"),
        ({"seconds": 0.0}, r"seconds \(0.0\) must be above 0"),
        ({"seconds": float("nan")}, r"seconds \(nan\)"),
        ({"seconds": float("inf")}, r"seconds \(inf\)"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**change)


# --- requests


def test_drawn_histories_are_of_the_catalogue_of_every_length_and_follow_the_cold_start_order(
    served: Recommender,
) -> None:
    rows = draw_histories(served, None, np.random.default_rng(0))
    assert {len(row) for row in rows} == set(range(1, MAX_SEQ_LENGTH + 1))
    counts = {item: sum(row.count(item) for row in rows) for item in ITEMS}
    order = [ITEMS[index - 1] for index in served.catalogue.cold_start]
    assert all(counts.values())
    places = np.arange(1, len(order) + 1)
    found = np.array([counts[item] for item in order])
    expected = found.sum() / places / (1 / places).sum()
    assert np.all(np.abs(found - expected) < 6 * np.sqrt(expected))  # six standard deviations of a count


def test_the_seed_and_the_length_decide_what_is_drawn(served: Recommender) -> None:
    one, same, other = (draw_histories(served, 9, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert {len(row) for row in one} == {9}


def test_long_histories_are_fewer_so_that_they_fit_in_memory(
    served: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec_runtime.workload.ITEMS", 1000)
    assert [len(row) for row in draw_histories(served, 400, np.random.default_rng(0))] == [400, 400]
    assert [len(row) for row in draw_histories(served, 4000, np.random.default_rng(0))] == [4000]


def test_calls_of_any_batch_ask_about_the_given_histories_in_order(
    tiny: Tiny, served: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(served, "recommend", lambda rows, k: asked.append((rows, k)))
    work = make_workload(served, tiny.histories, k=7)
    for calls in (work.calls(16), work.calls(100)):
        for one in calls:
            one()
    rows = tiny.histories  # 40 of them
    assert asked == [(rows[:16], 7), (rows[16:32], 7), (rows + rows + rows[:20], 7)]
    assert work.said == "7 of 37 items, histories of 1 to 14"


def test_times_and_users_are_drawn_for_a_model_that_reads_them(tmp_path: Path) -> None:
    reader = Recommender.load(write_timed(tmp_path / "bundle"), device="cpu", threads=1)
    work, same = make_workload(reader, length=4), make_workload(reader, length=4)
    asked, again = ([call.keywords for call in one.calls(7)] for one in (work, same))  # type: ignore[attr-defined]  # partials
    assert asked == again
    gaps = [np.diff(row) for request in asked for row in request["timestamps"]]
    assert all(len(gap) == 3 and gap.min() >= 1 for gap in gaps)
    assert max(gap.max() for gap in gaps) > 86_400 > 60 > min(gap.min() for gap in gaps)  # days apart, and seconds
    assert len({user for request in asked for user in request["users"]}) > 99
    assert all(request.keys() == {"timestamps", "users", "k"} for request in asked)
    work.calls(3)[0]()


def test_what_lies_beside_given_histories_is_asked_with_them(tmp_path: Path) -> None:
    reader = Recommender.load(write_timed(tmp_path / "bundle"), device="cpu", threads=1)
    histories = [["item 1"], ["item 2", "item 3"], []]
    beside: dict[str, Any] = {"timestamps": [[1], [2, 3], []], "request_time": [9, None, None]}
    first, second = make_workload(reader, histories, beside).calls(2)[:1] + make_workload(
        reader, histories, beside
    ).calls(4)
    assert first.keywords["timestamps"] == [[1], [2, 3]]  # type: ignore[attr-defined]  # partials
    assert second.keywords["request_time"] == [9, None, None, 9]  # type: ignore[attr-defined]
    assert len(second.keywords["users"]) == 4  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="timestamps has 1 rows for 3 histories"):
        make_workload(reader, histories, {"timestamps": [[1]]})


def test_a_modules_inputs_fit_its_signature() -> None:
    signature = Signature(
        inputs=(
            TensorSpec("ids", "int64", ("batch", "length"), 3, 5),
            TensorSpec("mask", "bool", ("batch", "length")),
            TensorSpec("x", "float32", ("batch", 2)),
            TensorSpec("share", "float64", ("length",), 1, 2),
        ),
        outputs=(),
    )
    drawn = draw_inputs(signature, {"batch": 50, "length": 4}, np.random.default_rng(0))
    assert {name: (array.shape, str(array.dtype)) for name, array in drawn.items()} == {
        "ids": ((50, 4), "int64"),
        "mask": ((50, 4), "bool"),
        "x": ((50, 2), "float32"),
        "share": ((4,), "float64"),
    }
    assert np.unique(drawn["ids"]).tolist() == [3, 4, 5]
    assert np.unique(drawn["mask"]).tolist() == [False, True]
    assert drawn["share"].min() >= 1
    assert drawn["share"].max() <= 2
    assert drawn["x"].min() < 0 < drawn["x"].max()


@pytest.mark.parametrize(("length", "expected"), [(None, 5), (2, 2)], ids=["its limit", "given"])
def test_a_modules_free_axes_are_as_long_as_its_limit_or_as_asked(
    features: Path, length: int | None, expected: int
) -> None:
    work = make_workload(load(features, device="cpu", threads=1), length=length)
    outputs = work.calls(3)[0]()
    assert isinstance(outputs, dict)
    assert outputs["kept"].shape == (3, expected)
    assert work.said == f"random inputs, length {expected}"


def test_a_free_axis_without_a_limit_has_a_usual_length(write_module: Callable[..., Path], tmp_path: Path) -> None:
    from onnx import helper

    ids, same = (TensorSpec(name, "int64", ("rows", "width"), 0, 9) for name in ("ids", "same"))
    nodes = [helper.make_node("Identity", ["ids"], ["same"])]
    golden = {"0.in.ids": np.array([[1]]), "0.out.same": np.array([[1]])}
    path = write_module(tmp_path / "m", nodes, Signature((ids,), (same,)), goldens=golden)
    outputs = make_workload(load(path, device="cpu", threads=1)).calls(2)[0]()
    assert isinstance(outputs, dict)
    assert outputs["same"].shape == (2, FREE_AXIS)


# --- measuring


def test_every_pair_of_batch_and_threads_is_measured(tiny: Tiny) -> None:
    said: list[str] = []
    plan = Plan(batches=(3, 1), threads=(2, 1), clients=2, seconds=0.01, k=4)
    found = measure(tiny.path, plan, device="cpu", watch=said.append)
    assert [(cell.threads, cell.batch) for cell in found.cells] == [(2, 3), (2, 1), (1, 3), (1, 1)]
    assert [cell.calls >= 2 for cell in found.cells] == [True] * 4  # each client once at least
    assert (found.model, found.variant, found.clients) == ("sasrec", "fp32", 2)
    assert found.version == tiny.path.name
    assert found.requests == "4 of 37 items, histories of 1 to 6"
    assert found.device["providers"] == ("CPUExecutionProvider",)
    assert found.processor
    assert said == [f"measuring batch {b}, threads {t}" for t, b in ((2, 3), (2, 1), (1, 3), (1, 1))]


def test_how_it_is_served_is_part_of_the_plan_and_of_what_is_said(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, Any]] = []

    def loading(path: Path, **options: Any) -> Any:
        opened.append(options)
        return load(path, **options)

    monkeypatch.setattr(benching, "load", loading)
    plain = measure(tiny.path, Plan(batches=(1,), threads=(2,), seconds=0.01), device="cpu")
    spinning = measure(tiny.path, Plan(batches=(1,), threads=(2,), seconds=0.01, dedicated=True), device="cpu")
    assert [options["dedicated"] for options in opened] == [False, True]
    assert (plain.options, spinning.options) == ((), ("dedicated",))
    assert headline(plain).endswith("1 client")
    assert headline(spinning).endswith("1 client; dedicated")
    with pytest.raises(ValueError, match="cuda_graphs=True needs a GPU"):
        measure(tiny.path, Plan(batches=(1,), seconds=0.01, cuda_graphs=True), device="cpu")


def test_one_thread_and_all_are_measured_where_none_are_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "available_threads", lambda: 3)
    found = measure(tiny.path, Plan(batches=(1,), seconds=0.01), device="cpu")
    assert [cell.threads for cell in found.cells] == [1, 3]
    monkeypatch.setattr(benching, "CUDA", "CPUExecutionProvider")  # as if what answers were a GPU
    found = measure(tiny.path, Plan(batches=(1,), seconds=0.01), device="cpu")
    assert [cell.threads for cell in found.cells] == [1]
    assert found.gpu


def test_memory_is_told_where_the_system_tells_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(batches=(1,), threads=(1, 2), seconds=0.01)
    told = iter([5 << 20, 7 << 20, 8 << 20, 9 << 20])  # before, loaded twice, after
    monkeypatch.setattr(benching, "_resident", lambda: next(told))
    found = measure(tiny.path, plan, device="cpu")
    assert found.memory == {"before": 5 << 20, "loaded": 7 << 20, "after": 9 << 20}
    assert "5 MiB before loading, 7 MiB loaded, 9 MiB after the last call" in table(found)
    monkeypatch.setattr(benching, "_resident", lambda: 0)
    found = measure(tiny.path, plan, device="cpu")
    assert found.memory is None
    assert "MiB" not in table(found)


def test_histories_that_cannot_be_asked_about_are_refused(tiny: Tiny, features: Path) -> None:
    plan = Plan(batches=(1,), threads=(1,), seconds=0.01)
    with pytest.raises(ValueError, match="there is no history to ask about"):
        measure(tiny.path, plan, histories=[], device="cpu")
    for of_module, histories in ((plan, [["item 01"]]), (dataclasses.replace(plan, k=3), None)):
        with pytest.raises(ValueError, match="for recommenders, and this bundle is a module"):
            measure(features, of_module, histories=histories, device="cpu")


def test_a_module_of_fixed_sizes_has_no_batch_to_measure_over(
    write_module: Callable[..., Path], tmp_path: Path
) -> None:
    from onnx import helper

    fixed = Signature((TensorSpec("ids", "int64", (2,), 0, 9),), (TensorSpec("same", "int64", (2,)),))
    golden = {"0.in.ids": np.array([1, 2]), "0.out.same": np.array([1, 2])}
    path = write_module(tmp_path / "m", [helper.make_node("Identity", ["ids"], ["same"])], fixed, goldens=golden)
    with pytest.raises(ValueError, match="fixed sizes only"):
        measure(path, Plan(seconds=0.01), device="cpu")


# --- showing


def test_the_table_says_what_json_says() -> None:
    found = made_up(memory={"before": 1 << 20, "loaded": 2 << 20, "after": 3 << 20})
    values = json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    lines = table(found).splitlines()
    assert lines[0] == f"{values['model']} {values['version']} {values['variant']}: {values['requests']}; 3 clients"
    assert lines[1] == f"{values['device']['providers'][0]} on {values['processor']}, onnxruntime 1.2.3"
    assert lines[3].split() == ["batch", "threads", "calls", "p50", "ms", "p99", "ms", "rows/s"]
    for line, cell in zip(lines[4:7], values["cells"], strict=True):
        batch, threads, calls, p50, p99, rate = line.replace(",", "").split()
        assert [int(batch), int(threads), int(calls)] == [cell["batch"], cell["threads"], cell["calls"]]
        assert [float(p50), float(rate)] == [cell["p50_ms"], cell["rows_per_second"]]
        assert (None if p99 == "-" else float(p99)) == cell["p99_ms"]
    assert len({len(line) for line in lines[3:7]}) == 1  # columns


def test_a_missing_p99_is_explained() -> None:
    assert "- is a p99 of fewer than 100 calls: measure for more --seconds than 0.5" in table(made_up())
    whole = dataclasses.replace(made_up(), cells=made_up().cells[:1])
    assert "fewer than" not in table(whole)


def test_a_gpu_is_named_beside_the_processor() -> None:
    found = dataclasses.replace(made_up(), gpu="Big GPU", clients=1)
    assert "on Big GPU beside Some CPU" in table(found)
    assert table(found).splitlines()[0].endswith("; 1 client")


def test_the_picture_shows_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    monkeypatch.setattr(benchview, "_new_figure", lambda: figure)
    plot(made_up(), tmp_path / "x.png")
    latency, rate = (
        {
            str(line.get_label()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
            for line in axes.get_lines()
        }
        for axes in figure.axes
    )
    assert latency == {
        "p50, 1 thread": ([4, 64], [1.25, 8.0]),
        "p99, 1 thread": ([4], [2.5]),
        "p50, 2 threads": ([64], [5.0]),
        "p99, 2 threads": ([64], [9.5]),
    }
    assert rate == {"1 thread": ([4, 64], [3200.0, 8000.0]), "2 threads": ([64], [12800.0])}
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "64"]
        low, high = axes.get_ylim()
        assert high / low >= 10 * (1 - 1e-9)  # a square root, squared


def test_a_line_without_a_p99_has_no_entry_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    monkeypatch.setattr(benchview, "_new_figure", lambda: figure)
    plot(made_up(p99=None), tmp_path / "x.png")
    assert "p99, 2 threads" not in [line.get_label() for line in figure.axes[0].get_lines()]


# --- the command


def test_the_command_prints_a_table(tiny: Tiny) -> None:
    result = call(tiny.path, *QUICK, "--batches", "1,5", "--threads", "1", "-k", 3)
    assert (result.exit_code, result.stderr) == (0, "")  # standard error is no terminal here
    lines = result.stdout.splitlines()
    assert lines[0].startswith("sasrec ")
    assert lines[0].endswith("fp32: 3 of 37 items, histories of 1 to 6; 1 client")
    assert [line.split()[:2] for line in lines[4:6]] == [["1", "1"], ["5", "1"]]


def test_the_command_prints_json(tiny: Tiny) -> None:
    result = call(tiny.path, *QUICK, "--batches", "2", "--threads", "1", "--json", "--history-length", 11)
    found = json.loads(result.stdout)
    assert set(found) == {field.name for field in dataclasses.fields(Bench)}
    assert set(found["cells"][0]) == {field.name for field in dataclasses.fields(Cell)}
    assert found["requests"] == "10 of 37 items, histories of 11"


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_the_command_asks_about_the_histories_of_a_file(tiny: Tiny, tmp_path: Path, stdin: bool) -> None:
    text = '["item 01"]\n\n["item 36", "?", "item 02", "item 03"]\n'
    (tmp_path / "h.jsonl").write_text(text)
    file = "-" if stdin else tmp_path / "h.jsonl"
    result = call(tiny.path, *QUICK, "--batches", "1", "--threads", "1", "--histories", file, stdin=text)
    assert result.exit_code == 0, result.stderr
    assert "histories of 1 to 4; 1 client" in result.stdout


def test_the_command_measures_a_module(features: Path) -> None:
    result = call(features, *QUICK, "--batches", "2", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    assert "random inputs, length 5" in result.stdout


def test_on_a_terminal_the_command_says_what_it_measures(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    result = call(tiny.path, *QUICK, "--batches", "1,2", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    shown = [part.replace("\x1b[K", "") for part in result.stderr.split("\r")]
    assert shown == ["", "measuring batch 1, threads 1", "measuring batch 2, threads 1", ""]
    assert "measuring" not in result.stdout


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_command_draws_a_picture(tiny: Tiny, tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / f"x.{suffix}"
    result = call(tiny.path, *QUICK, "--batches", "1,4", "--threads", "1", "--plot", picture)
    assert (result.exit_code, result.stderr) == (0, f"wrote {picture}\n")
    assert picture.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


def test_the_picture_needs_no_screen_and_the_command_no_torch(
    tiny: Tiny, tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from genrec_runtime.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    arguments = ["bench", str(tiny.path), *QUICK, "--batches", "1", "--plot", str(tmp_path / "x.png")]
    run_python(code, *arguments, DISPLAY="", MPLBACKEND="TkAgg")
    assert (tmp_path / "x.png").exists()


def test_a_missing_matplotlib_is_noticed_before_anything_is_measured(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(benching, "measure", lambda *_, **__: pytest.fail("was measured"))
    result = call(tiny.path, *QUICK, "--plot", tmp_path / "x.png")
    assert result.exit_code == 1
    assert result.stderr == "error: pictures need matplotlib: pip install 'genrec[viz]'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", 0], "seconds (0.0) must be above 0"),
        (["--batches", "8,-1"], "batches (8, -1) must be whole numbers of at least 1"),
        (["--threads", "0"], "threads (0) must be whole numbers of at least 1"),
        (["--clients", 0], "clients (0) must be whole numbers of at least 1"),
        (["-k", 0], "k (0) must be a whole number of at least 1"),
        (["-k", 21], "k (21) is above this bundle's 20"),
        (["--device", "cdua"], "device ('cdua') must be"),
        (["--variant", "int3"], "int3"),
        (["--histories", "no/such/file"], "No such file or directory"),
        (["--histories", "-"], "there is no history to ask about"),
        (["--plot", "no/such/folder/x.png"], "there is no folder no/such/folder for the picture"),
        (["--plot", "x.txt"], "the picture (x.txt) must end with one of ."),
        (["--plot", "x"], "the picture (x) must end with one of ."),
    ],
)
def test_what_cannot_be_measured_ends_with_1_and_one_line(tiny: Tiny, arguments: list[Any], message: str) -> None:
    result = call(tiny.path, *QUICK, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_file_that_holds_no_ids_is_refused_with_its_row(tiny: Tiny) -> None:
    result = call(tiny.path, *QUICK, "--histories", "-", "--batches", "2", stdin='["item 01"]\n[1.5]\n')
    assert result.exit_code == 1
    assert "histories[1]" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["B", "--batches", ""],
        ["B", "--batches", "1,,2"],
        ["B", "--batches", "many"],
        ["B", "--threads", "1.5"],
        ["B", "--seconds", "long"],
        ["B", "--history-length", 0],
        ["B", "--history-length", 10**7],
        ["B", "--seed", -1],
    ],
)
def test_misuse_ends_with_2(arguments: list[Any]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_a_missing_bundle_ends_with_1(tmp_path: Path) -> None:
    result = call(tmp_path / "none", *QUICK)
    assert result.exit_code == 1
    assert "there is no bundle at" in result.stderr
