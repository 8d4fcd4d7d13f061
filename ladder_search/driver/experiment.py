"""Ray's settings of an experiment: location and names of trial folders, and checkpoint frequency."""

from __future__ import annotations

from functools import partial
from typing import Any

from ray import tune

from ladder_search.driver import schedulers

UPDATES_AT_STAKE = 2000
"""Approximate number of updates between checkpoints, and therefore lost with a worker."""


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
        place: folder or address of the trial folders.
        report_every: epochs between two reports of a trial.
        exploit_every: epochs between two comparisons of a population; None without copies.
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
    return {"trial_name_creator": _trial_name, "trial_dirname_creator": partial(_trial_folder, life=life)}


def _trial_name(trial: Any) -> str:
    return str(trial.config["key"])


def _trial_folder(trial: Any, life: int) -> str:
    """Return a folder name unique to the execution: Ray would overwrite the checkpoints that a trial continues from."""
    return _trial_name(trial) if life == 1 else f"{_trial_name(trial)}.{life}"
