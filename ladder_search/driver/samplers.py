"""Optuna's samplers, with a new seed for every suggestion.

A suggestion depends on the search's seed, its number and the known trials. With one random stream, it would also depend
on the number of interruptions.
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
    sampler_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](sampler_seed)
