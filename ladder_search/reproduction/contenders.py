"""Who competes in a reproduction: the published configuration, and the best that the latest search has found.

The order is that of the search's validation errors. No contender trains on a seed that a search of the study has seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ladder_search.final.training import comparable, confirmation_seeds, seeds_of, tuning_seeds
from ladder_search.record.folder import searches_of
from ladder_search.record.trial import PUBLISHED, best_trials
from ladder_search.studies import Study
from ladder_search.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one seed reached."""

    seed: int
    test_error: float | None
    """None: it diverged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One configuration in a reproduction, and how far it has come."""

    name: str
    """``published``, or the key of the search's trial."""
    settings: dict[str, Any]
    """The whole trial, for ``TrialSpec.from_mapping``."""
    search: str | None = None
    """Folder of the search that found it."""
    validation_error: float | None = None
    """What the search ranked it by."""
    outcomes: tuple[Outcome, ...] = ()
    """In the order of the seeds."""
    dropped: str = ""
    """Why it got no more seeds, "worse than published"; "": it was not dropped."""
    folders: tuple[str, ...] = field(default=())
    """Its final trainings, in the reproduction's folder."""

    @property
    def spec(self) -> TrialSpec:
        return TrialSpec.from_mapping(self.settings)

    @property
    def folder(self) -> str:
        """Where its final trainings lie; other settings are another folder."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return self.name if self.name == PUBLISHED else f"{self.name}-{digest[:8]}"

    @property
    def errors(self) -> dict[int, float]:
        """Seed -> test error of the seeds that finished."""
        return {outcome.seed: outcome.test_error for outcome in self.outcomes if outcome.test_error is not None}

    @property
    def diverged(self) -> tuple[int, ...]:
        return tuple(outcome.seed for outcome in self.outcomes if outcome.test_error is None)


def find_contenders(study: Study, root: Path, most: int, epochs: int) -> tuple[Contender, ...]:
    """Return the published configuration and up to ``most`` found ones, all with a schedule of ``epochs``.

    The found ones are the best finished suggestions of the latest search that has any on the study's own data and
    labels; suggestions that come to the same settings count once.

    Raises:
        StudyFolderError: a trial's record is damaged.
    """
    own = _contender(PUBLISHED, study.trial(), epochs)
    for folder in searches_of(root, study.name) if most else ():
        found: list[Contender] = []
        for record in best_trials(folder.read_trials()):
            spec = TrialSpec.from_mapping(record.settings)
            contender = _contender(record.key, spec, epochs, folder.path.name, record.validation_error)
            known = [other.settings for other in (own, *found)]
            if not record.is_reference and study.is_of(spec) and contender.settings not in known:
                found.append(contender)
        if found:
            return own, *found[:most]
    return (own,)


def seeds_of_searches(study: Study, root: Path) -> frozenset[int]:
    """Return every seed that a search of ``study`` in ``root`` was tuned on.

    Raises:
        StudyFolderError: a trial's record is damaged.
    """
    used = (tuning_seeds(folder.read_trials()) for folder in searches_of(root, study.name))
    return seeds_of(study.trial()).union(*used)


def fresh_seeds(count: int, studies: Iterable[Study], root: Path) -> tuple[int, ...]:
    """Return so many seeds that no search of these studies in ``root`` was tuned on."""
    return confirmation_seeds(count, frozenset[int]().union(*(seeds_of_searches(study, root) for study in studies)))


def _contender(
    name: str, spec: TrialSpec, epochs: int, search: str | None = None, validation_error: float | None = None
) -> Contender:
    plain = replace(comparable(spec), training=replace(spec.training, epochs=epochs))
    return Contender(name=name, settings=plain.as_mapping(), search=search, validation_error=validation_error)
