"""Run or resume one search, from its settings to its leaderboard."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from ray import tune

from ladder_search import environment
from ladder_search.bundles.shelf import named_bundles
from ladder_search.console import Console
from ladder_search.data import datasets
from ladder_search.driver import cluster, ray_address
from ladder_search.driver.process import as_before
from ladder_search.driver.ray_address import RayAddress
from ladder_search.driver.run import Run
from ladder_search.driver.settings import SearchSettings
from ladder_search.driver.space import Space
from ladder_search.driver.storage import lasting
from ladder_search.environment import in_words
from ladder_search.errors import SettingError, TrackingError
from ladder_search.models import check_packages, find_family
from ladder_search.record.folder import StudyFolder, claim_folder
from ladder_search.record.trial import TrialRecord
from ladder_search.studies import Study
from ladder_search.tracking import SpoolTracker
from ladder_search.tracking.address import (
    VARIABLE,
    check_or_wait,
    default_store,
    normal_store,
    of_variable,
    redacted,
    variable_store,
)
from ladder_search.trial import TrialSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    study: Study
    folder: StudyFolder
    records: list[TrialRecord]
    store: str
    stored: bool
    """Whether the tracking store is complete; otherwise ``ladder-search sync`` sends the rest."""
    interrupted: bool
    unfinished: bool
    """Whether trials were stopped or not started because the search was halted; ``--resume`` continues them."""
    has_tests: bool
    """Whether the data have test rows, so that configurations can be trained and tested."""
    problems: list[str]

    @property
    def all_failed(self) -> bool:
        """Whether no trial could be trained, which indicates a problem of the search or the machine."""
        return bool(self.records) and all(record.state == "FAIL" for record in self.records)


@as_before()
def run_search(
    settings: SearchSettings, *, trainable: type[tune.Trainable], find_space: Callable[[str], Space], console: Console
) -> SearchResult:
    """Run a search to its end and return its result.

    Everything is checked before Ray starts. Environment, signal handlers, loggers and Ray's classes are restored.

    Raises ``LadderSearchError`` if a setting, data set, folder, store, machine or resume is invalid.
    """
    address = ray_address.find_address(settings.address, settings.address_from)
    study = settings.resolved_study()
    check_packages()
    dataset = datasets.load(study.data, notify=console.say)
    draws = study.data.folds if study.data.folds and settings.fixed_draws == 1 else settings.fixed_draws
    own = study.trial(seed=settings.seed, label_seed=settings.label_seed, draws=draws)
    own.check_fits(dataset)
    _check_reachable(own)
    named_bundles(own)  # raises if a named bundle is missing
    source_data = {}
    for stage in own.stages.values():
        source_data[stage.data.name] = datasets.load(stage.data, notify=console.say)
        stage.trial(own.seed).check_fits(source_data[stage.data.name])
    if not study.data.holds_out:
        raise SettingError(
            "a search compares validation errors, and data.validation and data.folds are 0; set one of them."
        )
    if address and not settings.resume:
        _look_for(address, console)  # before a folder is created
    root = Path(lasting(settings.root))
    store = settings.tracking or default_store(root)
    with _held_folder(root, settings, study) as folder:
        for line in folder.notes:
            console.say(f"note: {line}")
        if settings.offline:
            store = normal_store(store)
        elif busy := check_or_wait(store):
            console.say(f"note: {busy}")
        # A password in the address must not reach files or parameters of runs.
        clean = replace(settings, tracking=settings.tracking and redacted(settings.tracking))
        named = find_family(study.family).space
        space: Space = find_space(named) if isinstance(named, str) else named
        run = Run(clean, study, own, dataset, source_data, folder, space, console)
        if settings.resume:
            run.recall()
        if address and settings.resume and not run.complete:
            _look_for(address, console)
        # Starting Ray takes seconds, so report first that the search runs, and where.
        line = f"{study.name}: {run.outlook()}, kept in {folder.path}"
        console.say(line)
        if source := _store_line(settings, store):
            console.say(source)
        if names := environment.ignored():
            console.say(f"note: {in_words(names)}")
        tracker: SpoolTracker | None = None
        tracking = partial(SpoolTracker, folder.spool, store, study.name, start_writer=not settings.offline)
        try:
            if run.complete:
                tracker = tracking()
            else:
                with cluster.connected(address, console.say) as private, run.halt.on_signals():
                    plan = run.plan(private, redacted(store), trainable)
                    tracker = tracking()
                    run.go(plan, tracker, trainable)
        finally:
            if tracker is not None:
                if not settings.offline:
                    console.print("Sending the last results to the tracking store …")
                stored = tracker.close()
    return SearchResult(
        study=study,
        folder=folder,
        records=run.records,
        store=redacted(store),
        stored=stored,
        interrupted=run.halt.interrupted,
        unfinished=bool(run.halt.why()),
        has_tests=len(dataset.test_x) > 0,
        problems=[*run.problems, *tracker.problems()],
    )


def _check_reachable(own: TrialSpec) -> None:
    """Raise ``SettingError`` if the processes of trials cannot import a family of the search."""
    for name in (own.family, *(stage.family for stage in own.stages.values())):
        family = find_family(name)
        if family.plugin is None and not family.built_in:
            raise SettingError(
                f"trials run in other processes, and the family {name} is registered in this one alone; write it into "
                "a file and name this file with --plugin."
            )


def _look_for(address: RayAddress, console: Console) -> None:
    console.say(f"Looking for the Ray cluster at {address.value} …")
    ray_address.check(address)


def _store_line(settings: SearchSettings, store: str) -> str | None:
    """Return a note if ``MLFLOW_TRACKING_URI`` names the store of this search, or differs from it on a resume."""
    try:
        named = variable_store()
    except TrackingError:  # the variable is invalid, but not used
        return None
    if named == normal_store(store):
        return of_variable(named)
    if named is not None and settings.resume:
        return f"Tracking store {redacted(store)}, as when the search was begun; {VARIABLE} names another."
    return None


def _held_folder(root: Path, settings: SearchSettings, study: Study) -> AbstractContextManager[StudyFolder]:
    """Lock the folder of the search while active: a new one, or with ``resume`` the existing one."""
    if settings.resume and settings.name is not None:
        return StudyFolder(root / settings.name).locked()
    return claim_folder(root, settings.name, f"{study.name}-{datetime.now():%Y%m%d-%H%M%S}")
