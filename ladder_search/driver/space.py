"""What a search may suggest around the settings of its study, and the configurations that it tries first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from ladder_search.config import as_mapping, merge
from ladder_search.driver.searcher import FixedPoint
from ladder_search.driver.wording import BASELINE, PUBLISHED
from ladder_search.errors import SettingError
from ladder_search.studies import Study, find_study
from ladder_search.trial import TrialSpec


class Space(Protocol):
    """A family's search space, as the entry point hands it in."""

    @property
    def suggest(self) -> Callable[[optuna.trial.BaseTrial, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]: ...

    @property
    def first(self) -> Callable[[Mapping[str, Any], Mapping[str, Any]], list[dict[str, Any]]]: ...

    @property
    def published(self) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any] | None]: ...


class SearchSpace:
    """The space of one search."""

    def __init__(self, space: Space, study: Study, own: TrialSpec) -> None:
        """Args: ``own`` is the study's published configuration with the search's seeds.

        Raises:
            LadderSearchError: a combination of the space's choices is no trial.
        """
        self._space, self._study, self._own = space, study, own
        self._base, self._options = own.as_mapping(), as_mapping(study.space)
        self.distributions = self._probe()

    def settings(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Return the settings of a trial, drawn from ``trial``."""
        settings = merge(self._base, self._space.suggest(trial, self._base, self._options))
        return self._judged_alike(TrialSpec.from_mapping(settings)).as_mapping()

    def settings_at(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial with these flat parameters."""
        return self.settings(optuna.trial.FixedTrial(dict(params)))

    def points(self) -> list[FixedPoint]:
        """The configurations that run first: the study's own, its supervised baseline on the same draw, others' grids.

        The first two have names and are never stopped; the others are suggestions as any.
        """
        params = self._space.published(self._base, self._options)
        points = [FixedPoint(name=PUBLISHED, settings=self._base, params=params)]
        if self._study.baseline is not None:
            baseline = find_study(self._study.baseline)
            spec = replace(
                self._own,
                model=baseline.model.on_network_of(self._own.model),
                training=replace(baseline.training, epochs=self._study.training.epochs),
            )
            points.append(FixedPoint(name=BASELINE, settings=self._judged_alike(spec).as_mapping(), params=None))
        for params in self._space.first(self._base, self._options):
            points.append(FixedPoint(name="", settings=self.settings_at(params), params=params))
        return points

    def _judged_alike(self, spec: TrialSpec) -> TrialSpec:
        if spec.measure != self._study.measure:
            raise SettingError(
                f"trials of a search must be judged by the same measure, {self._study.name} by its "
                f"{self._study.measure.title} and one of its trials by its {spec.measure.title}; change the space or "
                "the baseline."
            )
        return spec

    def _probe(self) -> dict[str, BaseDistribution]:
        """Return the parameters of the space; raise now what a suggestion would raise in the middle of the search."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        first = study.ask()
        self.settings(first)
        found = dict(first.distributions)
        for name, distribution in first.distributions.items():
            for choice in distribution.choices if isinstance(distribution, CategoricalDistribution) else ():
                study.enqueue_trial({name: choice})
                trial = study.ask()
                self.settings(trial)
                found |= trial.distributions
        return found
