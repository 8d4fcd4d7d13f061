"""Schedulers that stop or copy trials early; the paper's configurations always run to their end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import optuna
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from ladder_search.errors import SettingError
from ladder_search.internals.ray import AmendedPBT
from ladder_search.metrics import EPOCH, STEP, VALIDATION_ERROR, Measure
from ladder_search.studies import StopConfig


def rungs(epochs: int, steps_per_epoch: int, stop: StopConfig) -> list[int]:
    """Return the epochs at which trials are compared, lowest first.

    The highest is ``epochs / reduction``; each lower one is ``reduction`` times lower, down to
    ``stop.first_rung_steps`` updates.
    """
    found: list[int] = []
    rung = math.ceil(epochs / stop.reduction)
    while rung * steps_per_epoch >= stop.first_rung_steps and rung < epochs and (not found or rung < found[-1]):
        found.append(rung)
        rung = math.ceil(rung / stop.reduction)
    return found[::-1]


class PatientASHA(FIFOScheduler):
    """Asynchronous successive halving (Li et al. 2020) that never stops protected trials.

    A trial stops at a rung if its error is worse than the best ``1 / reduction`` of the errors recorded there, and
    between rungs if it is worse than the study's failure level after the configured number of updates. What is worse
    is defined by the measure; losses are compared.
    """

    def __init__(self, *, rungs: Sequence[int], stop: StopConfig, reasons: dict[str, str], measure: Measure) -> None:
        """Args: ``rungs`` are epochs, possibly none; ``reasons`` receives, by key, why a trial was stopped."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorded: dict[int, dict[str, float]] = {rung: {} for rung in sorted(rungs, reverse=True)}
        """Loss by rung, highest first, and key."""
        self._stop, self._measure, self._reasons = stop, measure, reasons

    def recall(self, key: str, errors: Mapping[int, float | None]) -> None:
        for rung, recorded in self._recorded.items():
            if (error := errors.get(rung)) is not None:
                recorded[key] = self._measure.loss(error)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        key = trial.config["key"]
        is_worse = self._is_worse(key, result[EPOCH], result[VALIDATION_ERROR])
        if trial.config["protected"] or result.get("done"):
            return str(TrialScheduler.CONTINUE)
        if is_worse:
            self._reasons[key] = f"stopped at the rung of epoch {result[EPOCH]}"
        elif failure := failed(result, self._stop, self._measure):
            self._reasons[key] = failure
        else:
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if VALIDATION_ERROR in result:
            self._is_worse(trial.config["key"], result[EPOCH], result[VALIDATION_ERROR])

    def _is_worse(self, key: str, epoch: int, error: float) -> bool:
        """Record an error at the highest rung where the trial has none; return whether the trial should stop."""
        for rung, recorded in self._recorded.items():
            if epoch >= rung and key not in recorded:
                earlier = list(recorded.values())
                recorded[key] = loss = self._measure.loss(error)
                return bool(earlier) and loss > float(np.nanpercentile(earlier, 100 / self._stop.reduction))
        return False


class FailureRule(FIFOScheduler):
    """Stops failed trials; a ``rungs.Ladder`` decides on all others. Protected trials are never stopped."""

    def __init__(self, *, stop: StopConfig, reasons: dict[str, str], measure: Measure) -> None:
        """Args: ``reasons`` receives, by key, why a trial was stopped."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._stop, self._measure, self._reasons = stop, measure, reasons

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        failure = failed(result, self._stop, self._measure)
        if trial.config["protected"] or result.get("done") or not failure:
            return str(TrialScheduler.CONTINUE)
        self._reasons[trial.config["key"]] = failure
        return str(TrialScheduler.STOP)


def failed(result: Mapping[str, Any], stop: StopConfig, measure: Measure) -> str:
    """Return why a trial with this result has failed by the study's rule; "" if it has not."""
    if result[STEP] < stop.failure_steps or not measure.gain(result[VALIDATION_ERROR], stop.failure_error) < 0:
        return ""  # NaN ends a trial as diverged
    level = f"{measure.title} {measure.beyond(worse=True)} {measure.rounded(stop.failure_error)}"
    return f"{level} after {result[STEP]:,} updates"


def kept_for_exploits(interval: int, between: int) -> int:
    """Return how many checkpoints of a trial PBT needs, with an exploit every ``interval`` epochs.

    A copy starts from the checkpoint at the last comparison, up to an interval ago; meanwhile the source writes another
    one every ``between`` epochs.
    """
    return 3 + math.ceil(interval / between)


class PatientPBT(AmendedPBT):
    """Population based training (Jaderberg et al. 2017) over the parameters of a ``Space``.

    Ray refuses a searcher with PBT because changed parameters are not reported to it. Here the searcher draws the first
    generation only, and the record holds the trial's last parameters.
    """

    def __init__(
        self,
        *,
        interval: int,
        mode: str,
        distributions: Mapping[str, optuna.distributions.BaseDistribution],
        resolve: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        """Exploit every ``interval`` epochs in the direction ``mode``; ``resolve`` returns ``settings`` and the
        program of flat parameters."""

        def explore(config: dict[str, Any]) -> dict[str, Any]:
            params = {name: _clip(value, distributions[name]) for name, value in config["params"].items()}
            return {**config, "params": params, **resolve(params)}

        super().__init__(
            time_attr=EPOCH,
            metric=VALIDATION_ERROR,
            mode=mode,
            perturbation_interval=interval,
            hyperparam_mutations={"params": {name: _sampler(d) for name, d in distributions.items()}},
            custom_explore_fn=explore,
            log_config=False,  # Ray would write its own log files; records and runs contain the same
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        # A protected trial is scheduled with the others, but has no score, so it is never copied or replaced.
        super().on_trial_add(cast(Any, SimpleNamespace(search_alg=None)), trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["protected"] or result.get("done"):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def amended(self, trial: Any, config: dict[str, Any]) -> dict[str, Any]:
        # Take parameters and weights of the other trial, but keep the identity.
        return config | {name: trial.config[name] for name in ("key", "number", "name", "protected", "start")}


def _clip(value: Any, distribution: optuna.distributions.BaseDistribution) -> Any:
    """Return the nearest value of the distribution to a number that a mutation has scaled."""
    if not isinstance(distribution, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution):
        return value
    kind = int if isinstance(distribution, optuna.distributions.IntDistribution) else float
    low, high, step = distribution.low, distribution.high, distribution.step
    inside = min(max(float(value), low), high)
    return inside if step is None else kind(low + round((inside - low) / step) * step)


def _sampler(distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.FloatDistribution):
        kind = tune.loguniform if distribution.log else tune.uniform
        return kind(distribution.low, distribution.high)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        whole = tune.lograndint if distribution.log else tune.randint
        return whole(distribution.low, distribution.high + 1)
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return list(distribution.choices)
    raise SettingError(
        "pbt mutates floating-point, integer and categorical parameters, and the space has a "
        f"{type(distribution).__name__}; choose --scheduler asha."
    )
