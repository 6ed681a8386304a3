"""Freezing once more, as the next version of the format will be."""

import json
from pathlib import Path

import pytest

from frozen.make import freeze
from frozen.replay import look

HERE = Path(__file__).parent


def test_a_version_that_is_there_is_never_written_again() -> None:
    with pytest.raises(FileExistsError, match=r"frozen/1\.0"):
        freeze(HERE / "1.0")


def test_what_is_made_answers_as_it_recorded(tmp_path: Path) -> None:
    freeze(tmp_path / "next")
    answers = json.loads((tmp_path / "next" / "answers.json").read_bytes())
    for kind in ("recommender", "module"):
        seen = look(tmp_path / "next" / kind, answers[kind])
        assert max(seen["excess"].values()) <= 1
        assert seen["answers"]["fp32"] == [call["answer"] for call in answers[kind]]
