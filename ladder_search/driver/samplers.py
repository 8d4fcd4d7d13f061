"""Optuna's samplers, seeded anew for every suggestion.

A suggestion follows from the search's seed, its own number and the trials known by then. With one stream of random
numbers for the whole search it would also depend on how often the search was interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class ReplayedCmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES whose state is computed from the trials of the study at every suggestion.

    Optuna's own keeps it as a pickle in the journal, which nobody should load from a file. A replay costs a matrix
    decomposition per generation: milliseconds.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._replayed_space = search_space
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        space = _SearchSpaceTransform(self._replayed_space, transform_step=True, transform_0_1=True)
        optimizer = self._init_optimizer(space, StudyDirection.MINIMIZE)
        while True:
            trials = self._get_solution_trials(completed_trials, optimizer.generation)[: optimizer.population_size]
            if len(trials) < optimizer.population_size:
                return optimizer
            optimizer.tell([(space.transform(trial.params), float(trial.value or 0.0)) for trial in trials])

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        return {}


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
