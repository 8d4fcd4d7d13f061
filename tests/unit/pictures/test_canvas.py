import json
import re

import pytest

from ladder_search.pictures import canvas


@pytest.mark.parametrize(
    ("low", "high", "most", "letters", "ticks"),
    [
        (1, 1000, 5, 20, [1, 10, 100, 1000]),
        (3, 2000, 5, 20, [10, 100, 1000]),
        (90, 5100, 6, 21, [100, 200, 500, 1000, 2000, 5000]),
        (90, 5100, 6, 20, [100, 300, 1000, 3000]),
        (0.00133, 0.0042, 5, 30, [0.0015, 0.002, 0.003, 0.004]),
        (7.1, 7.9, 5, 20, [7.1, 7.9]),
        (5, 5, 5, 20, [5]),
    ],
)
def test_log_ticks(low, high, most, letters, ticks):
    assert canvas.log_ticks(low, high, most=most, letters=letters) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("lr", 10, ["lr"]),
        ("noise_std_input", 14, ["noise_std_", "input"]),
        ("model/lambda_2..6", 10, ["model/", "lambda_2..", "6"]),
        ("abcdefghijklm", 5, ["abcde", "fghij", "klm"]),
        ("", 5, []),
    ],
)
def test_wrapped(name, width, lines):
    assert canvas.wrapped(name, width) == "\n".join(lines)


def test_lines_are_thinned_when_they_are_many():
    assert [canvas.thinned(lines) for lines in (0, 1, 40, 160, 10_000)] == [1.0, 1.0, 1.0, 0.5, 0.3]


@pytest.fixture
def page():
    with canvas.style():
        picture = canvas.Picture("a <b> & c")
        ax = picture.figure.add_subplot()
        ax.plot([0, 1], [0, 2], label="rising")
        ax.bar([0, 1], [1, 1], label="bars")
        ax.plot([0, 1], [1, 1], label="_rising")
        ax.plot([0, 1], [1, 2], label="best found")
        picture.hover(ax, [0, 1], [0, 2], ["</script><b>first", "second"], "rising")
        picture.hover(ax, [0.5], [1], ["of no entry"])
        picture.legend_below(ax)
        return picture, picture.page()


def test_a_page_opens_alone_and_its_texts_are_no_markup(page):
    _, text = page
    assert "<title>a &lt;b&gt; &amp; c</title>" in text and text.startswith("<!doctype html>")
    assert re.findall(r"<script", text) == ["<script"] and text.count("</script>") == 1
    assert not re.search(r'(src|href)="(?!#|data:)', text) and "<metadata>" not in text.split("</metadata>")[-1]


def test_a_page_has_each_text_where_its_point_is_drawn(page):
    picture, text = page
    points = json.loads(re.search(r"const points = (\{.*\});", text)[1])
    assert [said for _, _, said in points["0"]] == ["</script><b>first", "second"]
    ((x, y, said),) = points["-1"]
    assert said == "of no entry"
    width, height = 72 * picture.figure.get_size_inches()
    box = picture.figure.axes[0].get_position()
    assert box.x0 * width < points["0"][0][0] < x < points["0"][1][0] < box.x1 * width
    assert (1 - box.y1) * height < points["0"][1][1] < y < points["0"][0][1] <= (1 - box.y0) * height + 0.1
    # A marker at the last point has the same place in the SVG.
    with canvas.style():
        picture.figure.axes[0].plot([1], [2], "o", gid="marker")
        drawn = picture.page()
    use = re.search(r'id="marker".*?<use[^>]* x="([\d.]+)" y="([\d.]+)"', drawn, re.DOTALL)
    assert [float(use[1]), float(use[2])] == pytest.approx(
        json.loads(re.search(r"const points = (\{.*\});", drawn)[1])["0"][1][:2], abs=0.1
    )


def test_an_entry_of_the_legend_names_its_artists_and_the_best_is_last(page):
    _, text = page
    assert [text.count(f'id="entry-{number}"') for number in range(4)] == [2, 2, 1, 0]
    assert [text.count(f'id="legend-{number}"') for number in range(4)] == [1, 1, 1, 0]


def test_a_page_is_the_same_each_time(page):
    with canvas.style():
        assert page[0].page() == page[0].page()
