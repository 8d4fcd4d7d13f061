"""The trials of a search for the pictures: their parameters, errors and highlights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from ladder_search import wording
from ladder_search.ranking import rank
from ladder_search.record.trial import TrialRecord, key_of
from ladder_search.studies.study import Study
from ladder_search.wording import BASELINE, OWN, finite


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One trial of the Optuna study; only a COMPLETE trial has a comparable error."""

    number: int
    """Number in the Optuna study; the search's own numbers also count references outside the space."""
    key: str
    params: dict[str, Any]
    """Short name -> value."""
    error: float | None
    """Error; None if stopped or failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """Data of all pictures of one search."""

    study: Study
    records: tuple[TrialRecord, ...]
    points: tuple[Point, ...]
    """Finished trials of the Optuna study, oldest first."""
    log: dict[str, bool]
    """Short name of every parameter with several values -> whether it is searched on a log scale."""
    choices: dict[str, tuple[str, ...]]
    """Short name of a categorical parameter -> its choices as text."""
    names: dict[str, str]
    """Name of every parameter in the Optuna study -> short name."""
    optuna_study: optuna.Study

    @classmethod
    def of(cls, study: Study, records: Sequence[TrialRecord], optuna_study: optuna.Study) -> Trials:
        """Collect the data of the pictures; the study is not changed."""
        frozen = optuna_study.get_trials(deepcopy=False)
        distributions = {name: kind for trial in frozen for name, kind in trial.distributions.items()}
        names = wording.short_names(distributions)
        points = []
        for trial in frozen:
            if trial.state.is_finished():
                points.append(
                    Point(
                        number=trial.number,
                        key=str(trial.user_attrs.get("key", key_of(trial.number))),  # recorded by the searcher
                        params={names[name]: value for name, value in trial.params.items()},
                        error=trial.value if trial.state == TrialState.COMPLETE and finite(trial.value) else None,
                    )
                )
        varied = {names[name]: kind for name, kind in distributions.items() if not kind.single()}
        return cls(
            study=study,
            records=tuple(records),
            points=tuple(points),
            log={name: bool(getattr(varied[name], "log", False)) for name in sorted(varied)},
            choices={
                name: tuple(map(str, kind.choices))
                for name, kind in varied.items()
                if isinstance(kind, optuna.distributions.CategoricalDistribution)
            },
            names=names,
            optuna_study=optuna_study,
        )

    @property
    def complete(self) -> list[Point]:
        """Points with a comparable error, oldest first."""
        return [point for point in self.points if point.error is not None]

    @property
    def best_found(self) -> TrialRecord | None:
        """The best COMPLETE suggestion of the sampler."""
        ranked = (
            r for r in rank(self.records, self.study.measure) if r.state == "COMPLETE" and finite(r.validation_error)
        )
        return next((record for record in ranked if not record.is_reference), None)

    @property
    def standouts(self) -> dict[str, str]:
        """Key of a trial -> reason for highlighting it: "published", "proposed" or "best found"."""
        reasons = {record.key: record.name for record in self.records if record.name in OWN}
        return reasons | ({self.best_found.key: "best found"} if self.best_found else {})

    def described(self, point: Point) -> str:
        """Return a trial and its error for the tooltip."""
        why = self.standouts.get(point.key)
        error = "stopped or failed" if point.error is None else self.study.measure.text(point.error)
        return f"{point.key}{f', {why}' if why else ''}: {error}"

    @property
    def searched(self) -> list[str]:
        """Parameters with several values that a complete trial has, in alphabetical order."""
        return [name for name in self.log if any(name in point.params for point in self.complete)]

    def why_empty(self) -> str:
        """Return the reason for the lack of errors to draw against a parameter."""
        if not self.points:
            return "No trial of the search has ended yet."
        if not self.complete:
            return f"None of the {len(self.points)} ended trials is complete: there is no error to show."
        return "No parameter was searched: every complete trial has the study's own settings."

    def position(self, name: str, point: Point) -> float:
        """Return the position of ``point`` on the axis of ``name``: its value, or the index of its choice."""
        value, choices = point.params[name], self.choices.get(name)
        return float(choices.index(str(value))) if choices else float(value)

    def of_search(self) -> list[TrialRecord]:
        """Records of the search without the supervised baseline, which belongs to another study."""
        return [record for record in self.records if record.name != BASELINE]
