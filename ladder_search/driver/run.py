"""The trials of one search, from the checks before Ray starts to the summary after the last trial."""

from __future__ import annotations

import logging
import math
import os
import secrets
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
from ray import tune

from ladder_search.bundles.shelf import check_same_bundles, given_folders, list_sources, without_test_set
from ladder_search.bundles.stages import FOLDER as SOURCES
from ladder_search.config import as_mapping
from ladder_search.console import Console
from ladder_search.data.dataset import Dataset
from ladder_search.driver import begun, cluster, schedulers
from ladder_search.driver.arrangement import Choice, bounded, choose
from ladder_search.driver.callback import SearchCallback
from ladder_search.driver.experiment import names, run_config
from ladder_search.driver.halt import Halt
from ladder_search.driver.journal import Journal, space_as_json
from ladder_search.driver.ledger import Ledger
from ladder_search.driver.packs import Programs, check_stacks, in_words, kept, shared, stacks
from ladder_search.driver.parent_run import ParentRun
from ladder_search.driver.progress import Progress
from ladder_search.driver.resume import Checkpoints, Past, check_unchanged, reconcile
from ladder_search.driver.samplers import sampler_for
from ladder_search.driver.searcher import OptunaSearcher
from ladder_search.driver.settings import SearchSettings
from ladder_search.driver.space import SearchSpace, Space
from ladder_search.driver.storage import lasting, place_for
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.provenance import collect
from ladder_search.record.folder import StudyFolder, latest, relative_place
from ladder_search.record.trial import TrialRecord
from ladder_search.studies import Study
from ladder_search.tracking import DatasetInput, RunStatus, Tracker
from ladder_search.trial import TrialSpec


class Run:
    """One life of a search.

    States::

        Run(…)           -> everything that needs no Ray is checked
        recall()         -> with --resume: what the earlier lives left is sorted out
        plan(private, …) -> the cluster has room, the study folder is begun or knows of this life
        go(tracker, …)   -> all trials and runs have ended; ``records`` and ``problems`` say how
    """

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        own: TrialSpec,
        dataset: Dataset,
        source_data: Mapping[str, Dataset],
        folder: StudyFolder,
        space: Space,
        console: Console,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._settings, self._study, self._own, self._dataset = settings, study, own, dataset
        self._source_data = source_data
        self._folder, self._console = folder, console
        self._search = f"{study.name}/{folder.path.name}"
        """Names the search in its journal and begins the keys of its runs: as it was called at first."""
        self._id = secrets.token_hex(16)
        """Names the search where its checkpoints lie, whatever it is called."""
        self._epochs = study.training.epochs
        self._steps_per_epoch = own.member(dataset).steps_per_epoch
        self.halt = Halt(settings.time_budget)
        self.records: list[TrialRecord] = []
        self.problems: list[str] = []
        self._past = Past()
        self._description: dict[str, Any] = {}
        self._ledger = Ledger(folder.running)
        self._arrangement: dict[str, Any] = {}
        """How the latest life was carried out, then how this one is; see ``driver.begun``."""
        self._kept_slots: int | None = None

        self._space = SearchSpace(space, study, own)
        self._points = self._space.points()
        if settings.trials > len(self._points) and not self._space.distributions:
            raise SettingError(
                "a search needs something to vary and the space of this one is empty; see space.* in --set, or ask for "
                f"--trials {len(self._points)}."
            )
        self._trials, limit = self._space.limited(settings.trials, self._points)
        if limit:
            console.say(limit)
        self._storage = settings.storage and lasting(settings.storage)
        self._place = place_for(self._storage, folder.path, resume=settings.resume)
        self._reasons: dict[str, str] = {}
        self._rungs: list[int] = []
        self._generation = max(self._study.report_every, self._epochs // 10)
        """Epochs between two comparisons of a population."""
        self._scheduler = self._make_scheduler()
        self._provenance = collect(data_name=dataset.name, data_digest=dataset.digest)
        check_stacks(own.family, settings.slots)
        self._compiling = begun.new_compiling(settings)

    def __getstate__(self) -> dict[str, Any]:
        """Reached from a scheduler that Ray pickles into its snapshot, which nothing reads."""
        return {}

    def recall(self) -> None:
        """Find out what the earlier lives of this search have left.

        Raises:
            LadderSearchError: the space, a setting or the data are not those of the search, its journal or a record is
                damaged.
        """
        self._description = self._folder.description()
        self._search = str(self._description.get("search", self._search))
        self._id = str(self._description.get("id", self._id))  # earlier versions gave none
        begun_in = self._folder.path.with_name(self._search.rpartition("/")[2])  # the folder may have been renamed
        self._place = place_for(self._storage, begun_in, resume=True)
        if self._place:
            self._place.check_own(self._id)
        changed = check_unchanged(
            self._description,
            self._study,
            space_as_json(self._space.distributions),
            self._provenance,
            self._folder.path,
        )
        check_same_bundles(self._own, self._folder.path / SOURCES)
        life = latest(self._description)
        self._arrangement = life.get("arrangement", {})
        if life.get("settings", {}).get("slots") == self._settings.slots:
            self._kept_slots = begun.kept_slots(self._arrangement)
        self._compiling = begun.kept_compiling(self._settings, self._arrangement, self._folder.path)
        self._journal = Journal(self._folder.journal, self._search, new=False)
        checkpoints = Checkpoints(self._checkpoints, lambda spec: spec.member(self._dataset).steps_per_epoch, self._id)
        self._past = reconcile(
            self._folder, self._journal, self._ledger, checkpoints, self._space.distributions, self._epochs
        )
        for line in (*changed, *self._journal.notes):
            self._console.say(line)
        if isinstance(self._scheduler, schedulers.PatientASHA):
            for key, errors in self._past.errors.items():
                self._scheduler.recall(key, errors)
        if self.complete:
            self.records = self._past.records

    @property
    def complete(self) -> bool:
        """Whether an earlier life of the search has brought it to its end."""
        return bool(self._description) and self._left() == 0 and not self._folder.running.exists()

    def outlook(self) -> str:
        """What will be done, in a few words."""
        trials = self._trials
        if not self._description:
            return f"{trials} trials"
        return f"complete, all {trials} trials have ended" if self.complete else self._past.outlook(trials)

    def plan(self, private: bool, store: str, trainable: type[tune.Trainable]) -> None:
        """See what the cluster has room for, and begin the study folder."""
        has_gpus = cluster.has_gpus(private=private)
        self._settings = settings = self._settings.resolved(self._own.request(), has_gpus=has_gpus)
        choice = self._choose_slots(private, trainable)
        self._slots = choice.slots
        self._share = cluster.Share(cpus=settings.cpus / self._slots, gpus=settings.gpus / self._slots)
        self._room = cluster.capacity(self._share, private=private)
        if not self._room:
            self._console.print("No node of the cluster has room for a trial now: the search waits until one has.")
        looked = cluster.check_shared(self._storage or str(self._folder.path))
        if not private and not looked and not self._storage:
            self._console.print("Checkpoints go to the study folder: all nodes must see it, or name a --storage.")
        self._pending, self._alive = self._at_a_time(private)
        self._programs = Programs(self._compiling, self._space.programs, self._own, self._dataset, slots=self._slots)
        compiled: bool = self._programs.needed(self._own.as_mapping())["compiled"]
        before, self._arrangement = self._arrangement, begun.as_arrangement(choice, self._compiling, compiled=compiled)
        for line in begun.in_words(self._compiling, before, self._arrangement):
            self._console.say(line)
        fixed = [point.name for point in self._points if point.name]
        if settings.trials < len(fixed):
            first = " and ".join(fixed)
            self._console.print(f"With --trials {settings.trials} only fixed configurations run: {first} come first.")
        root, kept = self._folder.path.parent, as_mapping(settings)
        for name, place in (("tracking", settings.tracking), ("storage", self._storage)):
            if place is not None:
                kept[name] = relative_place(place, root)
        if self._place:
            self._place.claim(self._id, self._folder.path)
        if self._description:
            life = {"settings": kept, "provenance": self._provenance, "arrangement": self._arrangement}
            lives = [*self._description.get("resumed", []), life]
            self._describe(id=self._id, search=self._search, store=relative_place(store, root), resumed=lives)
            return
        self._description = {
            "id": self._id,
            "search": self._search,
            "settings": kept,
            "study": as_mapping(self._study),
            "space": space_as_json(self._space.distributions),
            "store": relative_place(store, root),
            "provenance": self._provenance,
            "arrangement": self._arrangement,
        }
        try:
            self._journal = Journal(self._folder.journal, self._search, new=True)
            self._folder.create(self._description)
        except StudyFolderError:
            if self._place:
                self._place.leave()
            raise

    def go(self, tracker: Tracker, trainable: type[tune.Trainable]) -> None:
        """Run all trials, then fill ``records`` and ``problems``."""
        past = self._past
        callback = SearchCallback(
            search=self._search,
            folder=self._folder,
            ledger=self._ledger,
            tracker=tracker,
            progress=Progress(self._study, self._trials, max(1, self._room), self._console),
            epochs=self._epochs,
            tags=self._tags(),
            dataset=self._dataset_input(),
            reasons=self._reasons,
            halt=self.halt,
            ended=past.records,
        )
        searcher = OptunaSearcher(
            self._journal,
            partial(sampler_for, self._settings.sampler, self._settings.seed),
            self._space.settings,
            self._points,
            epochs=self._epochs,
            common={
                "search": self._id,
                "report_every": self._study.report_every,
                "report_at": self._rungs,
                "share": {"CPU": self._share.cpus, "GPU": self._share.gpus},
                "threads": max(1, int(self._share.cpus)),
                "device": self._device,
            },
            needed=self._programs.needed,
            reasons=self._reasons,
            unfinished=past.unfinished,
            first=past.suggested,
            over=lambda: self.halt.halting,
            most=self._left() if self._copies else math.inf,
            untried=self._space.untried,
        )
        parent = ParentRun(tracker, self._search, self._study, self._folder, self._life)
        parent.start(self._description["settings"], self._tags(), self._provenance, self._dataset_input())
        status: RunStatus | None = None
        try:
            for ended in past.ended:
                callback.settle(ended.key, ended.checkpoint, self._device)
            with callback.progress, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._fit(trainable, searcher, callback)
            self.halt.ended = True
            status = "KILLED" if self.halt.interrupted else "FAILED" if self.halt.hopeless else "FINISHED"
            if self.halt.why():
                self._console.print(f"{self.halt.why()}: what was running is stopped, what has been found is kept.")
        finally:  # after an error or a second Ctrl-C, too: no trial and no run stays RUNNING
            callback.end_all()
            searcher.close()
            records = {record.key: record for record in past.halted} | callback.records
            self.records = sorted(records.values(), key=lambda record: record.number)
            self.problems = [*self.problems, *callback.problems, *sorted(self._ledger.problems)]
            self.problems += self._journal.close()
            if callback.notes:
                self._note(notes=[*self._description.get("notes", []), *callback.notes])
            if status is not None:
                self.problems += parent.summarise(self.records, self._journal.study)
            parent.end(status or "FAILED")
            self._ledger.close()

    def _fit(self, trainable: type[tune.Trainable], searcher: OptunaSearcher, callback: SearchCallback) -> None:
        trials = self._left()
        if trials == 0:
            return
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        # A full disk's traceback at each snapshot, and nothing reads the snapshots.
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self._pending)
        dataset = without_test_set(self._dataset)
        pack = self._settings.cpus, self._settings.gpus
        earlier = {name: without_test_set(one) for name, one in self._source_data.items()}
        with (
            kept(trainable, self._folder.path / SOURCES, earlier, given_folders(self._own)) as keeper,
            shared(trainable, dataset, slots=self._slots, share=pack, keeper=keeper, copies=self._copies) as sharing,
        ):
            searcher.common |= {"desk": sharing.desk, "keeper": keeper}
            seated = trainable if sharing.desk else tune.with_parameters(trainable, dataset=dataset)
            self._tune(seated, trials, searcher, callback)
        if keeper is not None:
            self._note(sources=list_sources(self._folder.path / SOURCES))
        if sharing.accounts:
            self._note(packs=[*self._description.get("packs", []), *sharing.accounts])
            self._console.print(in_words(sharing.accounts))

    def _tune(self, trainable: Any, trials: int, searcher: OptunaSearcher, callback: SearchCallback) -> None:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=trials + self._copies,  # never reached where the searcher says when there are no more
                search_alg=searcher,
                scheduler=self._scheduler,
                max_concurrent_trials=self._alive,
                reuse_actors=True,
                **names(self._life),
            ),
            run_config=run_config(
                self._checkpoints,
                callback,
                self.halt,
                report_every=self._study.report_every,
                steps_per_epoch=self._steps_per_epoch,
                exploit_every=self._generation if self._copies else None,
            ),
        ).fit()

    def _choose_slots(self, private: bool, trainable: Any) -> Choice:
        settings = self._settings
        if settings.slots != "auto" and self._kept_slots is None:
            slots = bounded(settings.slots, trials=self._left(), gpus=settings.gpus)
            if slots < settings.slots:
                self._console.say(
                    f"Packs of {slots} trials: there are no more of them, --slots {settings.slots} is too many."
                )
            return Choice(slots=slots, why=f"--slots {settings.slots}")
        if not hasattr(trainable, "open_desk") or not stacks(self._own.family):
            return Choice(slots=1, why=f"trials of {self._own.family} share no packs")
        # What the machine lacks altogether is told before a probe waits for it.
        cluster.capacity(cluster.Share(cpus=settings.cpus, gpus=settings.gpus), private=private)
        if self._kept_slots is not None:
            choice = Choice(slots=self._kept_slots, why="as the search began")
        else:
            alone = Programs(self._compiling, self._space.programs, self._own, self._dataset, slots=1)
            choice = choose(
                self._own,
                self._dataset,
                trials=self._left(),
                programs=self._space.programs,
                compiled=alone.needed(self._own.as_mapping())["compiled"],
                cpus=settings.cpus,
                gpus=settings.gpus,
                private=private,
            )
        if choice.slots > 1:
            self._console.say(f"Packs of {choice.slots} trials: {choice.why}.")
        return choice

    def _describe(self, **more: Any) -> None:
        self._description |= more
        self._folder.describe(self._description)

    def _note(self, **more: Any) -> None:
        """Describe what has been done already: a disk that is full then is a problem to report and ends nothing."""
        try:
            self._describe(**more)
        except StudyFolderError as error:
            self.problems.append(str(error))

    def _left(self) -> int:
        """Trials that have not ended, the unfinished ones among them."""
        return len(self._past.unfinished) + max(0, self._trials - self._past.suggested)

    @property
    def _copies(self) -> bool:
        """Whether trials are paused and go on as copies of others."""
        return self._settings.scheduler == "pbt"

    @property
    def _life(self) -> int:
        return 1 + len(self._description.get("resumed", []))

    @property
    def _device(self) -> str:
        return "cuda" if self._share.gpus else "cpu"

    @property
    def _checkpoints(self) -> str:
        """Folder or address of the trials' own folders."""
        return self._place.address if self._place else str(self._folder.checkpoints)

    def _at_a_time(self, private: bool) -> tuple[int, int]:
        """How many trials wait for room ahead of time, and how many are alive together."""
        trials, asked = self._trials, self._settings.max_concurrent
        if self._copies:  # a population takes turns
            return trials, asked or trials
        if private:
            return self._slots, asked or self._room
        # A cluster that others share may grow, by as much as waits; but the sampler knows nothing of what waits.
        return max(1, min(self._room, 16)), asked or trials

    def _make_scheduler(self) -> Any:
        match self._settings.scheduler:
            case "asha":
                self._rungs = schedulers.rungs(self._epochs, self._steps_per_epoch, self._study.stop)
                return schedulers.PatientASHA(
                    epochs=self._epochs,
                    rungs=self._rungs,
                    stop=self._study.stop,
                    reasons=self._reasons,
                    measure=self._study.measure,
                )
            case "pbt":
                if not self._space.distributions:
                    raise SettingError(
                        "pbt needs parameters to change and the space of this search has none; choose --scheduler asha."
                    )
                return schedulers.PatientPBT(
                    interval=self._generation,
                    distributions=self._space.distributions,
                    resolve=self._resolve,
                )
        return None  # fifo: every trial runs to its end

    def _resolve(self, params: Mapping[str, Any]) -> dict[str, Any]:
        settings = self._space.settings_at(params)
        return {"settings": settings, **self._programs.needed(settings)}

    def _tags(self) -> dict[str, str]:
        return {
            "study": self._study.name,
            "family": self._study.family,
            "search": self._folder.path.name,
            "search_id": self._id,
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
