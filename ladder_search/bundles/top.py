"""The best configurations of a search as bundles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ladder_search.bundles.bundle import BundleMetrics, write_bundle
from ladder_search.bundles.members import read_fitting
from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER
from ladder_search.data.dataset import Dataset
from ladder_search.disk.folders import taken
from ladder_search.errors import CheckpointError, SettingError, StudyFolderError
from ladder_search.metrics import Measure
from ladder_search.provenance import collect
from ladder_search.record.checkpoint import check_checkpoint, read_draws
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord, best_trials, identity
from ladder_search.training.checkpoint import member_digest, member_settings
from ladder_search.trial import TrialSpec

FIRST_DRAW = "member-0"
"""Folder of a trial's first label draw in its checkpoint; draw i is ``member-i``, unless draws are trained in turn."""


def export_top(study_folder: StudyFolder, *, top: int, output: Path, dataset: Dataset) -> list[Path]:
    """Export the ``top`` best finished trials by validation error, best first; return their bundles.

    A bundle has the weights of the trial's first label draw, or of its last one if draws were trained in turn, and is
    named ``01-t0007`` by rank and key. Trials of the
    same configuration, which earlier versions trained repeatedly, are exported once. Everything is checked before the
    first bundle is written.

    Args:
        output: folder of the bundles; created if missing.
        dataset: data set of the search; test-time statistics are computed from its labelled rows.

    Raises:
        StudyFolderError: the study is missing, has no finished trial, or a bundle exists or cannot be written.
        CheckpointError: a trial's checkpoint is missing or damaged.
        SettingError: ``top`` is below 1, or the trials used another data set.
        DataError: the files of the data have changed since the search.
    """
    if top < 1:
        raise SettingError(f"trials to export must be at least 1, got {top}; give a positive whole number.")
    description = study_folder.description()
    records = list(islice(_distinct(study_folder, description), top))
    if not records:
        raise StudyFolderError(
            f"only complete trials can be exported, and {study_folder.path} has none; wait for the search or resume it."
        )
    exports = [(output / bundle_name(rank, record), record) for rank, record in enumerate(records, start=1)]
    dataset.check_unchanged(description.get("provenance", {}).get("data_digest"), f"the search {study_folder.path}")
    for folder, record in exports:
        if os.path.lexists(folder):
            raise taken(folder)
        checkpoint = _checkpoint(study_folder, record)
        check_checkpoint(checkpoint.parent, description.get("id"))
        read_fitting(checkpoint, _spec(record, dataset))
        if not _copies(description):
            _check_settings(checkpoint, record)
    # Provenance records both versions: the search's code made the weights, the current code makes the bundles.
    of_search = description.get("provenance")
    provenance: dict[str, Any] = {**collect(**dataset.facts)}
    if isinstance(of_search, Mapping):
        provenance |= {f"search_{key}": value for key, value in of_search.items()}
    study = description["settings"]["study"]
    for folder, record in exports:
        spec, checkpoint = _spec(record, dataset), _checkpoint(study_folder, record)
        module, metrics = _member(record, spec, checkpoint, dataset, study_folder.path)
        write_bundle(
            folder,
            study=study,
            spec=spec,
            module=module,
            metrics=metrics,
            provenance=provenance,
            schema=dataset.schema,
        )
    return [folder for folder, _ in exports]


def bundle_name(rank: int, record: TrialRecord) -> str:
    """Return the name of a trial's bundle: ``01-t0007``."""
    return f"{rank:02d}-{record.key}"


def _distinct(study_folder: StudyFolder, description: Mapping[str, Any]) -> Iterator[TrialRecord]:
    """Yield the best trial of each configuration. In population based training, trials with equal settings can have
    different histories, so they count as equal only if their weights are equal."""
    copies, identities = _copies(description), set()
    records = study_folder.read_trials()
    measures = {_measure(record) for record in records if record.state == "COMPLETE"}
    assert len(measures) < 2, "the trials of a search have one measure"
    for record in best_trials(records, *measures) if measures else ():
        key = identity(record.settings), member_digest(_checkpoint(study_folder, record)) if copies else ""
        if key not in identities:
            identities.add(key)
            yield record


def _measure(record: TrialRecord) -> Measure:
    return TrialSpec.from_mapping(record.settings).measure


def _copies(description: Mapping[str, Any]) -> bool:
    """Return whether trials of the search copy the weights of others and change their settings."""
    return bool(description["settings"].get("scheduler") == "pbt")


def _check_settings(checkpoint: Path, record: TrialRecord) -> None:
    """Raise ``CheckpointError`` if an unmarked checkpoint of an earlier version does not belong to its trial."""
    settings = member_settings(checkpoint)
    if identity(settings) == identity(record.settings):
        return
    if TrialSpec.from_mapping(settings) != TrialSpec.from_mapping(record.settings):  # beyond defaults of newer settings
        raise CheckpointError(
            f"a trial is exported with its own weights, and {checkpoint} has other settings than {record.key}: another "
            "search with the same name and --storage has written there; start this search again with another --name."
        )


def _member(
    record: TrialRecord, spec: TrialSpec, checkpoint: Path, dataset: Dataset, study_folder: Path
) -> tuple[nn.Module, BundleMetrics]:
    state = read_fitting(checkpoint, spec)
    pack = spec.pack(dataset, slots=1, compiled=False, device=torch.device("cpu"))
    draw = read_draws(checkpoint.parent)[0]
    networks = Shelf(study_folder / FOLDER).networks(spec, draw)
    slot = pack.join(spec.member(dataset, draw, sources=networks), state=state)
    metrics = BundleMetrics(
        trial=record.key,
        state=record.state,
        validation_error=record.validation_error,
        weights_validation_error=pack.validation_errors()[slot] if spec.data.holds_out else None,
        step=state.step,
        epochs=record.epochs,
    )
    return spec.exported(pack.module(slot), dataset, torch.device("cpu")), metrics


def _checkpoint(study_folder: StudyFolder, record: TrialRecord) -> Path:
    if record.checkpoint is None:
        raise CheckpointError(
            f"a trial is exported from its last checkpoint, and {record.key} has none; export fewer or train it again."
        )
    folder = study_folder.path / record.checkpoint / FIRST_DRAW  # an absolute path stays unchanged
    if not folder.is_dir():
        raise CheckpointError(
            f"the checkpoint of {record.key} must be in {folder}, which is missing; copy it back or train it again."
        )
    return folder


def _spec(record: TrialRecord, dataset: Dataset) -> TrialSpec:
    spec = TrialSpec.from_mapping(record.settings)
    if spec.data.name != dataset.name:
        raise SettingError(
            f"a trial is exported with the data that it was trained on, {record.key} on {spec.data.name!r}, got "
            f"{dataset.name!r}; give {spec.data.name!r}."
        )
    spec.check_fits(dataset)
    return spec
