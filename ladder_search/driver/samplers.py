"""Optuna's samplers, seeded anew for every suggestion.

A suggestion follows from the search's seed, its own number and the trials known by then. With one stream of random
numbers for the whole search it would also depend on how often the search was interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import optuna

from ladder_search.internals.optuna import ReplayedCmaEs

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "cma-es": lambda seed: ReplayedCmaEs(seed=seed),
}


def sampler_for(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of suggestion ``number`` in a search with this seed."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](own)
