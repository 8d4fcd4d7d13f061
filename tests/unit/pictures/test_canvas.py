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
    assert canvas.wrapped(name, width, newline="<br>") == "<br>".join(lines)


def test_lines_are_thinned_when_they_are_many():
    assert [canvas.thinned(lines) for lines in (0, 1, 40, 160, 10_000)] == [1.0, 1.0, 1.0, 0.5, 0.3]
