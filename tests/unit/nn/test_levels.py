"""Levels: how they are written, and how large they are."""

from __future__ import annotations

import pytest

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.nn.levels import Cell, LevelConvolution, read_levels


def test_a_level_is_convolutions_and_a_cell() -> None:
    below, above = read_levels(("conv:3:5:1 conv:4:3:2 lstm:8:3", "conv:6:3:2 dense-gru:20"), (2, 9, 8))
    assert below.convolutions == (LevelConvolution(3, (5, 5), (1, 1)), LevelConvolution(4, (3, 3), (2, 2)))
    assert below.cell == Cell("lstm", 8, (3, 3))
    assert below.sizes == ((2, 9, 8), (3, 9, 8), (4, 5, 4))
    assert (below.features, below.size, below.decoded) == ((4, 5, 4), (8, 5, 4), (8, 5, 4))
    assert (below.stride, below.kernels) == ((2, 2), ((5, 5), (3, 3), (3, 3)))
    assert above.cell == Cell("dense-gru", 20)
    assert (above.features, above.size, above.decoded) == ((6, 3, 2), (20, 1, 1), (6, 3, 2))


def test_a_step_of_music_is_a_map_of_one_row() -> None:
    levels = read_levels(tuple(["conv:4:5:2 lstm:4:5"] * 4), (1, 88))
    assert [level.size for level in levels] == [(4, 1, 44), (4, 1, 22), (4, 1, 11), (4, 1, 6)]
    assert levels[0].kernels == ((1, 5), (1, 5))
    assert levels[0].stride == (1, 2)


def test_a_level_without_a_cell_gives_its_features() -> None:
    (level,) = read_levels(("conv:3:3:2 conv:5:3:2 none",), (1, 8, 8))
    assert level.size == level.features == (5, 2, 2)
    assert level.stride == (4, 4)
    assert not level.cell.recurrent and not level.cell.dense


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (("",), "convolutions and then one cell"),
        (("lstm:3:3 conv:3:3:1",), "convolutions and then one cell"),
        (("lstm:3:3 lstm:3:3",), "convolutions and then one cell"),
        (("conv:3:2:1 lstm:3:3",), "write 3 or 1"),
        (("gru:3",), "is written gru:CHANNELS:KERNEL"),
        (("dense:0",), "whole numbers above 0"),
        (("conv:3:3:1 none:1",), "is written none"),
        (("dense:3", "none"), "has convolutions"),
        (("dense:3", "lstm:3:3"), "only a fully connected cell may follow"),
    ],
)
def test_what_cannot_be_read_is_refused(levels: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_levels(levels, (1, 8, 8))


def test_an_unknown_word_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'lstm'"):
        read_levels(("lsm:3:3",), (1, 8, 8))


@pytest.mark.parametrize("frame", [(8,), (1, 8, 8, 8), (1, 0, 8)])
def test_a_frame_of_other_axes_is_refused(frame: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match="model.frame must be"):
        read_levels(("dense:3",), frame)


def test_a_plus_does_for_a_space() -> None:
    written = ("conv:3:5:1+conv:4:3:2+lstm:8:3", "conv:6:3:2+dense-gru:20")
    assert read_levels(written, (2, 9, 8)) == read_levels(tuple(one.replace("+", " ") for one in written), (2, 9, 8))
