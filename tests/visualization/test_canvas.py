"""What all pictures share: where they can be written, and lines that can be told apart."""

from pathlib import Path

import pytest

from genrec.visualization import check_picture_path, new_figure, save_figure
from genrec.visualization.canvas import COLOURS, line_style, model_name, short


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/map.png", r"there is no folder .*none for the picture"),
        ("map.xyz", r"the picture \(.*map\.xyz\) must end with one of .*\.pdf.*\.png.*\.svg"),
        ("map", r"the picture \(.*map\) must end with one of"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_beforehand(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_picture_path(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "begin"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")])
def test_the_suffix_is_the_format(tmp_path: Path, name: str, begin: bytes) -> None:
    check_picture_path(tmp_path / name)
    save_figure(new_figure(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_lines_differ_in_more_than_their_colour() -> None:
    looks = [line_style(i) for i in range(28)]
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 28
    assert len({look["marker"] for look in looks[: len(COLOURS)]}) == len(COLOURS)


def lightness(colour: str) -> float:
    """CIE L* of an sRGB colour, 0 black to 100 white."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * luminance ** (1 / 3) - 16


def test_every_colour_is_dark_enough_for_a_line_on_white() -> None:
    assert all(lightness(colour) < 75 for colour in COLOURS)


def test_names_are_cut_on_one_line_and_models_keep_their_ends() -> None:
    assert short("two\nlines  of text", 100) == "two lines of text"
    assert short("x" * 40, 24) == "x" * 23 + "…"
    assert model_name("m" * 36) == "m" * 36
    assert model_name("m" * 60 + "-seed-12") == "m" * 17 + "…" + "m" * 10 + "-seed-12"
