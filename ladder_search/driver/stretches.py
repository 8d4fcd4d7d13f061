"""Trials that go on in several stretches: between the rungs of a ladder, and over the executions of a search."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from ladder_search.data.dataset import Dataset
from ladder_search.driver.resume import Past
from ladder_search.driver.rungs import Ladder, ladder_of
from ladder_search.driver.searcher import Unfinished
from ladder_search.studies import Study
from ladder_search.trial import TrialSpec

STRETCHES = 8
"""Maximum number of promotions of a trial in one execution."""


def new_ladder(study: Study, own: TrialSpec, dataset: Dataset, *, trials: int) -> Ladder:
    """Return the rungs of a search without trials; ``own`` is the study's configuration."""
    epochs, steps = study.training.epochs, own.member(dataset).steps_per_epoch
    fitted = own.data.preprocessing != "none" or dataset.scaled is not None
    most = 1 if fitted else math.inf  # what is fitted depends on the label draw
    rungs = ladder_of(epochs, steps, study.stop, trials=trials, most_draws=most)
    return Ladder(rungs, epochs=epochs, reduction=study.stop.reduction, measure=study.measure)


def by_rung(
    ladder: Ladder | None, past: Past, references: Collection[str]
) -> tuple[list[Unfinished], dict[str, Unfinished]]:
    """Return the unfinished trials of earlier executions that go on, and those that wait at a rung, by key.

    The ladder receives the values of all earlier trials. Args: ``references`` are the keys of fixed configurations.
    """
    if ladder is None:
        return past.unfinished, {}
    for key, rows in past.rows.items():
        ladder.report(key, rows, reference=key in references)
    waiting = {
        trial.trial["key"]: trial
        for trial in past.unfinished
        if not trial.trial["name"] and trial.checkpoint and ladder.pauses(trial.epoch)
    }
    return [trial for trial in past.unfinished if trial.trial["key"] not in waiting], waiting


def trial_name(trial: Any) -> str:
    """Return Ray's name of a trial."""
    return str(trial.config["key"])


def trial_folder(trial: Any, life: int) -> str:
    """Return a folder name unique to the execution and to the trial's stretch between two rungs: Ray would overwrite
    the checkpoints that a trial continues from. Later ones have higher numbers."""
    number = life + STRETCHES * (life - 1) + trial.config["stretch"]
    return trial_name(trial) if number == 1 else f"{trial_name(trial)}.{number}"
