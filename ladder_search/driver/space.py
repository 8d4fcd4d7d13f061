"""The search space of a study and the configurations that run first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ladder_search.config import as_mapping
from ladder_search.driver.searcher import FixedPoint
from ladder_search.errors import SettingError
from ladder_search.record.trial import identity
from ladder_search.studies import Study, baseline_of
from ladder_search.trial import TrialSpec
from ladder_search.wording import BASELINE

ENUMERATED = 1000
"""Number of configurations up to which a finite space is enumerated; larger ones are sampled until a new one is
found."""
_ATTEMPTS, _RANDOM_ATTEMPTS = 8, 64
"""Attempts of the sampler, and then of random sampling, to find a configuration that no trial has yet."""


def enumerated_for(trials: int) -> int:
    return max(ENUMERATED, 2 * trials)


class Space(Protocol):
    """A module of ``spaces/``, or a ``models.Space`` of a plugin."""

    @property
    def suggest(self) -> Callable[[optuna.trial.BaseTrial, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]: ...

    @property
    def first(self) -> Callable[[Mapping[str, Any], Mapping[str, Any]], list[dict[str, Any]]]: ...

    @property
    def published(self) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any] | None]: ...


class SearchSpace:
    def __init__(self, space: Space, study: Study, own: TrialSpec) -> None:
        """Describe the space of a search around ``own``, the published configuration with the search's seeds. Raise
        ``LadderSearchError`` if a combination of choices is not a valid trial."""
        self._space, self._study, self._own = space, study, own
        self._base, self._options = own.for_space(), as_mapping(study.space)
        self._may_repeat = False
        self.programs = 1
        """Number of programs that the trials need; trials of different programs share no pack."""
        self.distributions = self._probe()

    def settings(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        return self._trial(trial).as_mapping()

    def settings_at(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.settings(optuna.trial.FixedTrial(dict(params)))

    def points(self) -> list[FixedPoint]:
        """Return the configurations that run first: the study's, its supervised baseline on the same draw, and grids.

        The first two have names and are never stopped; the others are ordinary suggestions.
        """
        params = self._space.published(self._base, self._options)
        points = [FixedPoint(name=self._study.own, settings=self._own.as_mapping(), params=params)]
        baseline = baseline_of(self._study)
        if baseline is not None:
            spec = replace(
                self._own,
                model=baseline.model.on_network_of(self._own.model),
                training=replace(baseline.training, epochs=self._study.training.epochs),
            )
            points.append(FixedPoint(name=BASELINE, settings=self._judged_alike(spec).as_mapping(), params=None))
        identities = {identity(point.settings) for point in points}
        for params in self._space.first(self._base, self._options):
            settings = self.settings_at(params)
            if identity(settings) not in identities:
                points.append(FixedPoint(name="", settings=settings, params=params))
                identities.add(identity(settings))
        return points

    def limited(self, trials: int, points: Sequence[FixedPoint]) -> tuple[int, str]:
        """Return the number of distinct trials, at most ``trials``, and a message if it is smaller."""
        inside = self.enumerated(enumerated_for(trials))
        if inside is None:
            return trials, ""
        most = len({identity(point.settings) for point in points} | inside.keys())
        if trials <= most:
            return trials, ""
        return most, (
            f"The space has {len(inside)} configuration{'s' if len(inside) > 1 else ''}, {most} with the fixed ones: "
            f"the search ends after {most} trials instead of {trials}, because no configuration is trained twice."
        )

    def enumerated(self, limit: int) -> dict[str, dict[str, Any]] | None:
        """Return the flat parameters of all configurations by their ``identity``; None if more than ``limit``. Raise
        ``LadderSearchError`` if one of them is not a valid trial."""
        found: dict[str, dict[str, Any]] = {}
        prefixes: list[dict[str, Any]] = [{}]
        for _ in range(limit + 1):
            if not prefixes:
                return found
            prefix = prefixes.pop()
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            study.enqueue_trial(prefix)
            trial = study.ask()
            found.setdefault(identity(self.settings(trial)), dict(trial.params))
            path = list(trial.params.items())
            for place in range(len(prefix), len(path)):  # parameters that depend on another value come after it
                name, original = path[place]
                values = _values(trial.distributions[name], limit)
                if values is None:
                    return None
                prefixes += [{**dict(path[:place]), name: value} for value in values if value != original]
        return None

    def untried(
        self,
        study: optuna.Study,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        number: int,
        tried: Collection[str],
    ) -> dict[str, Any] | None:
        """Return flat parameters of a configuration not in ``tried``; None if any suggestion will do.

        The sampler gets a few attempts first. The result depends on the seed, ``number`` and the known trials only;
        ``study`` is not changed.
        """
        if not self._may_repeat:
            return None
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != optuna.trial.TrialState.WAITING]
        for attempt in range(_ATTEMPTS + _RANDOM_ATTEMPTS):
            seeded = number + attempt * 1_000_003
            by_chance = optuna.samplers.RandomSampler(seed=seeded % 2**32)
            scratch = optuna.create_study(sampler=sampler(seeded) if attempt < _ATTEMPTS else by_chance)
            scratch.add_trials(trials if attempt < _ATTEMPTS else [])
            trial = scratch.ask()
            if identity(self.settings(trial)) not in tried:
                return dict(trial.params)
        candidates = [
            params for key, params in (self.enumerated(enumerated_for(len(tried))) or {}).items() if key not in tried
        ]
        return candidates[number % len(candidates)] if candidates else None

    def _trial(self, trial: optuna.trial.BaseTrial) -> TrialSpec:
        return self._judged_alike(self._own.suggested(self._space.suggest(trial, self._base, self._options)))

    def _judged_alike(self, spec: TrialSpec) -> TrialSpec:
        if spec.measure != self._study.measure:
            raise SettingError(
                f"trials of a search must be judged by the same measure, {self._study.name} by its "
                f"{self._study.measure.title} and one of its trials by its {spec.measure.title}; change the space or "
                "the baseline."
            )
        return spec

    def _probe(self) -> dict[str, BaseDistribution]:
        """Return the parameters of the space; errors of suggestions are raised here, before the search starts."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        first = study.ask()
        program = self._trial(first).program()
        distributions = dict(first.distributions)
        self._may_repeat = not _is_continuous(distributions)
        for name, distribution in first.distributions.items():
            programs = {program}
            for choice in distribution.choices if isinstance(distribution, CategoricalDistribution) else ():
                study.enqueue_trial({**first.params, name: choice})
                trial = study.ask()
                programs.add(self._trial(trial).program())
                distributions |= trial.distributions
                self._may_repeat |= not _is_continuous(trial.distributions)
            self.programs *= len(programs)
        return distributions


def _is_continuous(distributions: Mapping[str, BaseDistribution]) -> bool:
    return any(_values(distribution, 1 << 20) is None for distribution in distributions.values())


def _values(distribution: BaseDistribution, limit: int) -> list[Any] | None:
    """Return the values of a parameter; None if there are more than ``limit``."""
    if isinstance(distribution, CategoricalDistribution):
        values = list(distribution.choices)
    elif isinstance(distribution, IntDistribution):
        values = list(range(distribution.low, distribution.high + 1, distribution.step)[: limit + 1])
    elif isinstance(distribution, FloatDistribution) and distribution.single():
        values = [distribution.low]
    elif isinstance(distribution, FloatDistribution) and distribution.step is not None:
        steps = round((distribution.high - distribution.low) / distribution.step)
        values = [
            min(distribution.low + i * distribution.step, distribution.high) for i in range(min(steps, limit) + 1)
        ]
    else:
        return None
    return values if len(values) <= limit else None
