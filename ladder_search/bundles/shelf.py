"""The shelf: trained networks of earlier stages as bundles, each trained once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ladder_search.bundles.bundle import Bundle, BundleMetrics, digest_of, read_bundle, write_bundle
from ladder_search.bundles.stages import Stage, stages_of
from ladder_search.config import as_mapping
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.disk.folders import unwritable
from ladder_search.disk.lock import hold, let_go
from ladder_search.errors import CheckpointError, ResourceError, SettingError
from ladder_search.metrics import EPOCH, STEP, VALIDATION_ERROR
from ladder_search.models import find_family
from ladder_search.provenance import collect
from ladder_search.training.compiling import compile_pays, compiler_found
from ladder_search.trial import TrialSpec

_POLL_SECONDS = 0.5


def train_stage(
    stage: Stage,
    dataset: Dataset,
    folder: Path,
    *,
    device: torch.device,
    report: Callable[[int, int], None] = lambda epoch, epochs: None,
) -> str:
    """Train an earlier stage, write it as a bundle and return the bundle's digest.

    Training ends at the first epoch whose validation error reaches ``stop_at``, or with the schedule, without
    reading the test set. ``report`` is called after every epoch with the completed epochs and their maximum.

    Raises:
        ResourceError: the training diverged, or did not reach ``stop_at`` within its schedule.
        StudyFolderError: the folder cannot be written.
    """
    config, spec = stage.config, stage.config.trial(stage.seed)
    spec.check_fits(dataset)
    member = spec.member(dataset)
    epochs = 0 if config.weights == "random" else spec.training.epochs
    compiled = bool(epochs) and find_family(spec.family).compiling and compiler_found()
    compiled = compiled and compile_pays(member.flops, member.total_steps)
    pack = spec.pack(dataset, slots=1, compiled=compiled, device=device)
    slot, rows, error = pack.join(member), [], None
    for epoch in range(1, epochs + 1):
        interval = pack.run(member.steps_per_epoch)[slot]
        if not interval.finite:
            raise ResourceError(
                f"a source must stay finite, and {stage} diverged in epoch {epoch}; lower its learning rate."
            )
        row: dict[str, Any] = {EPOCH: epoch, STEP: interval.step, **interval.terms}
        if spec.data.validation:
            error = row[VALIDATION_ERROR] = pack.validation_errors()[slot]
        rows.append(row)
        report(epoch, epochs)
        if config.stop_at is not None and error is not None and spec.measure.gain(error, config.stop_at) >= 0:
            break
    else:
        if epochs and config.stop_at is not None:
            raise ResourceError(
                f"a source stops at a validation error of {config.stop_at:g} and {stage} ended with {error:g} after "
                f"{epochs} epochs; raise its stop_at or its epochs."
            )
    if spec.data.validation and not epochs:
        error = pack.validation_errors()[slot]
    metrics = BundleMetrics(
        trial=f"source {stage.key}",
        state="COMPLETE",
        validation_error=error,
        weights_validation_error=error,
        step=rows[-1][STEP] if rows else 0,
        epochs=tuple(rows),
    )
    return write_bundle(
        folder,
        study="",
        spec=spec,
        module=pack.module(slot),
        metrics=metrics,
        provenance=collect(**dataset.facts),
        schema=dataset.schema,
        force=True,
    )


class Shelf:
    """Earlier stages in a folder that processes of a machine share; each stage is trained once."""

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device | None = None,
        notify: Callable[[str], None] = lambda line: None,
        report: Callable[[int, int], None] = lambda epoch, epochs: None,
    ) -> None:
        """Args: ``report`` is called after every epoch of a training in this process; an exception ends it."""
        self._folder, self._notify, self._report = folder, notify, report
        self._device = torch.device("cpu") if device is None else device
        self._known: dict[str, Bundle] = {}

    def networks(self, spec: TrialSpec, draw: int = 0) -> dict[str, nn.Module]:
        """Return the networks of a trial's stages by name.

        Raises:
            ResourceError: a source could not be trained.
            CheckpointError, StudyFolderError: a bundle on the shelf is damaged, or cannot be written.
        """
        return {name: self.bundle(stage).module() for name, stage in stages_of(spec, draw).items()}

    def bundle(self, stage: Stage) -> Bundle:
        """Return a source, and train it if it is missing."""
        if stage.key not in self._known:
            self._known[stage.key] = self._find(stage)
        return self._known[stage.key]

    def _find(self, stage: Stage) -> Bundle:
        place = self._folder / stage.key
        if stage.config.bundle is not None and not place.is_dir():
            return named_bundle(stage)
        waiting_room = self._folder / f"{stage.key}.lock"
        while True:
            if place.is_dir():
                return read_bundle(place)
            try:
                lock = hold(waiting_room)
            except BlockingIOError:
                self._report(0, 0)
                time.sleep(_POLL_SECONDS)
                continue
            except OSError as error:
                raise unwritable(self._folder, error) from error
            try:
                if not place.is_dir():
                    self._notify(f"training a source: {stage}")
                    dataset = datasets.load(stage.config.data)
                    train_stage(stage, dataset, place, device=self._device, report=self._report)
            finally:
                let_go(lock, unused=True)


def named_bundle(stage: Stage) -> Bundle:
    """Return the bundle named by a source.

    Raises:
        CheckpointError: the bundle is damaged.
        SettingError: its network does not match the source's settings.
    """
    assert stage.config.bundle is not None
    bundle = read_bundle(Path(stage.config.bundle))
    if (bundle.spec.family, bundle.spec.model) != (stage.config.family, stage.config.model):
        theirs, expected = as_mapping(bundle.spec.model), as_mapping(stage.config.model)
        names = (*type(stage.config.model).__annotations__, *expected)  # the family's own settings come first
        first = next((name for name in names if name in expected and expected[name] != theirs.get(name)), "family")
        raise SettingError(
            f"a source's settings must be those of its bundle and {first} of {stage.config.bundle} is "
            f"{theirs.get(first, bundle.spec.family)!r:.80}, got {expected.get(first, stage.config.family)!r:.80}; set "
            f"sources.NAME.model.{first} to it."
        )
    return bundle


def named_bundles(spec: TrialSpec) -> dict[str, Path]:
    """Return key -> folder of the verified bundles named by a trial's sources."""
    stages = [stage for stage in stages_of(spec).values() if stage.config.bundle is not None]
    return {stage.key: named_bundle(stage).folder for stage in stages}


def check_same_bundles(spec: TrialSpec, kept: Path) -> None:
    """Raise ``SettingError`` if a bundle named by a stage differs from the copy in the folder ``kept``."""
    for key, folder in named_bundles(spec).items():
        if (kept / key).is_dir() and (before := digest_of(kept / key)) != (now := digest_of(folder)):
            raise SettingError(
                f"a resumed search keeps its sources, and the bundle in {folder} had the "
                f"digest {before[:12]}, now {now[:12]}; put the first one back (it is kept in {kept / key}) or start a "
                "new search."
            )


def without_test_set(dataset: Dataset) -> Dataset:
    """Return the data set with an empty test part, for a search and its sources."""
    return replace(dataset, test_x=dataset.test_x[:0].copy(), test_y=dataset.test_y[:0].copy())


def list_stages(folder: Path) -> list[dict[str, Any]]:
    """Return a summary of every intact bundle on a shelf, for the provenance of a search."""
    summaries = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        with suppress(CheckpointError):
            bundle = read_bundle(place)
            summaries.append(
                {
                    "key": place.name,
                    "digest": bundle.digest,
                    "dataset": bundle.spec.data.name,
                    "validation_error": bundle.metrics.validation_error,
                    "steps": bundle.metrics.step,
                }
            )
    return summaries
