"""Attention maps: what is drawn, what is refused, and that nothing stays open. Looks are for eyes, not for tests."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.visualization import AttentionVisualization, attention_figure, save_figure

PNG = b"\x89PNG"
plot = AttentionVisualization.plot_attention_heatmap


def names(count: int, prefix: str = "token") -> list[str]:
    return [f"{prefix} {i}" for i in range(count)]


def weights(*shape: int) -> Any:
    raw = np.random.default_rng(0).random(shape)
    return raw / raw.sum(-1, keepdims=True)


def maps(figure: Any) -> list[Any]:
    """The panels that hold an attention map."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def cells(axes: Any) -> Any:
    """What a panel's map shows, (Lq, Lk)."""
    return axes.collections[0].get_array()


# --- mend 24


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)], ids=["one map", "two heads"])
def test_mend_24_a_tensor_with_a_gradient_is_drawn(tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(weights(*shape), requires_grad=True)
    target = tmp_path / "map.png"
    plot(tensor, names(5), names(3), str(target))
    assert target.read_bytes().startswith(PNG)
    drawn = cells(maps(attention_figure(tensor, names(5), names(3)))[0])
    np.testing.assert_array_equal(drawn, weights(*shape).reshape(-1, 3, 5)[0])


def test_mend_24_a_half_precision_tensor_is_drawn() -> None:
    torch = pytest.importorskip("torch")
    assert maps(attention_figure(torch.full((2, 3), 0.5, dtype=torch.bfloat16), names(3), names(2)))


def test_mend_24_each_head_has_its_panel() -> None:
    figure = attention_figure(weights(5, 3, 4), names(4), names(3))
    assert [axes.get_title() for axes in maps(figure)] == [f"head {i}" for i in range(1, 6)]
    for axes, head in zip(maps(figure), weights(5, 3, 4), strict=True):
        np.testing.assert_array_equal(cells(axes), head)
    assert len({axes.collections[0].get_clim() for axes in maps(figure)}) == 1  # one colour bar fits all


def test_mend_24_only_small_maps_are_annotated() -> None:
    small = maps(attention_figure(weights(3, 4), names(4), names(3)))[0]
    assert [text.get_text() for text in small.texts][:2] == [f"{value:.2f}" for value in weights(3, 4)[0, :2]]
    assert len(small.texts) == 3 * 4
    assert len(maps(attention_figure(weights(20, 20), names(20), names(20)))[0].texts) == 20 * 20
    assert len(maps(attention_figure(weights(21, 4), names(4), names(21)))[0].texts) == 0


def test_mend_24_saving_never_shows_and_closes_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda **_: pytest.fail("shown while saving"))
    monkeypatch.setattr(pyplot, "get_backend", lambda: "qtagg")
    plot(weights(2, 2), names(2), names(2), save_path=tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")


def test_mend_24_an_interactive_backend_shows_once_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    seen: list[int] = []
    monkeypatch.setattr(pyplot, "get_backend", lambda: "QtAgg")
    monkeypatch.setattr(pyplot, "show", lambda **_: seen.append(len(maps(pyplot.gcf()))))
    plot(weights(2, 3, 3), names(3), names(3))
    assert seen == [2]


def test_mend_24_a_figure_is_closed_when_showing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    def broken(**_: object) -> None:
        raise RuntimeError("the display is gone")

    monkeypatch.setattr(pyplot, "get_backend", lambda: "tkagg")
    monkeypatch.setattr(pyplot, "show", broken)
    with pytest.raises(RuntimeError, match="the display is gone"):
        plot(weights(2, 2), names(2), names(2))


def test_mend_24_a_backend_without_windows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda **_: pytest.fail("shown without a window"))
    with pytest.warns(UserWarning, match="matplotlib's backend 'agg' shows nothing: pass save_path"):
        plot(weights(2, 2), names(2), names(2))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (4, 3, r"there are 4 input_tokens for weights of shape \(2, 3, 5\), which need 5"),
        (5, 2, r"there are 2 output_tokens for weights of shape \(2, 3, 5\), which need 3"),
    ],
)
def test_mend_24_names_that_do_not_fit_are_refused(inputs: int, outputs: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_figure(weights(2, 3, 5), names(inputs), names(outputs))


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 3), (0, 3)])
def test_mend_24_other_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"attention weights must be \(Lq, Lk\) or \(H, Lq, Lk\), not of shape"):
        plot(np.ones(shape), names(3), names(shape[0]), tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []


def test_mend_24_a_batch_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"not of shape \(1, 2, 3, 3\); choose one row of the batch, as in weights\[0\]"
    ):
        attention_figure(np.ones((1, 2, 3, 3)), names(3), names(3))


def test_mend_24_torch_and_the_plot_library_are_not_imported_by_the_module() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np\n"
        "from genrec.visualization import AttentionVisualization as A, attention_figure\n"
        "assert 'matplotlib' not in sys.modules\n"
        "attention_figure(np.eye(2), 'ab', 'ab')\n"
        "from matplotlib import pyplot; assert pyplot.get_fignums() == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=child_environment())


def test_a_missing_matplotlib_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "from genrec.visualization import attention_figure\n"
        "try: attention_figure([[1.0]], 'a', 'b')\n"
        "except ImportError as error: assert \"pip install 'genrec[viz]'\" in str(error), error\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=child_environment())


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


# --- what is drawn


def test_labels_axes_and_titles_are_there() -> None:
    figure = attention_figure(weights(3, 4), names(4, "in"), names(3, "out"), title="Layer 2")
    axes = maps(figure)[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == names(4, "in")
    assert [label.get_text() for label in axes.get_yticklabels()] == names(3, "out")
    assert figure.get_suptitle() == "Layer 2"
    assert figure.get_supxlabel() == "input tokens (attended to)"
    assert figure.get_supylabel() == "output tokens (attending)"
    assert len(figure.axes) == 2  # the map and its colour bar
    assert attention_figure(weights(3, 4), names(4), names(3)).get_suptitle() == "Attention weights"


def test_inner_panels_carry_no_names_and_outer_ones_do() -> None:
    panels = maps(attention_figure(weights(3, 2, 2), names(2), names(2)))  # two columns: heads 1 2 / 3
    named = [
        (bool(axes.get_xticklabels()[0].get_text()), bool(axes.get_yticklabels()[0].get_text())) for axes in panels
    ]
    assert named == [(False, True), (True, False), (True, True)]


def test_long_and_strange_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    strange = ["Gift card $5 or $10", "a_b^{2", "two\nlines", "x" * 40]
    figure = attention_figure(weights(4, 4), strange, [1, None, 2.5, "ä"])
    save_figure(figure, tmp_path / "map.png")  # mathematical text would fail to parse here
    axes = maps(figure)[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["Gift card $5 or $10", "a_b^{2", "two lines", "x" * 23 + "…"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "None", "2.5", "ä"]


def test_masked_cells_are_grey_and_without_a_number() -> None:
    causal = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
    causal[3, 0] = np.nan
    figure = attention_figure(causal, names(4), names(4))
    axes = maps(figure)[0]
    masked = np.triu(np.ones((4, 4), bool), k=1)
    masked[3, 0] = True
    np.testing.assert_array_equal(np.ma.getmaskarray(cells(axes)), masked)
    assert len(axes.texts) == (~masked).sum()
    assert [axes.get_ylabel() for axes in figure.axes][-1] == "weight (grey: masked)"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_map_that_is_all_masked_is_drawn(tmp_path: Path, value: float) -> None:
    save_figure(attention_figure(np.full((2, 3), value), names(3), names(2)), tmp_path / "map.png")


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (8, 50, 50)])
def test_no_two_names_overlap_and_the_picture_stays_of_a_size(shape: tuple[int, ...]) -> None:
    figure = attention_figure(weights(*shape), names(shape[-1]), names(shape[-2]))
    figure.draw_without_rendering()
    assert max(figure.get_size_inches()) <= 18
    for axes in maps(figure):
        for labels, along in ((axes.get_yticklabels(), "y"), (axes.get_xticklabels(), "x")):
            place = {label.get_text(): label.get_transform().transform(label.get_position()) for label in labels}
            points = sorted(point[0 if along == "x" else 1] for text, point in place.items() if text)
            gaps = np.diff(points) * 72 / figure.dpi
            assert (gaps >= 8).all(), f"names of 8 points stand {gaps.min():.1f} points apart"


def test_a_large_map_shows_small_weights_on_a_square_root_scale() -> None:
    large = attention_figure(weights(30, 30), names(30), names(30))
    assert maps(large)[0].collections[0].norm.gamma == 0.5
    assert large.axes[-1].get_ylabel() == "weight, square-root scale"
    small = attention_figure(weights(3, 3), names(3), names(3))  # its numbers are written into it
    assert maps(small)[0].collections[0].norm.gamma == 1
    assert small.axes[-1].get_ylabel() == "weight"


def test_weights_from_the_runtime_are_drawn_as_those_from_torch_are(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from genrec.modules import MultiHeadAttention
    from genrec_export import export_module
    from genrec_runtime import Module

    model = MultiHeadAttention(12, 3).eval()
    bundle = export_module(model, out=tmp_path / "store").path
    query, key = (np.random.default_rng(0).standard_normal((2, n, 12)).astype(np.float32) for n in (4, 5))
    mask = np.array([[[1, 1, 1, 1, 0]] * 4] * 2)
    served = Module.load(bundle, device="cpu").run(query=query, key=key, value=key, mask=mask)["weights"]
    with torch.no_grad():
        own = model(*map(torch.from_numpy, (query, key, key, mask)))[1]
    assert served.shape == (2, 3, 4, 5)
    pictures = [attention_figure(batch[1], names(5, "in"), names(4, "out")) for batch in (served, own)]
    assert [axes.get_title() for axes in maps(pictures[0])] == ["head 1", "head 2", "head 3"]
    for ours, theirs in zip(*map(maps, pictures), strict=True):
        np.testing.assert_allclose(cells(ours).filled(-1), cells(theirs).filled(-1), atol=1e-5)  # float32 products
        assert np.ma.getmaskarray(cells(ours))[:, 4].all()
        assert not np.ma.getmaskarray(cells(ours))[:, :4].any()
    assert [label.get_text() for label in maps(pictures[0])[2].get_xticklabels()] == names(5, "in")
    with pytest.raises(ValueError, match=r"choose one row of the batch, as in weights\[0\]"):
        attention_figure(served, names(5), names(4))


def test_pictures_can_be_drawn_outside_the_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(
        target=lambda: save_figure(attention_figure(weights(2, 2), names(2), names(2)), tmp_path / "map.png")
    )
    thread.start()
    thread.join()
    assert (tmp_path / "map.png").read_bytes().startswith(PNG)
