"""Private names of Optuna, as Optuna 5.0 defines them. Any release may change them; pyproject.toml bounds it."""

from __future__ import annotations

from typing import Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

VERSION = "5.0"


class ReplayedCmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES that recomputes its state from the study's trials at every suggestion.

    Optuna's own stores it as a pickle in the journal, which is unsafe to load. Recomputing costs a matrix decomposition
    per generation: milliseconds.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._replayed_space, self._replayed_direction = search_space, study.direction
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        space = _SearchSpaceTransform(self._replayed_space, transform_step=True, transform_0_1=True)
        optimizer = self._init_optimizer(space, self._replayed_direction)
        sign = -1.0 if self._replayed_direction == StudyDirection.MAXIMIZE else 1.0
        while True:
            trials = self._get_solution_trials(completed_trials, optimizer.generation)[: optimizer.population_size]
            if len(trials) < optimizer.population_size:
                return optimizer
            optimizer.tell([(space.transform(trial.params), sign * float(trial.value or 0.0)) for trial in trials])

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        return {}


def frozen_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Return one trial of a study without copying all, as the public methods do."""
    return study._storage.get_trial(study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def set_intermediate_value(study: optuna.Study, trial: FrozenTrial, step: int, value: float) -> None:
    study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def set_state(study: optuna.Study, trial: FrozenTrial, state: TrialState) -> None:
    """Set an unfinished trial to another state that is not final."""
    study._storage.set_trial_state_values(trial._trial_id, state)
