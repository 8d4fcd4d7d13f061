"""How what is minimised is written, by hand."""

from __future__ import annotations

import pytest

from ladder_search.metrics import ERROR, MEASURES, NLL, PREDICTION_ERROR, Measure


@pytest.mark.parametrize(
    ("measure", "value", "text", "number", "rounded", "apart", "label"),
    [
        (ERROR, 0.0106, "1.06 %", "1.06", "1.06 %", "1.06 points", "error"),
        (ERROR, 1.0, "100.00 %", "100.00", "100 %", "100.00 points", "error"),
        (NLL, 8.45, "8.450 nats per step", "8.450", "8.45 nats per step", "8.450 nats", "NLL, nats per step"),
        (PREDICTION_ERROR, 150.1e-5, "150.1 x 1e-5", "150.1", "150.1 x 1e-5", "150.1 x 1e-5",
         "prediction error, x 1e-5"),
    ],
)  # fmt: skip
def test_values_as_text(
    measure: Measure, value: float, text: str, number: str, rounded: str, apart: str, label: str
) -> None:
    assert (measure.text(value), measure.number(value), measure.rounded(value)) == (text, number, rounded)
    assert (measure.apart(value), measure.label) == (apart, label)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_there_may_be_no_value(measure: Measure) -> None:
    assert [measure.text(value) for value in (None, float("nan"), float("inf"))] == ["–"] * 3
