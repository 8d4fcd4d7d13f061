"""The rival of the benchmarks: Ray Tune and PyTorch as an experienced user writes them, one plain loop per core.

Random search over a given list of configurations, with FIFO or Ray's ASHA, reused actors, no logging, and the training
set in the object store. The loop is ``plain_loop`` (cost, rows and noise of our trials, one thread, fused Adam); every
epoch ends with the same validation as ours, and trials report at the same epochs. The list is made beforehand, so that
the search imports neither Optuna nor the driver.

    python -m benchmarks.rivals FOLDER

reads ``plan.json`` in the folder and writes ``result.json``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

# As in our trials; otherwise each trial process starts a compile worker per core.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from benchmarks import searches
from benchmarks.plain_loop import PlainLoop
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.training.feeding import training_feed
from ladder_search.training.pack import MemberSpec, TrainingData
from ladder_search.training.schedules import learning_rate
from ladder_search.trial import TrialSpec

EPOCH, ERROR, KEY = "epoch", "validation_error", "key"
_WEIGHTS = "member.pt"


class Plan(TypedDict):
    """Plan of a search, as stored in the file."""

    dataset: str
    epochs: int
    report_at: list[int]
    """Epochs at which a trial reports; the last is ``epochs``."""
    rungs: list[int]
    """Epochs at which ASHA compares."""
    configurations: dict[str, dict[str, Any]]
    """Name of the trial in our search -> a ``TrialSpec`` as a mapping."""
    scheduler: str
    """fifo or asha."""
    compiled: bool


class Ended(TypedDict):
    """One ended trial of a search; times are seconds since 1970."""

    key: str
    epochs: int
    error: float
    begun: float
    ended: float


class PlainTraining(PlainLoop):
    """The plain loop with the schedule and the validation of successive trials."""

    def __init__(self, spec: MemberSpec, data: TrainingData, *, compiled: bool) -> None:
        super().__init__(spec, data, compiled=compiled)
        self.signature = spec.signature()
        self.begin(spec)

    def begin(self, spec: MemberSpec) -> None:
        """Start another trial of the same sizes, with new weights and a new optimiser, in the same program."""
        self.restart(spec)
        self._spec, self._epoch = spec, 0

    def epoch(self) -> float:
        """Train an epoch and return the validation error."""
        training = self._spec.training
        rate = learning_rate(self._epoch, base=training.lr, epochs=training.epochs, decay_start=training.decay_start)
        self._optimiser.param_groups[0]["lr"] = rate
        self.run(self._spec.steps_per_epoch)
        self._epoch += 1
        return self.validation_error()

    def state(self) -> dict[str, Any]:
        """Return the state from which the trial can continue elsewhere."""
        return {
            "epoch": self._epoch,
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        self._epoch = state["epoch"]
        self._step = self._epoch * self._spec.steps_per_epoch
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])


class PlainTrial(tune.Trainable):
    """One configuration per trial, in a reused process; ``config["key"]`` is its name in the plan, which is in the
    object store with the training set."""

    def setup(self, config: dict[str, Any], dataset: Any = None, plan: Any = None) -> None:
        torch.set_num_threads(1)
        self._dataset: Dataset = dataset
        self._plan: Plan = plan
        self._programs: dict[object, PlainTraining] = {}
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        until = min(epoch for epoch in self._plan["report_at"] if epoch > self._done)
        while self._done < until:
            error = self._training.epoch()
            self._done += 1
        return {EPOCH: self._done, ERROR: error, "done": self._done >= self._plan["epochs"]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        torch.save(self._training.state(), Path(checkpoint_dir) / _WEIGHTS)

    def load_checkpoint(self, checkpoint: Any) -> None:
        self._training.go_on(torch.load(Path(checkpoint) / _WEIGHTS))
        self._done = self._training.state()["epoch"]

    def _take(self, config: dict[str, Any]) -> None:
        spec = TrialSpec.from_mapping(self._plan["configurations"][config[KEY]]).member(self._dataset)
        program = self._programs.get(spec.signature())
        if program is None:
            data = training_feed(spec, self._dataset, torch.device("cpu"))
            program = self._programs[spec.signature()] = PlainTraining(spec, data, compiled=self._plan["compiled"])
        else:
            program.begin(spec)
        self._training, self._done = program, 0


def scheduler(plan: Plan) -> TrialScheduler:
    """Return FIFO, or Ray's ASHA with our rungs: one grace period, reduction 3."""
    if plan["scheduler"] == "fifo":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    (rung,) = plan["rungs"]  # Ray counts its rungs up from the first: more than one would lie elsewhere than ours
    return AsyncHyperBandScheduler(
        time_attr=EPOCH, metric=ERROR, mode="min", max_t=plan["epochs"], grace_period=rung, reduction_factor=3
    )


def search(plan: Plan) -> list[Ended]:
    """Train every configuration of the plan; return the trials in the order of their ends."""
    with searches.prepared() as folder:
        _, trials = searches.fit(
            tune.with_parameters(PlainTrial, dataset=datasets.load(plan["dataset"]), plan=plan),
            folder,
            {KEY: tune.grid_search(list(plan["configurations"]))},
            scheduler=scheduler(plan),
            reuse_actors=True,
        )
    return [
        {
            "key": trial.config[KEY],
            "epochs": trial.result[EPOCH],
            "error": trial.result[ERROR],
            "begun": trial.begun,
            "ended": trial.ended,
        }
        for trial in trials
    ]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    ended = search(json.loads((place / "plan.json").read_text(encoding="utf-8")))
    (place / "result.json").write_text(json.dumps(ended), encoding="utf-8")
