"""The picture of shares: what stands on what, and what it says where there is nothing to show."""

from __future__ import annotations

import pytest

from ladder_search.analysis.columns import LayerOfColumn, Sensitivity
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.sensitivity import column_shares


def layer(number: int, column: str, aps: float | None, afs: float | None, sigma: float | None = 2.0) -> LayerOfColumn:
    return LayerOfColumn(
        column=column,
        layer=number,
        units=20,
        constant=1,
        sigma=sigma,
        precision=0.25,
        aps=aps,
        fisher=1.0,
        afs=afs,
    )


def network(*layers: LayerOfColumn, columns: tuple[str, ...] = ("source <a>", "source b", "target c")) -> Sensitivity:
    return Sensitivity(columns=columns, layers=layers, rows=100, accuracy=0.9, halved=0.45, cap=1000.0)


LAYERS = (
    layer(1, "source <a>", 0.5, 0.1),
    layer(1, "source b", 0.2, 0.6),
    layer(1, "target c", 0.3, 0.3),
    layer(2, "source <a>", None, 0.25, None),
    layer(2, "target c", None, 0.75, None),
)


def drawn(found: Sensitivity) -> Picture:
    with canvas.style():
        picture = column_shares("a title", found)
        picture.figure.canvas.draw()
    return picture


def bars(picture: Picture, panel: int) -> list[tuple[float, float, float]]:
    """(layer, foot, share) of every bar."""
    return [
        (round(bar.get_x() + bar.get_width() / 2, 6), pytest.approx(bar.get_y()), pytest.approx(bar.get_height()))
        for bar in picture.figure.axes[panel].patches
    ]


def test_each_layer_is_a_stack_of_the_columns_in_their_order() -> None:
    picture = drawn(network(*LAYERS))
    assert bars(picture, 0) == [(1, 0.0, 0.5), (1, 0.5, 0.2), (1, 0.7, 0.3)]
    assert bars(picture, 1) == [(1, 0.0, 0.1), (2, 0.0, 0.25), (1, 0.1, 0.6), (1, 0.7, 0.3), (2, 0.25, 0.75)]
    assert [axes.get_title(loc="left") for axes in picture.figure.axes] == [
        "perturbation sensitivity (APS)",
        "Fisher sensitivity (AFS)",
    ]
    written = [text.get_text() for text in picture.figure.axes[0].texts]
    assert written == ["50", "20", "30", "nothing\nto share"]
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["source <a>", "source b", "target c"]


def test_the_page_has_the_same_numbers_and_its_names_are_no_markup() -> None:
    picture = drawn(network(*LAYERS))
    texts = [[point[2:] for point in picture.texts if point[1] is ax] for ax in picture.figure.axes]
    assert [len(own) for own in texts] == [3, 5]
    assert texts[0][0] == (1, 0.25, "source <a>, layer 1, 20 units\ncritical sigma 2\nAPS 50.0 %, AFS 10.0 %")
    assert "critical sigma above 1000: insensitive" in texts[1][1][-1]
    assert "source <a>" not in picture.page()


def test_colours_tell_the_target_from_every_source() -> None:
    names = tuple(f"source {number}" for number in range(7))
    found = network(*(layer(1, name, 0.1, 0.1) for name in (*names, "target")), columns=(*names, "target"))
    colours = [bar.get_facecolor() for bar in drawn(found).figure.axes[0].patches]
    assert len(set(colours[:5])) == 5 and colours[-1] not in colours[:-1]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (network(layer(1, "target", 1.0, 1.0), columns=("target",)), "one column"),
        (
            network(layer(1, "source", None, None), layer(1, "target", None, None), columns=("source", "target")),
            "a say",
        ),
    ],
)
def test_where_nothing_can_be_compared_the_picture_says_so(found: Sensitivity, words: str) -> None:
    picture = drawn(found)
    assert words in picture.figure.axes[0].texts[0].get_text()
