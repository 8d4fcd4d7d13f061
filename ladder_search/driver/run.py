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

from ladder_search import plugins
from ladder_search.bundles.shelf import check_same_bundles, list_stages, named_bundles, without_test_set
from ladder_search.bundles.stages import FOLDER as SOURCES
from ladder_search.config import as_mapping
from ladder_search.console import Console
from ladder_search.data.dataset import Dataset
from ladder_search.driver import begun, cluster, schedulers
from ladder_search.driver.callback import SearchCallback
from ladder_search.driver.halt import Halt
from ladder_search.driver.journal import Journal, space_as_json
from ladder_search.driver.ledger import Ledger
from ladder_search.driver.packs import Programs, SharesPacks, check_stacks, in_words, shared, stage_keeper
from ladder_search.driver.parent_run import ParentRun, dataset_input, search_tags
from ladder_search.driver.plan import Plan, at_a_time, choose_slots
from ladder_search.driver.progress import Progress
from ladder_search.driver.resume import Checkpoints, Past, check_unchanged, reconcile
from ladder_search.driver.rungs import Ladder
from ladder_search.driver.samplers import sampler_for
from ladder_search.driver.searcher import OptunaSearcher
from ladder_search.driver.settings import SearchSettings
from ladder_search.driver.space import SearchSpace, Space
from ladder_search.driver.storage import lasting, place_for
from ladder_search.driver.stretches import by_rung, new_ladder, trial_folder, trial_name
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.metrics import EPOCH, VALIDATION_ERROR
from ladder_search.provenance import collect
from ladder_search.record.folder import StudyFolder, latest, relative_place
from ladder_search.record.trial import TrialRecord, key_of
from ladder_search.studies import Study
from ladder_search.tracking import RunStatus, Tracker
from ladder_search.trial import TrialSpec

UPDATES_AT_STAKE = 2000
"""Approximate number of updates between checkpoints, and therefore lost with a worker."""


class Run:
    """One execution of a search; every resume is another one.

    States::

        Run(…)                 -> everything that does not need Ray is checked
        recall()               -> with --resume: the state of each trial of earlier executions is restored
        plan(private, …)       -> the study folder describes this execution; returns the plan
        go(plan, tracker, …)   -> all trials and runs have ended; ``records`` and ``problems`` hold the result
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
        """Original name of the search: its name in the journal and the prefix of its run keys."""
        self._id = secrets.token_hex(16)
        """Identifies the search in its checkpoints, even if the folder is renamed."""
        self._epochs = study.training.epochs
        self._steps_per_epoch = own.member(dataset).steps_per_epoch
        self.halt = Halt(settings.time_budget)
        self.records: list[TrialRecord] = []
        self.problems: list[str] = []
        self._past = Past()
        self._description: dict[str, Any] = {}
        self._ledger = Ledger(folder.running)
        self._journal: Journal | None = None
        """The journal of earlier executions; None in a new search."""
        self._arrangement: dict[str, Any] = {}
        """Arrangement of the latest execution, see ``driver.begun``."""
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
        self._ladder: Ladder | None = None
        if settings.scheduler == "asha" and settings.draws == "auto" and own.draws == 1:
            self._ladder = new_ladder(study, own, dataset, trials=self._trials)
            self._rungs = list(self._ladder.goals)
        elif settings.scheduler == "asha":
            self._rungs = schedulers.rungs(self._epochs, self._steps_per_epoch, study.stop)
        elif settings.scheduler == "pbt" and not self._space.distributions:
            raise SettingError(
                "pbt needs parameters to change, and the space of this search has none; choose --scheduler asha."
            )
        self._input = dataset_input(own, dataset)
        self._generation = max(self._study.report_every, self._epochs // 10)
        self._provenance = collect(**dataset.facts)
        check_stacks(own.family, settings.slots)
        self._compiling = begun.new_compiling(settings)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude this object from Ray's snapshot, which is never read."""
        return {}

    def recall(self) -> None:
        """Restore the state of the search from its study folder.

        Raises:
            LadderSearchError: the space, a setting or the data have changed, or the journal or a record is damaged.
        """
        self._description = self._folder.description()
        self._search = str(self._description.get("search", self._search))
        self._id = str(self._description.get("id", self._id))  # earlier versions wrote no id
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
        journal = self._journal = Journal(self._folder.journal, self._search, new=False)
        checkpoints = Checkpoints(self._checkpoints, lambda spec: spec.member(self._dataset).steps_per_epoch, self._id)
        longest = self._epochs if self._ladder is None else self._ladder.top
        self._past = reconcile(self._folder, journal, self._ledger, checkpoints, self._space.distributions, longest)
        for line in (*changed, *journal.notes):
            self._console.say(line)
        if self.complete:
            self.records = self._past.records

    @property
    def complete(self) -> bool:
        return bool(self._description) and self._left() == 0 and not self._folder.running.exists()

    def outlook(self) -> str:
        trials = self._trials
        if not self._description:
            return f"{trials} trials"
        return f"complete, all {trials} trials have ended" if self.complete else self._past.outlook(trials)

    def plan(self, private: bool, store: str, trainable: type[tune.Trainable]) -> Plan:
        """Decide how trials share the cluster and write the description of this execution into the study folder."""
        settings = self._settings.resolved(self._own.request(), has_gpus=cluster.has_gpus(private=private))
        choice = choose_slots(
            settings,
            self._own,
            self._dataset,
            compiling=self._compiling,
            programs=self._space.programs,
            kept=self._kept_slots,
            trials=self._left(),
            private=private,
            shares_packs=isinstance(trainable, SharesPacks),
        )
        if choice.note:
            self._console.say(choice.note)
        share = cluster.Share(cpus=settings.cpus / choice.slots, gpus=settings.gpus / choice.slots)
        room = cluster.capacity(share, private=private)
        if not room:
            self._console.print("No cluster node has free resources for a trial right now; the search waits for one.")
        looked = cluster.check_shared(self._storage or str(self._folder.path))
        if not private and not looked and not self._storage:
            self._console.print("Checkpoints go to the study folder: all nodes must see it, or name a --storage.")
        programs = Programs(self._compiling, self._space.programs, self._own, self._dataset, slots=choice.slots)
        compiled: bool = programs.needed(self._own.as_mapping())["compiled"]
        arrangement = begun.as_arrangement(choice, self._compiling, compiled=compiled)
        for line in begun.in_words(self._compiling, self._arrangement, arrangement):
            self._console.say(line)
        fixed = [point.name for point in self._points if point.name]
        if settings.trials < len(fixed):
            first = " and ".join(fixed)
            self._console.print(
                f"--trials {settings.trials} leaves no room for sampled configurations: {first} always run first."
            )
        if self._place:
            self._place.claim(self._id, self._folder.path)
        try:
            journal = self._journal or self._begin_journal()
            self._begin(settings, store, arrangement)
        except StudyFolderError:
            if self._place and self._journal is None:
                self._place.leave()
            raise
        pending, alive = at_a_time(settings, trials=self._trials, private=private, slots=choice.slots, room=room)
        return Plan(
            settings=settings,
            slots=choice.slots,
            share=share,
            room=room,
            pending=pending,
            alive=alive,
            programs=programs,
            journal=journal,
        )

    def _begin_journal(self) -> Journal:
        return Journal(self._folder.journal, self._search, new=True, direction=self._study.measure.direction)

    def _begin(self, resolved: SearchSettings, store: str, arrangement: dict[str, Any]) -> None:
        root, settings = self._folder.path.parent, as_mapping(resolved)
        for name, place in (("tracking", self._settings.tracking), ("storage", self._storage)):
            if place is not None:
                settings[name] = relative_place(place, root)
        life = {"settings": settings, "provenance": self._provenance, "arrangement": arrangement}
        address = relative_place(store, root)
        if self._journal is not None:
            lives = [*self._description.get("resumed", []), life]
            self._describe(id=self._id, search=self._search, store=address, resumed=lives)
            return
        self._description = {
            "id": self._id,
            "search": self._search,
            "study": as_mapping(self._study),
            "space": space_as_json(self._space.distributions),
            "store": address,
            **life,
        }
        if loaded := plugins.loaded():
            self._description["plugins"] = self._folder.keep_plugins(loaded)
        self._folder.create(self._description)

    def go(self, plan: Plan, tracker: Tracker, trainable: type[tune.Trainable]) -> None:
        """Run all trials, then fill ``records`` and ``problems``."""
        past, sha = self._past, str(self._provenance.get("git_sha"))
        tags = search_tags(self._study, self._folder.path.name, self._id, sha)
        callback = SearchCallback(
            search=self._search,
            folder=self._folder,
            ledger=self._ledger,
            tracker=tracker,
            progress=Progress(self._study, self._trials, max(1, plan.room), self._console),
            epochs=self._epochs,
            tags=tags,
            dataset=self._input,
            reasons=self._reasons,
            halt=self.halt,
            ladder=self._ladder,
            ended=past.records,
        )
        references = {key_of(number) for number, point in enumerate(self._points) if point.name}
        unfinished, waiting = by_rung(self._ladder, past, references)

        def checkpoint(key: str) -> str | None:
            place = callback.checkpoint(key)
            if place is None:
                return waiting[key].checkpoint if key in waiting else None
            return f"{self._checkpoints}/{place}"

        searcher = OptunaSearcher(
            plan.journal,
            partial(sampler_for, self._settings.sampler, self._settings.seed),
            self._space.settings,
            self._points,
            epochs=self._epochs,
            common={
                "search": self._id,
                "report_every": self._study.report_every,
                "report_at": self._rungs,
                "in_turn": self._ladder is not None,
                "share": {"CPU": plan.share.cpus, "GPU": plan.share.gpus},
                "threads": max(1, int(plan.share.cpus)),
                "device": plan.device,
            },
            needed=plan.programs.needed,
            reasons=self._reasons,
            unfinished=unfinished,
            first=past.suggested,
            over=lambda: self.halt.halting,
            most=self._left() - len(waiting) if self._copies or self._ladder else math.inf,
            untried=self._space.untried,
            ladder=self._ladder,
            checkpoint=checkpoint,
            arriving=callback.arriving,
        )
        for trial in waiting.values():
            searcher.wait(trial)
        parent = ParentRun(tracker, self._search, self._study, self._folder, self._life)
        parent.start(self._description["settings"], tags, self._provenance, self._input)
        status: RunStatus | None = None
        try:
            for ended in past.ended:
                callback.settle(ended.key, ended.checkpoint, plan.device)
            with callback.progress, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._fit(plan, trainable, searcher, callback)
                if not self.halt.why():
                    for key, (state, reason) in searcher.end_waiting().items():
                        place = waiting[key].checkpoint if key in waiting else None
                        callback.finish(key, state, reason, place, plan.device)
            self.halt.ended = True
            status = "KILLED" if self.halt.interrupted else "FAILED" if self.halt.hopeless else "FINISHED"
            if self.halt.why():
                self._console.print(f"{self.halt.why()}: the running trials are stopped, and all results are kept.")
        finally:  # also after an error or a second Ctrl-C: no trial and no run stays RUNNING
            callback.end_all()
            searcher.close()
            records = {record.key: record for record in past.halted} | callback.records
            self.records = sorted(records.values(), key=lambda record: record.number)
            self.problems = [*self.problems, *callback.problems, *sorted(self._ledger.problems)]
            self.problems += plan.journal.close()
            if callback.notes:
                self._note(notes=[*self._description.get("notes", []), *callback.notes])
            if status is not None:
                self.problems += parent.summarise(self.records, plan.journal.study)
            parent.end(status or "FAILED")
            self._ledger.close()

    def _fit(
        self, plan: Plan, trainable: type[tune.Trainable], searcher: OptunaSearcher, callback: SearchCallback
    ) -> None:
        trials = self._left()
        if trials == 0:
            return
        if self._ladder is not None:
            trials *= len(self._ladder.rungs)  # each rung is a Ray trial
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        # On a full disk, Tune logs a traceback at each snapshot, but snapshots are never read.
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.pending)
        dataset = without_test_set(self._dataset)
        pack = plan.settings.cpus, plan.settings.gpus
        earlier = {name: without_test_set(one) for name, one in self._source_data.items()}
        with (
            stage_keeper(trainable, self._folder.path / SOURCES, earlier, named_bundles(self._own)) as keeper,
            shared(trainable, dataset, slots=plan.slots, share=pack, keeper=keeper, copies=self._copies) as sharing,
        ):
            searcher.common |= {"desk": sharing.desk, "keeper": keeper, "plugins": plugins.sent()}
            seated = trainable if sharing.desk else tune.with_parameters(trainable, dataset=dataset)
            self._tune(plan, seated, trials, searcher, callback)
        if keeper is not None:
            self._note(sources=list_stages(self._folder.path / SOURCES))
        if sharing.accounts:
            self._note(packs=[*self._description.get("packs", []), *sharing.accounts])
            self._console.print(in_words(sharing.accounts))

    def _tune(
        self, plan: Plan, trainable: Any, trials: int, searcher: OptunaSearcher, callback: SearchCallback
    ) -> None:
        frequency = max(1, round(UPDATES_AT_STAKE / (self._study.report_every * self._steps_per_epoch)))
        every = frequency * self._study.report_every
        storage, _, name = self._checkpoints.rpartition("/")
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=trials + self._copies,  # an upper bound; the searcher reports the end
                search_alg=searcher,
                scheduler=self._scheduler(plan.programs),
                max_concurrent_trials=plan.alive,
                reuse_actors=True,
                trial_name_creator=trial_name,
                trial_dirname_creator=partial(trial_folder, life=self._life),
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage,
                callbacks=[callback],
                stop=self.halt,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=True,
                    num_to_keep=schedulers.kept_for_exploits(self._generation, every) if self._copies else 1,
                    checkpoint_frequency=frequency,
                ),
                failure_config=tune.FailureConfig(max_failures=2),
            ),
        ).fit()

    def _describe(self, **more: Any) -> None:
        self._description |= more
        self._folder.describe(self._description)

    def _note(self, **more: Any) -> None:
        """Record progress in ``study.json``; a full disk is reported as a problem and does not end the search."""
        try:
            self._describe(**more)
        except StudyFolderError as error:
            self.problems.append(str(error))

    def _left(self) -> int:
        return len(self._past.unfinished) + max(0, self._trials - self._past.suggested)

    @property
    def _copies(self) -> bool:
        return self._settings.scheduler == "pbt"

    @property
    def _life(self) -> int:
        return 1 + len(self._description.get("resumed", []))

    @property
    def _checkpoints(self) -> str:
        return self._place.address if self._place else str(self._folder.checkpoints)

    def _scheduler(self, programs: Programs) -> Any:
        """Return Ray's scheduler; None for fifo, where every trial runs to its end."""

        def resolve(params: Mapping[str, Any]) -> dict[str, Any]:
            settings = self._space.settings_at(params)
            return {"settings": settings, **programs.needed(settings)}

        stop, measure = self._study.stop, self._study.measure
        if self._ladder is not None:
            return schedulers.FailureRule(stop=stop, reasons=self._reasons, measure=measure)
        if self._settings.scheduler == "asha":
            asha = schedulers.PatientASHA(rungs=self._rungs, stop=stop, reasons=self._reasons, measure=measure)
            for key, rows in self._past.rows.items():
                asha.recall(key, {row[EPOCH]: row[VALIDATION_ERROR] for row in rows})
            return asha
        if not self._copies:
            return None
        return schedulers.PatientPBT(
            interval=self._generation, mode=measure.mode, distributions=self._space.distributions, resolve=resolve
        )
