"""The piano roll: notes and probabilities in their places, and their names."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.analysis.music import ShownPiece
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.piano_roll import PANELS, piano_roll

NOTES = ((60, 64), (), (62,), (72,))


def piece(*, length: int = 4, likely: int = 50, notes: tuple[tuple[int, ...], ...] = NOTES) -> ShownPiece:
    rows = np.full((4, 88), 0.01)
    rows[:, likely - 21] = 0.5
    return ShownPiece(
        number=3,
        length=length,
        notes=notes,
        probabilities=tuple(map(tuple, rows.tolist())),
        nats=(4.0, 3.0, 2.0, 1.0),
        markov=(5.0, 6.0, 7.0, 8.0),
    )


def drawn(shown: ShownPiece) -> Picture:
    with canvas.style():
        picture = piano_roll("a study: test pieces of a <corpus>", shown)
        picture.figure.canvas.draw()
    return picture


def test_three_panels_on_one_axis_of_time() -> None:
    picture = drawn(piece())
    played, expected, cost = picture.figure.axes[:3]
    assert [ax.get_title(loc="left") for ax in (played, expected, cost)] == list(PANELS)
    assert picture.title == "a study: test pieces of a <corpus>, piece 3: 4 steps"
    # Two keys more than what is played, 60..72, or likely, 50.
    roll = np.ma.filled(played.images[0].get_array(), 0.0)
    assert roll.shape == (74 - 48 + 1, 4) and list(played.images[0].get_extent()) == [0.5, 4.5, 47.5, 74.5]
    assert {(48 + key, step) for key, step in np.argwhere(roll)} == {(60, 0), (64, 0), (62, 2), (72, 3)}
    heat = expected.images[0].get_array()
    assert heat[50 - 48].tolist() == [0.5] * 4 and heat[0].tolist() == [0.01] * 4
    dots = expected.collections[0].get_offsets()
    assert {tuple(map(int, dot)) for dot in dots} == {(1, 60), (1, 64), (3, 62), (4, 72)}
    labels = dict(zip(played.get_yticks(), [text.get_text() for text in played.get_yticklabels()], strict=True))
    assert labels == {48: "C3", 55: "G3", 60: "C4", 67: "G4", 72: "C5"}
    curves = {line.get_label(): list(line.get_ydata()) for line in cost.lines}
    assert curves == {"network": [4.0, 3.0, 2.0, 1.0], "each note's own last value": [5.0, 6.0, 7.0, 8.0]}
    assert played.get_xlim() == expected.get_xlim() == cost.get_xlim() == (0.5, 4.5)


def test_the_page_has_the_same_numbers() -> None:
    picture = drawn(piece())
    for ax in picture.figure.axes[:2]:
        texts = {(x, y): text for _, own, x, y, text in picture.texts if own is ax}
        assert len(texts) == 4 * 27
        assert texts[1, 60] == "step 1, C4, played\nexpected at 1.00 %"
        assert texts[2, 50] == "step 2, D3, silent\nexpected at 50.00 %"
    assert [y for entry, *_, y, _ in picture.texts if entry == "network"] == [4.0, 3.0, 2.0, 1.0]
    assert "&lt;corpus&gt;" in picture.page()


def test_a_piece_that_is_cut_says_so_and_silence_is_drawn() -> None:
    assert drawn(piece(length=90)).title.endswith("piece 3: steps 1 to 4 of 90")
    silent = drawn(piece(notes=((),) * 4, likely=21))
    assert list(silent.figure.axes[0].images[0].get_extent())[2:] == [20.5, 23.5]


@pytest.mark.parametrize("note", [21, 108])
def test_the_ends_of_the_keyboard(note: int) -> None:
    extent = drawn(piece(notes=((note,),) * 4, likely=note)).figure.axes[0].images[0].get_extent()
    assert list(extent)[2:] == ([20.5, 23.5] if note == 21 else [105.5, 108.5])
