"""Contenders of a reproduction: the published configuration, and the best ones of the latest search.

They are ordered by the search's validation errors, and never train on a seed that a search of the study used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ladder_search.config import as_mapping
from ladder_search.data.dataset import Dataset
from ladder_search.final.training import comparable, confirmation_seeds, seeds_of, tuning_seeds
from ladder_search.record.folder import searches_of
from ladder_search.record.trial import OWN, best_trials
from ladder_search.studies import Study
from ladder_search.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    seed: int
    test_error: float | None
    """None if the seed diverged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One configuration in a reproduction, with its results so far."""

    name: str
    """``published`` or ``proposed``, or the key of the search's trial."""
    settings: dict[str, Any]
    """Settings of the whole trial, for ``TrialSpec.from_mapping``."""
    search: str | None = None
    """Folder of the search that found it."""
    validation_error: float | None = None
    outcomes: tuple[Outcome, ...] = ()
    dropped: str = ""
    """Reason for which it gets no more seeds, such as "worse than published"; "" if it was not dropped."""
    folders: tuple[str, ...] = field(default=())

    @property
    def spec(self) -> TrialSpec:
        return TrialSpec.from_mapping(self.settings)

    @property
    def folder(self) -> str:
        """Folder of its final trainings, unique to its settings."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return self.name if self.name in OWN else f"{self.name}-{digest[:8]}"

    @property
    def errors(self) -> dict[int, float]:
        """Seed -> test error of the seeds that finished."""
        return {outcome.seed: outcome.test_error for outcome in self.outcomes if outcome.test_error is not None}

    @property
    def diverged(self) -> tuple[int, ...]:
        return tuple(outcome.seed for outcome in self.outcomes if outcome.test_error is None)


def find_contenders(study: Study, root: Path, most: int, epochs: int, precision: str = "") -> tuple[Contender, ...]:
    """Return the published configuration and up to ``most`` found ones, all with a schedule of ``epochs`` and products
    in ``precision``; "": each configuration's own.

    The found ones are the best completed suggestions of the latest search that has any on the study's own data and
    labels, without duplicates. Raise ``StudyFolderError`` if a trial's record is damaged.
    """
    training = {"epochs": epochs, **({"precision": precision} if precision else {})}
    published = _contender(study.own, study.trial(), training)
    for folder in searches_of(root, study.name) if most else ():
        contenders: list[Contender] = []
        for record in best_trials(folder.read_trials(), study.measure):
            spec = TrialSpec.from_mapping(record.settings)
            contender = _contender(record.key, spec, training, folder.path.name, record.validation_error)
            earlier = [other.settings for other in (published, *contenders)]
            if not record.is_reference and study.is_of(spec) and contender.settings not in earlier:
                contenders.append(contender)
        if contenders:
            return published, *contenders[:most]
    return (published,)


def check_searched_data(study: Study, dataset: Dataset, root: Path) -> None:
    """Raise ``DataError`` if the files of a study's data have changed since its latest search in ``root``."""
    for folder in islice(searches_of(root, study.name), 1):
        description = folder.description()
        searched = description.get("study", {}).get("data", {})
        if searched == as_mapping(study.data):
            digest = description.get("provenance", {}).get("data_digest")
            dataset.check_unchanged(digest, f"the search {folder.path}")


def seeds_of_searches(study: Study, root: Path) -> frozenset[int]:
    """Return all seeds used by searches of ``study`` in ``root``; raise ``StudyFolderError`` if a trial's record is
    damaged."""
    used = (tuning_seeds(folder.read_trials()) for folder in searches_of(root, study.name))
    return seeds_of(study.trial()).union(*used)


def fresh_seeds(count: int, studies: Iterable[Study], root: Path) -> tuple[int, ...]:
    """Return ``count`` seeds that no search of these studies in ``root`` used."""
    return confirmation_seeds(count, frozenset[int]().union(*(seeds_of_searches(study, root) for study in studies)))


def _contender(
    name: str,
    spec: TrialSpec,
    training: Mapping[str, Any],
    search: str | None = None,
    validation_error: float | None = None,
) -> Contender:
    plain = comparable(spec).changed({"training": training})
    return Contender(name=name, settings=plain.as_mapping(), search=search, validation_error=validation_error)
