"""Pictures of sequences and of errors by frame: what stands where, and that it is what was found."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from ladder_search.analysis.video import ProbeErrors, ShownSequence, Video
from ladder_search.data.occluded_bounds import PredictionBounds
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.frame_errors import frame_errors
from ladder_search.pictures.video import sequences

SIDE, FRAMES = 6, 3
BOUNDS = PredictionBounds(zero=0.007, copy=0.009, unknown_velocity=0.004, known_motion=(0.002, 0.001))


def image(level: int) -> str:
    return base64.b64encode(bytes([level] * SIDE**2)).decode()


def one(number: int, *, label: int = 1, told: int = 1, **changes: Any) -> ShownSequence:
    probabilities = tuple(tuple(0.6 if c == told else 0.2 for c in range(3)) for _ in range(FRAMES))
    given: dict[str, Any] = {
        "truth": tuple(image(10 * t) for t in range(FRAMES)),
        "seen": tuple(image(20 * t) for t in range(FRAMES)),
        "predicted": tuple(image(30 + t) for t in range(FRAMES - 1)),
        "probed": tuple(image(40 + t) for t in range(FRAMES)),
        "probabilities": probabilities,
    }
    return ShownSequence(number=number, label=label, **{**given, **changes})


def network(*shown: ShownSequence, **changes: Any) -> Video:
    given: dict[str, Any] = {
        "side": SIDE,
        "bars": (2,),
        "judged": 50,
        "class_error": (0.5, 0.3, 0.1),
        "prediction_error": (0.003, 0.002),
        "bounds": BOUNDS,
        "probe": ProbeErrors(network=(0.03, 0.02, 0.01), occluded=(0.04, 0.04, 0.04), memory=(0.02, 0.01, 0.0)),
    }
    return Video(shown=shown, **{**given, **changes})


def drawn(draw: Any, found: Video) -> Picture:
    with canvas.style():
        picture: Picture = draw("a <title>", found)
        picture.figure.canvas.draw()
    return picture


def strips(picture: Picture) -> list[np.ndarray]:
    """The ink of every line of images: 0 is paper."""
    images = [1.0 - np.asarray(ax.images[0].get_array()) for ax in picture.figure.axes if ax.images]
    return [array[top : top + SIDE] for array in images for top in range(0, len(array), SIDE + 1)]


def labels(picture: Picture) -> list[str]:
    """Names of the lines at the left of the first block."""
    first = [ax for ax in picture.figure.axes if ax.get_position().x0 == picture.figure.axes[0].get_position().x0]
    ticks = [text.get_text() for text in first[0].get_yticklabels()]
    return ticks + [ax.get_ylabel() for ax in first[1:2]]


def test_every_sequence_is_a_block_of_lines() -> None:
    picture = drawn(sequences, network(one(7), one(8), one(9, label=2, told=0)))
    assert len(picture.figure.axes) == 3 * 2
    titles = [ax.get_title(loc="left") for ax in picture.figure.axes if ax.get_title(loc="left")]
    assert titles == ["1, output 1 at 60 %", "1, output 1 at 60 %", "2, output 0 at 60 %"]
    assert labels(picture) == ["as it is", "seen", "predicted", "probed", "classes"]
    truth, seen, predicted, probed = strips(picture)[:4]
    width = SIDE + 1  # frames are one pixel apart
    assert truth.shape == (SIDE, FRAMES * width - 1)
    for t in range(FRAMES):
        here = slice(t * width, t * width + SIDE)
        assert truth[:, here] == pytest.approx(10 * t / 255)
        assert probed[:, here] == pytest.approx((40 + t) / 255)
        assert seen[0, here][0] == pytest.approx(20 * t / 255)  # no bar
        assert (seen[2, here] >= 0.15).all() and (seen[:, here][:, 2] >= 0.15).all()
        # A prediction stands under the frame that it was to be: under the first there is none.
        there = predicted[:, here]
        assert (there == 0).all() if t == 0 else there == pytest.approx((30 + t - 1) / 255)
    assert (truth[:, SIDE] == 0).all()


def test_bars_are_the_probabilities_and_their_colours_say_who_is_right() -> None:
    picture = drawn(sequences, network(one(7), one(9, label=2, told=0)))
    for block, (label, told) in enumerate(((1, 1), (2, 0))):
        ax = picture.figure.axes[2 * block + 1]
        bars = ax.patches
        assert [bar.get_height() for bar in bars] == [0.6 if c == told else 0.2 for _ in range(3) for c in range(3)]
        colours = [canvas.GREEN if c == label else canvas.VERMILION if c == told else canvas.GREY for c in range(3)]
        assert [bar.get_facecolor() for bar in bars[:3]] == [to_rgba(colour) for colour in colours]
        middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
        for t in range(FRAMES):  # below their frames
            assert all(t * (SIDE + 1) - 0.5 < x < t * (SIDE + 1) + SIDE - 0.5 for x in middles[3 * t : 3 * t + 3])
        assert [text.get_text() for text in ax.texts] == [str(told)] * FRAMES
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "3"]


def test_what_a_network_does_not_have_has_no_line() -> None:
    encoder = one(7, predicted=(), probed=())
    picture = drawn(sequences, network(encoder, prediction_error=(), bounds=None, probe=None))
    assert labels(picture) == ["as it is", "seen", "classes"]
    untold = one(7, probabilities=())
    picture = drawn(sequences, network(untold, class_error=()))
    assert labels(picture) == ["as it is", "seen", "predicted", "probed"]
    assert picture.figure.axes[0].get_title(loc="left") == "1"
    assert not any("green" in text.get_text() for text in picture.figure.texts)


def test_the_page_has_the_same_images_and_bars() -> None:
    picture = drawn(sequences, network(one(7), one(9, label=2, told=0)))
    points = [point for point in picture.texts if point[1] is picture.figure.axes[3]]
    assert [y for *_, y, _ in points] == [0.6, 0.2, 0.2] * 3
    assert points[1][-1] == "frame 1\nclass 1: 20.0 %"
    assert "<title>a &lt;title&gt;</title>" in picture.page() and picture.page().count("<image") == 2


@pytest.mark.parametrize(("count", "frames", "across"), [(1, 3, 1), (6, 3, 3), (6, 1, 5)])
def test_short_sequences_stand_beside_each_other(count: int, frames: int, across: int) -> None:
    changes = {"seen": (image(1),) * frames, "truth": (image(1),) * frames, "predicted": (), "probed": ()}
    shown = [one(number, **changes, probabilities=((0.5, 0.3, 0.2),) * frames) for number in range(count)]
    picture = drawn(sequences, network(*shown, bounds=None, probe=None))
    places = {round(ax.get_position().x0, 6) for ax in picture.figure.axes}
    assert len(places) == across
    sizes = {tuple(np.round(ax.get_position().size, 6)) for ax in picture.figure.axes if ax.images}
    assert len(sizes) == 1


def test_errors_by_frame_beside_those_of_predictors_without_parameters() -> None:
    picture = drawn(frame_errors, network(one(7)))
    assert [ax.get_title(loc="left") for ax in picture.figure.axes] == [
        "class", "predicted frame", "probed frame",
    ]  # fmt: skip
    curves = [
        {
            line.get_color(): (list(line.get_xdata()), list(line.get_ydata()))
            for line in ax.lines
            if len(line.get_xdata())
        }
        for ax in picture.figure.axes
    ]
    assert curves[0] == {canvas.VERMILION: ([1, 2, 3], [0.5, 0.3, 0.1])}
    assert curves[1] == {
        canvas.VERMILION: ([2, 3], [0.003, 0.002]),
        canvas.BLUE: ([2, 3], [0.002, 0.001]),
        canvas.ORANGE: ([2, 3], [0.009, 0.009]),
        canvas.GREY: ([2, 3], [0.007, 0.007]),
    }
    assert curves[2][canvas.VERMILION] == ([1, 2, 3], [0.03, 0.02, 0.01])
    assert curves[2][canvas.BLUE][1] == [0.02, 0.01, 0.0] and curves[2][canvas.PURPLE][1] == [0.04] * 3
    assert len(picture.figure.legends[0].get_texts()) == 5
    texts = [text for entry, ax, *_, text in picture.texts if entry == "network" and ax is picture.figure.axes[1]]
    assert texts == ["network, frame 2: 300.0 x 1e-5", "network, frame 3: 200.0 x 1e-5"]


def test_errors_of_what_there_is() -> None:
    picture = drawn(frame_errors, network(one(7), bounds=None, prediction_error=(), probe=None))
    assert [ax.get_title(loc="left") for ax in picture.figure.axes] == ["class"]
