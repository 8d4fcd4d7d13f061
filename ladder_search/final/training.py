"""Final training: one configuration over fresh seeds, with nothing held out, evaluated once on the test set.

A seed determines the label draw, weights, noise and batches; all seeds train as one pack for the whole schedule. Only
on data with its own validation examples (music) each seed's weights are those of the epoch with the lowest validation
error; the test set is never used for selection. Example::

    seeds = confirmation_seeds(10, used=tuning_seeds(study_folder.read_trials()))
    result = train_final(spec, dataset, seeds=seeds, study=study, folder=output)  # continues an earlier call
    write_result(output, result)
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ladder_search.bundles.stages import Networks
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.final.checkpoints import (
    TrainingState,
    check_same,
    check_step,
    read_members,
    read_progress,
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
"""First seed of final trainings; searches count their seeds from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """State of a final training after an epoch."""

    epoch: int
    epochs: int
    training: tuple[int, ...]
    diverged: tuple[int, ...]
    costs: dict[int, dict[str, float]]
    """Seed -> mean of every cost term in this epoch."""
    test_errors: dict[int, float] | None
    """A point of the learning curve, if requested; never used for selection."""
    step_time_ms: float
    seconds: float
    """Seconds of training in all calls together."""
    seconds_left: float


def confirmation_seeds(n: int, used: Collection[int]) -> tuple[int, ...]:
    """Return ``n`` seeds from 1001 up that are not in ``used``."""
    return tuple(islice((seed for seed in count(FIRST_CONFIRMATION_SEED) if seed not in used), n))


def tuning_seeds(records: Iterable[TrialRecord]) -> frozenset[int]:
    """Return all seeds, of weights and label draws, used by the trials of a search."""
    used: set[int] = set()
    for record in records:
        spec = TrialSpec.from_mapping(record.settings)
        used |= _seeds(spec, max(spec.draws, record.begun_draws))
    return frozenset(used)


def seeds_of(spec: TrialSpec) -> frozenset[int]:
    """Return the seeds, of weights and label draws, of a trial."""
    return _seeds(spec, spec.draws)


def _seeds(spec: TrialSpec, draws: int) -> frozenset[int]:
    return frozenset(first + draw for first in (spec.seed, spec.label_seed) for draw in range(draws))


def check_has_tests(dataset: Dataset) -> None:
    """Raise ``SettingError`` if a data set has no test rows, whose error a final training reports."""
    if not len(dataset.test_x):
        raise SettingError(
            f"a final training reports the error of test rows, and {dataset.name} has none; state data.test_file, or "
            "data.test: 0.2, in the study file, and search again."
        )


def worth_compiling(spec: TrialSpec, dataset: Dataset, members: int) -> bool:
    """Return whether a final training of ``members`` seeds should be compiled; see ``training.compiling``."""
    member = _final(spec, spec.seed, dataset).member(dataset)
    pays = compile_pays(member.flops, member.total_steps, members=members)
    return pays and find_family(spec.family).compiling and compiler_found()


def train_final(
    spec: TrialSpec,
    dataset: Dataset,
    *,
    seeds: Sequence[int],
    study: Study | None = None,
    compiled: bool | None = None,
    device: torch.device | None = None,
    report: Callable[[EpochReport], None] = lambda progress: None,
    folder: Path | None = None,
    networks: Networks | None = None,
    curve_every: int | None = None,
    checkpoint_every_s: float = 180.0,
    clock: Callable[[], float] = time.monotonic,
) -> FinalResult:
    """Train ``spec`` on every seed to the end of its schedule and return the test errors.

    A seed whose values become non-finite leaves the pack; the others continue, and the result names it.

    Args:
        spec: the configuration; its own seeds and validation rows are not used.
        seeds: see ``confirmation_seeds``.
        study: study that names the result and, on the study's own data, sets its target.
        compiled: compile the steps; None: if worthwhile. A continued training keeps its first choice.
        report: called after every epoch; an exception ends the training, which leaves a checkpoint.
        folder: folder of the checkpoints; a later call with equal arguments continues, or returns the result.
        networks: provides the networks of earlier stages.
        curve_every: epochs between two points of a learning curve on the test set; None: the test set is read once.
        checkpoint_every_s: seconds between two checkpoints, which are written at ends of epochs.

    Raises:
        SettingError: seeds are missing or repeated, or the configuration does not fit the data.
        StudyFolderError: the folder is in use, has other content, or cannot be written.
        CheckpointError: the folder's content is damaged.
    """
    prepare()
    device = torch.device("cpu") if device is None else device
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingError(f"a final training needs seeds, each given once, got {list(seeds)}; give different ones.")
    if curve_every is not None and curve_every < 1:
        raise SettingError(f"curve_every must be at least 1 epoch, got {curve_every}; leave it out for no curve.")
    check_has_tests(dataset)
    spec = _final(spec, seeds[0], dataset)
    spec.check_fits(dataset)
    if spec.stages and networks is None:
        raise SettingError(
            "this configuration has earlier stages (sources) and `networks` is None; pass an object that provides them."
        )
    digest = settings_digest(spec, seeds, dataset, device)
    if folder is not None:
        check_folder(folder)
    with nullcontext() if folder is None else held(folder):
        if folder is not None and (folder / RESULT).exists():
            result = read_result(folder)
            check_same(folder, result.settings_digest, digest)
            return result
        if compiled is None:
            compiled = worth_compiling(spec, dataset, len(seeds))
        run = _Run(spec, dataset, seeds, digest, compiled, device, folder, networks)
        run.train(report, curve_every, checkpoint_every_s, clock)
        return run.result(study)


def _as_begun(progress: TrainingState, compiled: bool, folder: Path | None) -> bool:
    """Return whether steps are compiled, as recorded at the start of the training; record it at the start. Raise
    ``StudyFolderError`` if steps were compiled at the start, and there is no compiler here."""
    if progress.compiled is None:
        progress.compiled = compiled
    if progress.compiled and not compiled and not compiler_found():
        raise StudyFolderError(
            f"a resumed final training keeps its options, and the one in {folder} began with compiled steps, "
            "which need a C++ compiler that this machine lacks; install g++ (see `ladder-search doctor`), or choose "
            "another folder."
        )
    return progress.compiled


class _Run:
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
        self.progress = TrainingState(settings_digest=digest) if folder is None else read_progress(folder, digest)
        self.compiled = _as_begun(self.progress, compiled, folder)
        going_on = [seed for seed in self.seeds if str(seed) not in self.progress.diverged]
        states: dict[int, MemberState] = {}
        self.best: dict[int, MemberState] = {}
        if folder is not None and self.progress.epoch:
            step = self.progress.epoch * spec.member(dataset).steps_per_epoch
            states = read_members(folder, self.progress, "seed", going_on, spec)
            check_step(folder, states, step)
            improved = [seed for seed in going_on if str(seed) in self.progress.best]
            self.best = read_members(folder, self.progress, "best", improved, spec)
        self.pack: Pack = spec.pack(dataset, slots=len(self.seeds), compiled=self.compiled, device=device)
        self.slots = {}
        for seed in going_on:
            seed_spec = _final(spec, seed, dataset)
            sources = networks.networks(seed_spec) if networks is not None and seed_spec.stages else None
            self.slots[seed] = self.pack.join(seed_spec.member(dataset, sources=sources), state=states.get(seed))
        if not self.progress.epoch:
            self._checkpoint()  # reserves the folder, and reports an unwritable disk before the training

    def train(
        self,
        report: Callable[[EpochReport], None],
        curve_every: int | None,
        checkpoint_every_s: float,
        clock: Callable[[], float],
    ) -> None:
        progress, epochs = self.progress, self.spec.training.epochs
        steps = self.spec.member(self.dataset).steps_per_epoch
        start, before, first = clock(), progress.seconds, progress.epoch
        saved = start
        while progress.epoch < epochs and self.slots:
            reports = self.pack.run(steps)
            progress.epoch += 1
            self._remove_diverged(reports)
            on_curve = curve_every is not None and (progress.epoch % curve_every == 0 or progress.epoch == epochs)
            validation, errors = self._keep_best(), self._test_errors() if on_curve else None
            for seed, slot in self.slots.items():
                self._record(seed, reports[slot], {TEST_ERROR: errors or {}, VALIDATION_ERROR: validation})
            now = clock()
            progress.seconds = before + now - start
            epoch_s = (now - start) / (progress.epoch - first)
            try:
                report(
                    EpochReport(
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
                )
            except BaseException:
                self._checkpoint()
                raise
            if progress.epoch == epochs or now - saved >= checkpoint_every_s:
                self._checkpoint()
                saved = now

    def _keep_best(self) -> dict[int, float]:
        """Keep the seeds that improved on the data set's own validation examples; return the validation errors."""
        if not self.spec.data.validation or not self.slots:
            return {}
        by_slot = self.pack.validation_errors(list(self.slots.values()))
        errors = {seed: by_slot[slot] for seed, slot in self.slots.items()}
        for seed, error in errors.items():
            before = self.progress.best.get(str(seed))
            if before is None or self.spec.measure.gain(error, before[VALIDATION_ERROR]) > 0:
                self.progress.best[str(seed)] = {EPOCH: self.progress.epoch, VALIDATION_ERROR: error}
                self.best[seed] = self.pack.state(self.slots[seed])
        return errors

    def _return_to_best(self) -> None:
        for seed in [seed for seed in self.best if seed in self.slots]:
            self.pack.leave(self.slots[seed])
            member = _final(self.spec, seed, self.dataset).member(self.dataset)
            self.slots[seed] = self.pack.join(member, state=self.best[seed])

    def result(self, study: Study | None) -> FinalResult:
        progress = self.progress
        self._return_to_best()
        scores = self._test_scores()
        errors = {seed: next(iter(by_measure.values())) for seed, by_measure in scores.items()}
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
            facts=self.dataset.facts,
            schema=self.dataset.schema,
        )

    def _modules(self) -> dict[int, nn.Module]:
        networks = self.pack.modules(list(self.slots.values())) if self.slots else {}
        exported = {s: self.spec.exported(networks[slot], self.dataset, self.device) for s, slot in self.slots.items()}
        return {seed: network.eval().requires_grad_(False) for seed, network in exported.items()}

    def _remove_diverged(self, reports: dict[int, IntervalReport]) -> None:
        for seed, slot in list(self.slots.items()):
            if not reports[slot].finite:
                self._record(seed, reports[slot], {})
                self.progress.diverged[str(seed)] = self.progress.epoch
                self.pack.leave(slot)
                del self.slots[seed]

    def _record(self, seed: int, report: IntervalReport, errors: Mapping[str, Mapping[int, float]]) -> None:
        """Add an epoch to the history of ``seed``; ``errors`` is name -> seed -> value."""
        row: dict[str, Any] = {EPOCH: self.progress.epoch, STEP: report.step, LEARNING_RATE: report.learning_rate}
        row |= {name: value if math.isfinite(value) else None for name, value in report.terms.items()}
        row |= {name: by_seed[seed] for name, by_seed in errors.items() if seed in by_seed}
        histories = self.progress.histories
        histories[str(seed)] = (*histories.get(str(seed), ()), row)

    def _test_errors(self) -> dict[int, float]:
        return {seed: next(iter(by_measure.values())) for seed, by_measure in self._test_scores().items()}

    def _test_scores(self) -> dict[int, dict[str, float]]:
        if not self.slots:
            return {}
        scores = self.pack.test_scores(feed_of_test_set(self.spec.member(self.dataset), self.dataset, self.device))
        return {seed: scores[slot] for seed, slot in self.slots.items()}

    def _checkpoint(self) -> None:
        if self.folder is not None:
            self.progress.compiled = self.pack.compiled
            states = {seed: self.pack.state(slot) for seed, slot in self.slots.items()}
            write_progress(self.folder, self.progress, states, self.spec, self.best)


def _final(spec: TrialSpec, seed: int, dataset: Dataset) -> TrialSpec:
    """Return ``spec`` with ``seed`` for label draw and weights, and nothing held out but the data set's own rows."""
    data = replace(spec.data.everything, validation=dataset.held_out)
    return replace(spec, data=data, seed=seed, label_seed=seed, draws=1)


def comparable(spec: TrialSpec) -> TrialSpec:
    """Return the configuration without the settings of final training: seeds, draws and held-out rows."""
    return replace(spec, data=spec.data.everything, seed=1, label_seed=1, draws=1)


def settings_digest(spec: TrialSpec, seeds: Sequence[int], dataset: Dataset, device: torch.device) -> str:
    """Return the digest that identifies a final training; only calls with the same digest continue it."""
    # Noise is the same on all devices, but rounding is not, so another kind of device is another run.
    identity = {"spec": spec.as_mapping(), "seeds": list(seeds), "data": dataset.digest, "device": device.type}
    bundles = {name: stage.bundle for name, stage in spec.stages.items() if stage.bundle is not None}
    if bundles:  # a source is identified by its bundle's path, where another bundle may be now
        from ladder_search.bundles.bundle import digest_of  # needs PyYAML and safetensors

        identity["bundles"] = {name: digest_of(Path(folder)) for name, folder in bundles.items()}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
