"""Contrast normalisation and ZCA whitening against plain NumPy, on random images of CIFAR-10's kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder_search.data import whitening
from ladder_search.data.whitening import contrast_normalised, fit

RNG = np.random.default_rng(0)
D = 48


def images(n: int) -> np.ndarray:
    """Rows of neighbours that are alike, uint8."""
    walk = RNG.normal(scale=20.0, size=(n, D)).cumsum(axis=1)
    return np.clip(128.0 + walk, 0.0, 255.0).astype(np.uint8)


def contrast(x: np.ndarray) -> np.ndarray:
    x = x.astype(float)
    x = x - x.mean(axis=1, keepdims=True)
    return x / (np.sqrt((x**2).sum(axis=1, keepdims=True)) / 55.0)


@pytest.fixture(params=[7, 10_000])
def rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "_ROWS_AT_ONCE", request.param)


@pytest.mark.usefixtures("rows_at_once")
def test_it_is_numpys() -> None:
    trained_on, others = images(300), images(20)
    seen = contrast(trained_on)
    covariance = np.cov(seen, rowvar=False, bias=True) + 0.1 * np.eye(D)
    values, vectors = np.linalg.eigh(covariance)
    P = vectors @ np.diag(1.0 / np.sqrt(values)) @ vectors.T
    found = fit(torch.from_numpy(trained_on))
    np.testing.assert_allclose(found.mean.numpy(), seen.mean(axis=0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.P.numpy(), P, rtol=1e-8, atol=1e-10)
    for rows in (trained_on, others):
        expected = (contrast(rows) - seen.mean(axis=0)) @ P
        given = found(torch.from_numpy(rows))
        assert given.dtype == torch.float32
        np.testing.assert_allclose(given.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_whitened_has_no_correlations_left_but_those_of_the_bias() -> None:
    x = torch.from_numpy(images(5000))
    white = fit(x)(x).double().numpy()
    np.testing.assert_allclose(white.mean(axis=0), np.zeros(D), atol=1e-5)
    covariance = np.cov(white, rowvar=False, bias=True)
    # An eigenvalue v becomes v / (v + 0.1): almost 1 where there was variance.
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.05
    before = np.linalg.eigvalsh(np.cov(contrast(x.numpy()), rowvar=False, bias=True))
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), np.sort(before / (before + 0.1)), atol=1e-4)


def test_contrast_is_a_length_of_55_and_a_flat_image_stays_flat() -> None:
    x = np.concatenate([images(5), np.full((1, D), 200, np.uint8)])
    found = contrast_normalised(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.linalg.norm(found[:5], axis=1), 55.0)
    np.testing.assert_allclose(found.mean(axis=1), 0.0, atol=1e-12)
    assert not found[5].any()
