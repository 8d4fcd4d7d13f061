"""Estimates of means from different numbers of label draws."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.driver.estimates import draw_effects, estimates, noise_variance


def test_a_hard_draw_is_allowed_for() -> None:
    values = {"a": {0: 1.0, 1: 3.0}, "b": {0: 2.0, 1: 4.0}, "c": {1: 3.5}}
    assert draw_effects(values) == {0: 0.0, 1: 2.0}
    found = estimates(values)
    assert found["a"] == pytest.approx(1.0) and found["c"] == pytest.approx(1.5), "there is no noise to shrink for"


def test_without_repeated_values_means_stay() -> None:
    assert estimates({"a": {0: 1.0}, "b": {0: 2.0}, "c": {0: 9.0}}) == {"a": 1.0, "b": 2.0, "c": 9.0}
    assert estimates({}) == {} and noise_variance({"a": {0: 1.0}}, {0: 0.0}) is None


def test_estimates_are_closer_to_the_truth_than_means() -> None:
    """Random-effects model with known variances: shrinkage reduces the squared error, most with one draw."""
    generator = np.random.default_rng(3)
    own, shrunk = [], []
    for _ in range(200):
        truth = 5.0 + 0.5 * generator.standard_normal(30)
        draws = generator.choice([1, 1, 1, 3, 9], 30)
        effects = 0.7 * generator.standard_normal(9)
        values = {
            f"t{i}": {d: truth[i] + effects[d] + 0.8 * generator.standard_normal() for d in range(draws[i])}
            for i in range(30)
        }
        found = estimates(values)
        means = {key: np.mean(list(one.values())) for key, one in values.items()}
        # The first draw's own effect is common to all: it does not matter for a comparison.
        own.append(np.var([means[f"t{i}"] - truth[i] for i in range(30)]))
        shrunk.append(np.var([found[f"t{i}"] - truth[i] for i in range(30)]))
    assert np.mean(shrunk) < 0.7 * np.mean(own)


def test_the_noise_is_estimated_without_bias() -> None:
    generator = np.random.default_rng(5)
    found = []
    for _ in range(300):
        values = {f"t{i}": {d: 3.0 * d + i + 0.5 * generator.standard_normal() for d in range(3)} for i in range(6)}
        found.append(noise_variance(values, draw_effects(values)))
    assert np.mean([value for value in found if value is not None]) == pytest.approx(0.25, rel=0.1)
