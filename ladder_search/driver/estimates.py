"""Estimates of each configuration's mean value from different numbers of label draws.

The value of configuration k on draw d is modelled as a_k + b_d + noise: label draws are easier or harder for all
configurations alike. A mean over few draws is shrunk towards the mean of all configurations, by its share of noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

Values = Mapping[str, Mapping[int, float]]
"""Configuration -> draw -> value."""


def draw_effects(values: Values) -> dict[int, float]:
    """Return by how much each draw's values differ from those of draw 0, over the configurations that have both."""
    effects = {0: 0.0}
    for draw in sorted({draw for own in values.values() for draw in own} - {0}):
        pairs = [own[draw] - own[0] for own in values.values() if draw in own and 0 in own]
        effects[draw] = statistics.fmean(pairs) if pairs else 0.0
    return effects


def noise_variance(values: Values, effects: Mapping[int, float]) -> float | None:
    """Return the variance of a single value around its configuration's mean, without the draws' effects; None if no
    configuration has two values."""
    squares, degrees = 0.0, -(len(effects) - 1)  # the effects are estimated, too
    for own in values.values():
        if len(own) > 1:
            adjusted = [value - effects[draw] for draw, value in own.items()]
            squares += statistics.variance(adjusted) * (len(adjusted) - 1)
            degrees += len(adjusted) - 1
    return squares / degrees if degrees > 0 else None


def estimates(values: Values) -> dict[str, float]:
    """Return each configuration's estimated mean: adjusted for its draws, then shrunk (a random-effects model).

    Without a configuration that has two values, or with fewer than three configurations, the means are not shrunk.
    """
    effects = draw_effects(values)
    means = {
        key: statistics.fmean(value - effects[draw] for draw, value in own.items())
        for key, own in values.items()
        if own
    }
    noise = noise_variance(values, effects)
    if noise is None or len(means) < 3:
        return means
    centre = statistics.fmean(means.values())
    of_means = statistics.fmean(noise / len(values[key]) for key in means)
    spread = max(0.0, statistics.variance(means.values()) - of_means)
    return {
        key: centre + (mean - centre) * (spread / (spread + noise / len(values[key])) if spread else 0.0)
        for key, mean in means.items()
    }
