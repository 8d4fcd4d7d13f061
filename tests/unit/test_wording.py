import pytest

from ladder_search import wording
from ladder_search.metrics import ERROR, NLL


@pytest.mark.parametrize(
    ("error", "text"), [(0.0106, "1.06 %"), (0.0, "0.00 %"), (1.0, "100.00 %"), (None, "–"), (float("nan"), "–")]
)
def test_percent(error, text):
    assert wording.percent(error) == text


def test_titles_are_told_once():
    assert wording.titles([ERROR, NLL, ERROR]) == "error / NLL"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (float("inf"), "–"),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.9, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (86_400 * 2 + 3600 * 3, "2 d 03 h"),
        (-5, "0 s"),
    ],
)
def test_duration(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (1000.0, "1000"),
        (1234.5, "1230"),
        (0.002000001, "0.002"),
        (1.5e-5, "1.5e-05"),
        (3e9, "3e+09"),
        (7, "7"),
        (12345, "12345"),
        ("gauss", "gauss"),
        (True, "True"),
        (None, "None"),
    ],
)
def test_value(given, text):
    assert wording.value(given) == text


def test_sections_are_left_out_where_that_is_unambiguous():
    names = ["model/lambda_0", "training/lr", "encoder/lr", "seed"]
    assert wording.short_names(names) == {
        "model/lambda_0": "lambda_0",
        "training/lr": "training/lr",
        "encoder/lr": "encoder/lr",
        "seed": "seed",
    }


def test_assignments():
    assert (
        wording.assignments({"model/lambda_0": 1000.0, "model/combinator": "gauss"}) == "lambda_0=1000 combinator=gauss"
    )
    assert wording.assignments({}) == "–"
