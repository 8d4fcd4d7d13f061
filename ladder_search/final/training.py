"""Final training: one configuration over fresh seeds, with nothing held out, judged once on the test set.

Every seed sets both the label draw and the weights, noise and batches; all seeds train as one pack. The whole schedule
is run and no epoch is selected, but for data with validation examples of its own, music: there each seed's weights are
those of the epoch that these examples like best, and the test set has no say in it. Shown, kept in a folder::

    seeds = confirmation_seeds(10, used=tuning_seeds(study_folder.read_trials()))
    result = train_final(spec, dataset, seeds=seeds, study=study, folder=output)  # goes on where an earlier call ended
    write_result(output, result)
    print(result)
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ladder_search.bundles.stages import Networks
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.final.checkpoints import (
    Progress,
    check_same,
    read_best,
    read_progress,
    read_states,
    write_progress,
)
from ladder_search.final.folder import held
from ladder_search.final.results import RESULT, FinalResult, SeedResult, check_folder, read_result
from ladder_search.metrics import EPOCH, LEARNING_RATE, STEP, TEST_ERROR, VALIDATION_ERROR
from ladder_search.models import find_family
from ladder_search.record.trial import TrialRecord
from ladder_search.studies.study import Study
from ladder_search.training.ahead import prepare
from ladder_search.training.compiling import compile_pays, compiler_found
from ladder_search.training.feeding import feed_of_test_set
from ladder_search.training.pack import IntervalReport, MemberState, Pack
from ladder_search.trial import TrialSpec

FIRST_CONFIRMATION_SEED = 1001
"""Searches count their seeds from 1; those of confirmations start out of their sight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalProgress:
    """Where a final training stands after an epoch."""

    epoch: int
    epochs: int
    training: tuple[int, ...]
    """Seeds that go on."""
    diverged: tuple[int, ...]
    costs: dict[int, dict[str, float]]
    """Seed -> mean of every cost term in this epoch."""
    test_errors: dict[int, float] | None
    """A point of the learning curve, where one was asked for: to look at, not to choose by."""
    step_time_ms: float
    seconds: float
    """Since the training began, in all calls together."""
    seconds_left: float


def confirmation_seeds(n: int, used: Collection[int]) -> tuple[int, ...]:
    """Return ``n`` seeds that are not in ``used``: from 1001 up."""
    seeds: list[int] = []
    seed = FIRST_CONFIRMATION_SEED
    while len(seeds) < n:
        if seed not in used:
            seeds.append(seed)
        seed += 1
    return tuple(seeds)


def tuning_seeds(records: Iterable[TrialRecord]) -> frozenset[int]:
    """Return every seed, of weights or of label draws, that the trials of a search were tuned on."""
    return frozenset(seed for record in records for seed in seeds_of(TrialSpec.from_mapping(record.settings)))


def seeds_of(spec: TrialSpec) -> frozenset[int]:
    """Return the seeds, of weights and of label draws, that a trial trains on."""
    return frozenset(first + draw for first in (spec.seed, spec.label_seed) for draw in range(spec.draws))


def worth_compiling(spec: TrialSpec, dataset: Dataset, members: int) -> bool:
    """Tell whether a final training of so many seeds should be compiled: see ``training.compiling``."""
    member = _final(spec, spec.seed, dataset).member(dataset)
    if not find_family(spec.family).compiling:
        return False
    return compiler_found() and compile_pays(member.flops, member.total_steps, members=members)


def train_final(
    spec: TrialSpec,
    dataset: Dataset,
    *,
    seeds: Sequence[int],
    study: Study | None = None,
    compiled: bool = False,
    device: torch.device | None = None,
    report: Callable[[FinalProgress], None] = lambda progress: None,
    folder: Path | None = None,
    networks: Networks | None = None,
    curve_every: int | None = None,
    checkpoint_every_s: float = 180.0,
    clock: Callable[[], float] = time.monotonic,
) -> FinalResult:
    """Train ``spec`` on every seed to the end of its schedule and return the test errors.

    A seed whose numbers cease to be finite leaves the pack, its neighbours go on, and the result names it.

    Args:
        spec: the configuration; its own seeds and validation rows are not used.
        seeds: fresh ones, see ``confirmation_seeds``.
        compiled: the steps are compiled; a training that goes on keeps to what it began with.
        study: gives the result its name and, where the configuration is on the study's data, its target.
        report: called after every epoch; an exception of it ends the training, which leaves a checkpoint.
        folder: where checkpoints are kept; a later call with the same arguments goes on from them, and where
            ``write_result`` has been called it returns that result.
        networks: hands out the trained sources of a configuration that has any; every seed has sources of its own.
        curve_every: epochs between two points of a learning curve on the test set; None: the test set is read once.
        checkpoint_every_s: seconds between two checkpoints, which fall on ends of epochs.
        clock: seconds, for ``checkpoint_every_s`` and the progress.

    Raises:
        SettingError: no seeds, repeated ones, or a configuration that does not fit the data.
        StudyFolderError: the folder is in use, belongs to something else, or cannot be written.
        CheckpointError: what the folder holds is damaged.
    """
    prepare()
    device = torch.device("cpu") if device is None else device
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingError(f"a final training needs seeds, each given once, got {list(seeds)}; give different ones.")
    if curve_every is not None and curve_every < 1:
        raise SettingError(f"curve_every must be at least 1 epoch, got {curve_every}; leave it out for no curve.")
    spec = _final(spec, seeds[0], dataset)
    spec.check_fits(dataset)
    if spec.stages and networks is None:
        raise SettingError("a configuration with sources needs somebody who hands them out; give networks.")
    digest = settings_digest(spec, seeds, dataset, device)
    if folder is not None:
        check_folder(folder)
    with nullcontext() if folder is None else held(folder):
        if folder is not None and (folder / RESULT).exists():
            done = read_result(folder)
            check_same(folder, done.settings_digest, digest)
            return done
        run = _Run(spec, dataset, seeds, digest, compiled, device, folder, networks)
        run.train(report, curve_every, checkpoint_every_s, clock)
        return run.result(study)


def _as_begun(progress: Progress, compiled: bool, folder: Path | None) -> bool:
    """Return whether steps are compiled: as the training began, whatever would be chosen now; note it where it begins.

    Raises:
        StudyFolderError: it began with compiled steps, and there is no compiler here.
    """
    if progress.compiled is None:
        progress.compiled = compiled
    if progress.compiled and not compiled and not compiler_found():
        raise StudyFolderError(
            f"a final training goes on as it began and that in {folder} began with compiled steps, for which no usable "
            "C++ compiler is here; install g++ (`ladder-search doctor` tells more), or choose another folder."
        )
    return progress.compiled


class _Run:
    """One call of ``train_final``."""

    def __init__(
        self,
        spec: TrialSpec,
        dataset: Dataset,
        seeds: Sequence[int],
        digest: str,
        compiled: bool,
        device: torch.device,
        folder: Path | None,
        networks: Networks | None,
    ) -> None:
        self.spec, self.dataset, self.seeds, self.folder = spec, dataset, list(seeds), folder
        self.device = device
        self.progress = Progress(settings_digest=digest) if folder is None else read_progress(folder, digest)
        self.compiled = _as_begun(self.progress, compiled, folder)
        going_on = [seed for seed in self.seeds if str(seed) not in self.progress.diverged]
        states: dict[int, MemberState] = {}
        self.best: dict[int, MemberState] = {}
        if folder is not None and self.progress.epoch:
            step = self.progress.epoch * spec.member(dataset).steps_per_epoch
            states = read_states(folder, self.progress, going_on, spec, step)
            self.best = read_best(folder, self.progress, going_on, spec)
        self.pack: Pack = spec.pack(dataset, slots=len(self.seeds), compiled=self.compiled, device=device)
        self.slots = {}
        for seed in going_on:
            own = _final(spec, seed, dataset)
            given = networks.networks(own) if networks is not None and own.stages else None
            self.slots[seed] = self.pack.join(own.member(dataset, sources=given), state=states.get(seed))
        if not self.progress.epoch:
            self._checkpoint()  # reserves the folder, and a disk that cannot be written shows before the training

    def train(
        self,
        report: Callable[[FinalProgress], None],
        curve_every: int | None,
        checkpoint_every_s: float,
        clock: Callable[[], float],
    ) -> None:
        progress, epochs = self.progress, self.spec.training.epochs
        steps = self.spec.member(self.dataset).steps_per_epoch
        begun, before, first = clock(), progress.seconds, progress.epoch
        saved = begun
        while progress.epoch < epochs and self.slots:
            reports = self.pack.run(steps)
            progress.epoch += 1
            self._part_with_diverged(reports)
            validation = self._keep_best()
            on_curve = curve_every is not None and (progress.epoch % curve_every == 0 or progress.epoch == epochs)
            errors = self._test_errors() if on_curve else None
            self._note(reports, errors, validation)
            now = clock()
            progress.seconds = before + now - begun
            try:
                report(self._told(reports, errors, (now - begun) / (progress.epoch - first)))
            except BaseException:
                self._checkpoint()
                raise
            if progress.epoch == epochs or now - saved >= checkpoint_every_s:
                self._checkpoint()
                saved = now

    def _keep_best(self) -> dict[int, float]:
        """Keep the seeds that are better than ever on validation examples of the data's own; return their errors."""
        if not self.spec.data.validation or not self.slots:
            return {}
        found = self.pack.validation_errors(list(self.slots.values()))
        errors = {seed: found[slot] for seed, slot in self.slots.items()}
        for seed, error in errors.items():
            before = self.progress.best.get(str(seed))
            if before is None or error < before[VALIDATION_ERROR]:
                self.progress.best[str(seed)] = {EPOCH: self.progress.epoch, VALIDATION_ERROR: error}
                self.best[seed] = self.pack.state(self.slots[seed])
        return errors

    def _return_to_best(self) -> None:
        for seed, state in self.best.items():
            if seed in self.slots:
                self.pack.leave(self.slots[seed])
                own = _final(self.spec, seed, self.dataset).member(self.dataset)
                self.slots[seed] = self.pack.join(own, state=state)

    def result(self, study: Study | None) -> FinalResult:
        progress = self.progress
        self._return_to_best()
        scores = self._test_scores()
        errors = {seed: next(iter(found.values())) for seed, found in scores.items()}
        outcomes = tuple(
            SeedResult(
                seed=seed,
                test_error=errors.get(seed),
                test_scores=dict(scores.get(seed, {})),
                best_epoch=int(progress.best[str(seed)][EPOCH]) if str(seed) in progress.best else None,
                diverged_epoch=progress.diverged.get(str(seed)),
                epochs=progress.histories.get(str(seed), ()),
            )
            for seed in self.seeds
        )
        return FinalResult(
            study="" if study is None else study.name,
            spec=self.spec,
            target=study.target if study is not None and study.is_of(self.spec) else None,
            reduced=study is not None and self.spec.training.epochs < study.training.epochs,
            outcomes=outcomes,
            data_digest=self.dataset.digest,
            settings_digest=progress.settings_digest,
            compiled=self.pack.compiled,
            device=str(self.device),
            seconds=progress.seconds,
            modules=self._modules(),
        )

    def _modules(self) -> dict[int, nn.Module]:
        if not self.slots:
            return {}
        found = self.pack.modules(list(self.slots.values()))
        return {seed: self._exported(found[slot]) for seed, slot in self.slots.items()}

    def _exported(self, network: nn.Module) -> nn.Module:
        return self.spec.exported(network, self.dataset, self.device).eval().requires_grad_(False)

    def _part_with_diverged(self, reports: dict[int, IntervalReport]) -> None:
        for seed, slot in list(self.slots.items()):
            if not reports[slot].finite:
                self._note_one(seed, reports[slot], None)
                self.progress.diverged[str(seed)] = self.progress.epoch
                self.pack.leave(slot)
                del self.slots[seed]

    def _note(
        self, reports: dict[int, IntervalReport], errors: dict[int, float] | None, validation: dict[int, float]
    ) -> None:
        for seed, slot in self.slots.items():
            error = None if errors is None else errors[seed]
            self._note_one(seed, reports[slot], error, validation.get(seed))

    def _note_one(self, seed: int, found: IntervalReport, error: float | None, validation: float | None = None) -> None:
        row: dict[str, Any] = {EPOCH: self.progress.epoch, STEP: found.step, LEARNING_RATE: found.learning_rate}
        row |= {name: value if math.isfinite(value) else None for name, value in found.terms.items()}
        if error is not None:
            row[TEST_ERROR] = error
        if validation is not None:
            row[VALIDATION_ERROR] = validation
        histories = self.progress.histories
        histories[str(seed)] = (*histories.get(str(seed), ()), row)

    def _told(
        self, reports: dict[int, IntervalReport], errors: dict[int, float] | None, epoch_s: float
    ) -> FinalProgress:
        progress, epochs = self.progress, self.spec.training.epochs
        return FinalProgress(
            epoch=progress.epoch,
            epochs=epochs,
            training=tuple(self.slots),
            diverged=tuple(map(int, progress.diverged)),
            costs={seed: reports[slot].terms for seed, slot in self.slots.items()},
            test_errors=errors,
            step_time_ms=next(iter(reports.values())).step_time_ms,
            seconds=progress.seconds,
            seconds_left=epoch_s * (epochs - progress.epoch),
        )

    def _test_errors(self) -> dict[int, float]:
        return {seed: next(iter(found.values())) for seed, found in self._test_scores().items()}

    def _test_scores(self) -> dict[int, dict[str, float]]:
        if not self.slots:
            return {}
        found = self.pack.test_scores(feed_of_test_set(self.spec.member(self.dataset), self.dataset, self.device))
        return {seed: found[slot] for seed, slot in self.slots.items()}

    def _checkpoint(self) -> None:
        if self.folder is not None:
            self.progress.compiled = self.pack.compiled
            states = {seed: self.pack.state(slot) for seed, slot in self.slots.items()}
            write_progress(self.folder, self.progress, states, self.spec, self.best)


def _final(spec: TrialSpec, seed: int, dataset: Dataset) -> TrialSpec:
    """Return ``spec`` with nothing held out but what is so by the data, its label draw and its weights by ``seed``."""
    data = replace(spec.data, validation=dataset.held_out)
    return replace(spec, data=data, seed=seed, label_seed=seed, draws=1)


def settings_digest(spec: TrialSpec, seeds: Sequence[int], dataset: Dataset, device: torch.device) -> str:
    """Return what names a final training: it goes on, and is the same, only where this is the same."""
    # Noise is the same everywhere, rounding is not: another kind of device is another run.
    named = {"spec": spec.as_mapping(), "seeds": list(seeds), "data": dataset.digest, "device": device.type}
    given = {name: stage.bundle for name, stage in spec.stages.items() if stage.bundle is not None}
    if given:  # a source is named by the path of its bundle, where another one may lie by now
        from ladder_search.bundles.bundle import digest_of  # needs PyYAML and safetensors

        named["bundles"] = {name: digest_of(Path(folder)) for name, folder in given.items()}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
