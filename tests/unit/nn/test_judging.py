"""Error, balanced error and log-loss, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from ladder_search.metrics import CLASS_MEASURES, MEASURES, judged_by
from ladder_search.nn.judging import class_measures, class_sums


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shares", [[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
def test_measures_are_those_of_scikit_learn(dtype: torch.dtype, shares: list[float]) -> None:
    rng = np.random.default_rng(1)
    y = rng.choice(3, 200, p=shares)
    probabilities = torch.softmax(torch.from_numpy(3.0 * rng.standard_normal((200, 3))), 1).to(dtype)
    probabilities[:4] = torch.eye(3, dtype=dtype)[[0, 1, 2, 0]]  # certain rows, some of them wrong
    sums = sum(class_sums(probabilities[part], torch.from_numpy(y[part])) for part in (slice(0, 90), slice(90, 200)))
    assert isinstance(sums, torch.Tensor) and sums.dtype == torch.float64
    values = dict(zip(CLASS_MEASURES, class_measures(sums.unsqueeze(0), CLASS_MEASURES)[0].tolist(), strict=True))
    predicted = probabilities.numpy().argmax(1)
    assert values["error"] == pytest.approx(1 - accuracy_score(y, predicted), abs=1e-12)
    assert values["balanced_error"] == pytest.approx(1 - balanced_accuracy_score(y, predicted), abs=1e-12)
    expected = log_loss(y, probabilities.numpy(), labels=[0, 1, 2])
    assert values["log_loss"] == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 1e-12)


def test_rows_without_a_class_are_not_counted_and_further_sums_are_means() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], dtype=torch.float64)
    y = torch.tensor([0, 1, 1, -1])
    sums = torch.cat([class_sums(probabilities, y), torch.tensor([2.0], dtype=torch.float64)])
    names = ("log_loss", "student_error", "balanced_error", "error")
    found = class_measures(sums.unsqueeze(0), names)[0].tolist()
    assert found == pytest.approx([-np.log([0.9, 0.8, 0.4]).mean(), 2 / 3, 0.25, 1 / 3])


def test_the_chosen_measure_comes_first() -> None:
    assert judged_by("log_loss", ("error", "student_error")) == ("log_loss", "error", "balanced_error", "student_error")
    assert MEASURES["balanced_error"].text(0.0106) == "1.06 %" and MEASURES["balanced_error"].limit == 1.0
    assert MEASURES["log_loss"].text(0.2345) == "0.234 nats" and MEASURES["log_loss"].limit is None
    assert {MEASURES[name].direction for name in CLASS_MEASURES} == {"minimize"}
