"""Positions: fixed waves and the learned, end-anchored table."""

import math

import pytest
import torch

from genrec.modules import LearnedPositions, PositionalEncoding


def test_waves_are_sines_and_cosines_of_the_position() -> None:
    waves = PositionalEncoding(4, max_seq_length=3)(torch.zeros(2, 3, 4))
    expected = [[wave(p / 10_000 ** (even / 4)) for even in (0, 2) for wave in (math.sin, math.cos)] for p in range(3)]
    torch.testing.assert_close(waves, torch.tensor([expected, expected]), atol=1e-6, rtol=0)  # float32 waves


def test_positions_are_added_to_the_embeddings() -> None:
    x = torch.randn(2, 3, 4)
    for positions in (PositionalEncoding(4, 7), LearnedPositions(4, 7)):
        torch.testing.assert_close(positions(x) - x, positions(torch.zeros_like(x)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 3, 7])
def test_learned_positions_count_from_the_newest_slot(length: int) -> None:
    positions = LearnedPositions(4, max_seq_length=7)
    added = positions(torch.zeros(2, length, 4))
    torch.testing.assert_close(added[1], positions.embedding.weight[7 - length :], atol=0, rtol=0)


@pytest.mark.parametrize("cls", [PositionalEncoding, LearnedPositions])
def test_sizes_below_one_are_refused(cls: type[PositionalEncoding] | type[LearnedPositions]) -> None:
    with pytest.raises(ValueError, match=r"embedding_dim \(0\)"):
        cls(0, 5)
    with pytest.raises(ValueError, match=r"max_seq_length \(0\)"):
        cls(4, 0)


@pytest.mark.parametrize("cls", [PositionalEncoding, LearnedPositions])
def test_positions_refuse_a_longer_sequence(cls: type[PositionalEncoding] | type[LearnedPositions]) -> None:
    with pytest.raises(ValueError, match=r"6 slots, more than max_seq_length \(5\)"):
        cls(4, 5)(torch.zeros(1, 6, 4))


@pytest.mark.parametrize("width", [1, 3, 7])
def test_mend_05_odd_width_ends_on_a_sine(width: int) -> None:
    odd = PositionalEncoding(width, max_seq_length=4).pe[0]
    assert odd.shape == (4, width)
    rate = 10_000 ** (-(width - 1) / width)
    expected = torch.tensor([math.sin(p * rate) for p in range(4)])
    torch.testing.assert_close(odd[:, -1], expected, atol=1e-6, rtol=0)


def test_mend_06_the_table_is_not_saved_and_a_saved_one_is_dropped() -> None:
    positions = PositionalEncoding(4, max_seq_length=3)
    assert positions.state_dict() == {}
    positions.load_state_dict({"pe": torch.full((1, 9, 4), 5.0)}, strict=True)
    torch.testing.assert_close(positions.pe, PositionalEncoding(4, max_seq_length=3).pe, atol=0, rtol=0)
