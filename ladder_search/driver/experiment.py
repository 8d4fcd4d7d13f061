"""A search as Ray's experiment: where it keeps the trials' folders, what they are called, how often they are saved."""

from __future__ import annotations

from functools import partial
from typing import Any

from ray import tune

from ladder_search.driver import schedulers

UPDATES_AT_STAKE = 2000
"""Updates, not reports, set what a lost worker costs: about so many of them."""


def run_config(
    place: str,
    callback: tune.Callback,
    stop: tune.Stopper,
    *,
    report_every: int,
    steps_per_epoch: int,
    exploit_every: int | None,
) -> tune.RunConfig:
    """Return Ray's settings of an experiment.

    Args:
        place: folder or address of the trials' own folders.
        report_every: epochs between two reports of a trial.
        exploit_every: epochs between two comparisons of a population; None: trials are not copied.
    """
    frequency = max(1, round(UPDATES_AT_STAKE / (report_every * steps_per_epoch)))
    storage, _, name = place.rpartition("/")
    return tune.RunConfig(
        name=name,
        storage_path=storage,
        callbacks=[callback],
        stop=stop,
        verbose=0,
        checkpoint_config=tune.CheckpointConfig(
            checkpoint_at_end=True,
            num_to_keep=1
            if exploit_every is None
            else schedulers.kept_for_exploits(exploit_every, frequency * report_every),
            checkpoint_frequency=frequency,
        ),
        failure_config=tune.FailureConfig(max_failures=2),
    )


def names(life: int) -> dict[str, Any]:
    """Return the arguments of ``tune.TuneConfig`` that say how trials and their folders are called."""
    return {"trial_name_creator": _trial_name, "trial_dirname_creator": partial(_trial_folder, life=life)}


def _trial_name(trial: Any) -> str:
    return str(trial.config["key"])


def _trial_folder(trial: Any, life: int) -> str:
    """Every life has its own: Ray would write over the checkpoints that a trial goes on from."""
    return _trial_name(trial) if life == 1 else f"{_trial_name(trial)}.{life}"
