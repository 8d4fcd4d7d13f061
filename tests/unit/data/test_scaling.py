"""Imputation and scaling of numbers, against scikit-learn, and the module of an exported network."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from ladder_search.data.scaling import ScaledInputs, fit

ROWS = np.arange(0, 300, 2)


def table() -> tuple[np.ndarray, np.ndarray]:
    """300 rows of 20 numbers with missing ones, of very different scales, a constant one and an indicator column."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((300, 22)) * 10.0 ** rng.integers(-3, 4, 22) + 5).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 20] = 0.1
    x[:, 21] = rng.integers(0, 2, 300)
    return x, np.arange(22) != 21


@pytest.mark.parametrize(("kind", "scaler"), [("standard", StandardScaler()), ("unit", MinMaxScaler())])
def test_numbers_are_scaled_as_by_scikit_learn_fitted_on_the_same_rows(
    kind: Literal["standard", "unit"], scaler: object
) -> None:
    x, columns = table()
    scaling = fit(x, ROWS, columns, kind)
    pipeline = make_pipeline(SimpleImputer(strategy="median"), scaler).fit(x[ROWS][:, columns].astype(float))
    found = scaling(torch.from_numpy(x.astype(float))).numpy()
    np.testing.assert_allclose(found[:, columns], pipeline.transform(x[:, columns].astype(float)), rtol=1e-9, atol=1e-9)
    assert np.array_equal(found[:, 21], x[:, 21].astype(float))
    assert not np.isnan(found).any() and found[:, 20].tolist() == [0.0] * 300


def test_an_exported_network_scales_its_input() -> None:
    x, columns = table()
    scaling = fit(x, ROWS, columns)
    module = ScaledInputs(torch.nn.Identity(), (22,))
    rows = torch.from_numpy(x[:5])
    plain = torch.nan_to_num(rows)
    assert torch.equal(module(rows), plain)  # nothing fitted yet: medians of 0
    module.take(scaling)
    torch.testing.assert_close(module(rows), scaling(rows))
    assert set(module.state_dict()) == {"median", "centre", "factor"}
