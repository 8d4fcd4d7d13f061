"""One search from its settings to its leaderboard."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from ray import tune
from rich.console import Console

from ladder_search.config import as_mapping, merge
from ladder_search.data import datasets
from ladder_search.data.datasets import Dataset
from ladder_search.driver import cluster, schedulers
from ladder_search.driver.callback import SearchCallback
from ladder_search.driver.leaderboard import summary
from ladder_search.driver.pictures import draw_all
from ladder_search.driver.progress import Progress
from ladder_search.driver.searcher import FixedPoint, OptunaSearcher, open_studies
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import SettingError
from ladder_search.export.provenance import as_tags, collect
from ladder_search.record import StudyFolder, TrialRecord
from ladder_search.studies import Study, find_study
from ladder_search.tracking import DatasetInput, MetricPoint, SpoolTracker, Tracker
from ladder_search.tracking.address import check, default_store
from ladder_search.training.compiling import compile_pays, compiler_found
from ladder_search.trial import TrialSpec


class Space(Protocol):
    """A family's search space, as the entry point hands it in."""

    @property
    def suggest(self) -> Callable[[optuna.trial.BaseTrial, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]: ...

    @property
    def published(self) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any] | None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search leaves behind."""

    study: Study
    folder: StudyFolder
    records: list[TrialRecord]
    store: str
    stored: bool
    """Whether the tracking store has everything; otherwise ``ladder-search sync`` sends the rest."""
    interrupted: bool
    problems: list[str]


def run_search(
    settings: SearchSettings,
    *,
    trainables: Mapping[str, type[tune.Trainable]],
    spaces: Mapping[str, Space],
    console: Console,
) -> SearchResult:
    """Run a search to its end and return what it found.

    Everything that can be known to be wrong is checked before Ray starts.

    Raises:
        LadderSearchError: bad settings, data that cannot be had, a folder in use, a store that does not answer, a
            machine without what a trial asks for.
    """
    study = settings.resolved_study()
    dataset = datasets.load(study.data.dataset, notify=console.print)
    seeds = {"seed": settings.seed, "label_seed": settings.label_seed, "draws": settings.draws}
    own = study.trial(**seeds)
    own.check_fits(dataset)
    root = Path(settings.root)
    folder = StudyFolder(root / settings.folder_name(datetime.now()))
    store = settings.tracking or default_store(root)
    with folder.locked():
        check(store)
        search = f"{study.name}/{folder.path.name}"
        provenance = collect(data_name=dataset.name, data_digest=dataset.digest)
        folder.create(
            {"settings": as_mapping(settings), "study": as_mapping(study), "store": store, "provenance": provenance}
        )
        tracker = SpoolTracker(folder.spool, store, study.name)
        try:
            with cluster.connected(settings.address) as private:
                run = _Run(settings, study, own, dataset, folder, tracker, search, provenance, console)
                interrupted, problems = run.go(private, trainables[study.family], spaces[study.family])
        finally:
            console.print("Sending the last results to the tracking store …")
            stored = tracker.close()
    return SearchResult(
        study=study,
        folder=folder,
        records=folder.read_trials(),
        store=store,
        stored=stored,
        interrupted=interrupted,
        problems=[*problems, *tracker.problems()],
    )


class _Run:
    """The parts of one search while it runs."""

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        own: TrialSpec,
        dataset: Dataset,
        folder: StudyFolder,
        tracker: Tracker,
        search: str,
        provenance: Mapping[str, Any],
        console: Console,
    ) -> None:
        self._settings, self._study, self._own, self._dataset = settings, study, own, dataset
        self._folder, self._tracker, self._search, self._console = folder, tracker, search, console
        self._provenance = provenance
        self._base = own.as_mapping()
        self._options = as_mapping(study.space)
        self._epochs = study.training.epochs
        self._steps_per_epoch = own.member(dataset).steps_per_epoch

    def __getstate__(self) -> dict[str, Any]:
        """Reached from a scheduler that Ray pickles into its snapshot, which nothing reads."""
        return {}

    def go(self, private: bool, trainable: type[tune.Trainable], space: Space) -> tuple[bool, list[str]]:
        settings, study = self._settings, self._study
        share = cluster.Share(
            cpus=settings.cpus_per_trial / settings.slots, gpus=settings.gpus_per_trial / settings.slots
        )
        room = cluster.capacity(share, private=private)
        # A cluster that others share may grow: there, trials wait for nodes rather than nodes for trials.
        concurrency = settings.max_concurrent or (room if private else settings.trials)
        if not private:
            os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(min(settings.trials, 16)))
            if not settings.storage:
                self._console.print("Checkpoints go to the study folder: all nodes must see it, or name a --storage.")
        points = self._points(space)
        if settings.trials < len(points):
            names = " and ".join(point.name for point in points)
            self._console.print(f"With {settings.trials} trial(s) only fixed points run ({names} come first).")
        reasons: dict[str, str] = {}
        optuna_study, references = self._open_optuna()
        callback = SearchCallback(
            search=self._search,
            folder=self._folder,
            tracker=self._tracker,
            progress=Progress(study, settings.trials, concurrency, self._console),
            epochs=self._epochs,
            tags=self._tags(),
            dataset=self._dataset_input(),
            reasons=reasons,
        )
        self._start_parent_run(space, optuna_study)
        searcher = OptunaSearcher(
            optuna_study,
            references,
            lambda trial: self._resolve(space, trial),
            points,
            epochs=self._epochs,
            common={
                "compiled": self._compiled(concurrency),
                "report_every": study.report_every,
                "threads": max(1, int(share.cpus)),
                "device": "cuda" if share.gpus else "cpu",
            },
        )
        updates_between = study.report_every * self._steps_per_epoch
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trainable, dataset=_without_test_set(self._dataset)),
                {"cpu": share.cpus, "gpu": share.gpus},
            ),
            tune_config=tune.TuneConfig(
                num_samples=settings.trials,
                search_alg=searcher,
                scheduler=self._scheduler(space, optuna_study, reasons),
                max_concurrent_trials=concurrency,
                time_budget_s=settings.time_budget,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=self._folder.path.name if settings.storage else self._folder.checkpoints.name,
                storage_path=settings.storage or str(self._folder.path),
                callbacks=[callback],
                verbose=0,
                # Updates, not reports, set what a lost worker costs: about 2,000 of them.
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=True, num_to_keep=1, checkpoint_frequency=max(1, round(2000 / updates_between))
                ),
                failure_config=tune.FailureConfig(max_failures=2),
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        with callback.progress, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = tuner.fit()
        callback.end_all(results._experiment_analysis.trials)
        self._finish_parent_run(optuna_study)
        return len(callback.records) < settings.trials, callback.problems

    def _points(self, space: Space) -> list[FixedPoint]:
        """The configurations that run first: the study's own, and its supervised baseline on the same draw."""
        points = [FixedPoint(name="published", settings=self._base, params=space.published(self._base, self._options))]
        if self._study.baseline is not None:
            baseline = find_study(self._study.baseline)
            spec = replace(
                self._own,
                model=baseline.model,
                training=replace(baseline.training, epochs=self._epochs),
            )
            points.append(FixedPoint(name="supervised baseline", settings=spec.as_mapping(), params=None))
        return points

    def _resolve(self, space: Space, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        settings = merge(self._base, space.suggest(trial, self._base, self._options))
        return TrialSpec.from_mapping(settings).as_mapping()

    def _open_optuna(self) -> tuple[optuna.Study, optuna.Study]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return open_studies(self._folder.journal, self._search, self._settings.sampler, self._settings.seed)

    def _scheduler(self, space: Space, study: optuna.Study, reasons: dict[str, str]) -> Any:
        name = self._settings.scheduler
        if name == "pbt":
            return self._pbt(space)
        rungs = schedulers.rungs(self._epochs, self._steps_per_epoch, self._study.stop)
        if name == "asha" and rungs:
            return schedulers.PatientASHA(epochs=self._epochs, first=rungs[0], stop=self._study.stop, reasons=reasons)
        return None  # every trial runs to its end

    def _pbt(self, space: Space) -> schedulers.PatientPBT:
        probe = optuna.create_study().ask()
        space.suggest(probe, self._base, self._options)
        if not probe.distributions:
            raise SettingError(
                "pbt needs parameters to change and the space of this search has none; choose --scheduler asha."
            )
        return schedulers.PatientPBT(
            interval=max(self._study.report_every, self._epochs // 10),
            distributions=probe.distributions,
            resolve=lambda params: self._resolve(space, optuna.trial.FixedTrial(dict(params))),
            seed=self._settings.seed,
        )

    def _compiled(self, concurrency: int) -> bool:
        choice = self._settings.compile
        if choice == "on" and not compiler_found():
            raise SettingError(
                "--compile on needs a C++ compiler and none was found; install g++ or choose --compile off."
            )
        member = self._own.member(self._dataset)
        updates = self._settings.trials * self._settings.draws * member.total_steps // concurrency
        return choice == "on" or (choice == "auto" and compiler_found() and compile_pays(member.flops, updates))

    def _tags(self) -> dict[str, str]:
        return {
            "study": self._study.name,
            "family": self._study.family,
            "search": self._folder.path.name,
            "git_sha": str(self._provenance.get("git_sha")),
        }

    def _dataset_input(self) -> DatasetInput:
        member = self._own.member(self._dataset)
        rows = {"labelled": len(member.split.labelled), "unlabelled": len(member.split.unlabelled)}
        return DatasetInput(
            name=self._dataset.name,
            digest=self._dataset.digest,
            rows={**rows, "validation": len(member.split.validation)},
        )

    def _start_parent_run(self, space: Space, study: optuna.Study) -> None:
        settings, target = as_mapping(self._settings), self._study.target
        self._tracker.start_run(
            f"{self._search}/search",
            name=self._folder.path.name,
            params={name: str(value) for name, value in settings.items()},
            tags={
                **self._tags(),
                **as_tags(self._provenance),
                "kind": "search",
                "target": str(target) if target else "none published",
                "space": json.dumps(self._options),
                "sampler_arguments": json.dumps({"name": self._settings.sampler, "seed": self._settings.seed}),
            },
            dataset=self._dataset_input(),
        )
        self._tracker.log_artifact(f"{self._search}/search", self._folder.path / "study.json")

    def _finish_parent_run(self, study: optuna.Study) -> None:
        run = f"{self._search}/search"
        records = self._folder.read_trials()
        for path in draw_all(self._folder, self._study, records, study):
            self._tracker.log_artifact(run, path, "pictures")
        self._tracker.log_artifact(run, self._folder.journal)
        found = summary(self._study, records)
        now = int(datetime.now().timestamp() * 1000)
        values = {
            "best_validation_error": found.best,
            "published_validation_error": found.published,
            "baseline_validation_error": found.baseline,
            **{f"trials_{state.lower()}": count for state, count in found.counts.items()},
        }
        points = [
            MetricPoint(name=name, value=float(value), step=0, time_ms=now)
            for name, value in values.items()
            if value is not None
        ]
        self._tracker.log_metrics(run, points)
        self._tracker.end_run(run, "FINISHED")


def _without_test_set(dataset: Dataset) -> Dataset:
    """The test set stays with the driver: a search must not be able to read it."""
    return replace(dataset, test_x=np.empty((0, *dataset.test_x.shape[1:]), np.uint8), test_y=np.empty(0, np.uint8))


def _trial_name(trial: Any) -> str:
    return str(trial.config["key"])
