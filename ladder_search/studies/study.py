"""Studies: published experiments as data, with the result to reproduce."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ladder_search.config import as_mapping, build, in_range, merge, optional
from ladder_search.data.config import DataConfig
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.metrics import ERROR, MEASURES, Measure
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.nn.protocol import ModelConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig, TrialSpec, build_sources, measures_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A published test error or other measure. Errors are fractions: 0.0106 is 1.06 %."""

    error: float
    spread: float | None = None
    spread_kind: Literal["standard deviation", "standard error"] = "standard deviation"
    seeds: int = 10
    """Number of runs behind the published number."""
    source: str
    verified: bool = False
    """Whether the error was confirmed in a readable source."""
    spread_verified: bool = False
    margin: float | None = None
    """Largest distance on the worse side of the published error that counts as reproduced; None: one published
    standard deviation.

    It is fixed in the study's table before any training.
    """
    standing: str = ""
    """Why the number is weak evidence, in a few words; "" without known reason."""
    measure: str = ERROR.name
    """Key of ``metrics.MEASURES``."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownNameError("measure", self.measure, MEASURES)
        if self.margin is not None and not 0.0 < self.margin < math.inf:
            raise SettingError(
                f"the margin of a target must be above 0 and finite, got {self.margin}; give one or none."
            )

    @classmethod
    def percent(cls, error: float, spread: float, **settings: Any) -> Target:
        """Return a published error and spread in per cent."""
        return cls(error=error / 100, spread=spread / 100, **settings)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of single runs, converted from a standard error if necessary; None without spread."""
        if self.spread is None or self.spread_kind == "standard deviation":
            return self.spread
        return self.spread * math.sqrt(self.seeds)

    @property
    def largest_excess(self) -> float | None:
        """Largest distance of a mean on the worse side of the published error that counts as reproduced; None if
        undefined."""
        return self.deviation or None if self.margin is None else self.margin

    @property
    def withheld(self) -> str:
        """Why this number allows no verdict; "" if it allows one."""
        if self.seeds < 2:
            return "the published number is a single run"
        if self.largest_excess is None:
            return "the paper prints no spread, and no margin was fixed beforehand"
        return ""

    def __str__(self) -> str:
        measure = MEASURES[self.measure]
        text = measure.text(self.error)
        if self.spread is not None:
            text += f" ± {measure.number(self.spread)}"
        if not self.verified:
            text += " (unverified)"
        elif self.spread is not None and not self.spread_verified:
            text += " (sd unverified)"
        return f"{text} ({self.standing})" if self.standing else text


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceConfig:
    """What a search of the ladder family varies around the study's own settings; see ``spaces/`` for the ranges."""

    noise: Literal["fixed", "tied", "input-and-local", "per-layer"] = "input-and-local"
    """tied: one sigma for all layers; input-and-local: one for the input and one for layers 1..L."""
    lambda_: Literal["fixed", "tied", "per-layer"] = "tied"
    """tied: lambda_0, lambda_1 and one value for layers 2..L; bottom-only and Gamma models always have one value."""
    lambda_0_scale: float = optional(1.0)
    """Factor of the range of lambda_0; 0.01 suits inputs that are standardised numbers instead of pixels in 0..1."""
    combinators: tuple[str, ...] = ()
    """Combinators to choose from; empty: the study's own."""
    combinator_std: bool = False
    """Search the initial standard deviation of randomly initialised combinators."""
    lr: bool = False
    """Search the learning rate, 0.0005..0.005; the paper fixed 0.002."""
    decay_start: bool = False
    """Search the start of the linear decay, 0.5..0.86 of the epochs."""

    def __post_init__(self) -> None:
        in_range("space.lambda_0_scale", self.lambda_0_scale, 1e-6, 1e6)


@dataclass(frozen=True, kw_only=True, slots=True)
class StopConfig:
    """When a trial is stopped early."""

    first_rung_steps: int
    """Updates before the first comparison of trials."""
    reduction: int = 3
    """The best 1/reduction of a rung continue; successive rungs differ by this factor."""
    failure_error: float
    """A trial whose validation error is worse than this after ``failure_steps`` updates has failed and is stopped.

    At most the limit of the study's measure.
    """
    failure_steps: int
    """Number of updates after which ``failure_error`` applies."""

    def __post_init__(self) -> None:
        if self.reduction < 2:
            raise SettingError(f"stop.reduction must be at least 2, got {self.reduction}; 3 is usual.")
        if self.first_rung_steps < 1 or self.failure_steps < 1:
            raise SettingError(
                "stop.first_rung_steps and stop.failure_steps must be at least 1; give positive whole numbers."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A named experiment: fixed settings, search space, stop rules, and the published target."""

    name: str
    family: str
    title: str
    """The model in a few words; data and labels are in the name."""
    data: DataConfig
    """Data and split of a search; final training has no validation rows."""
    model: ModelConfig
    """Model settings of the published configuration."""
    training: TrainingConfig
    space: Any = field(default_factory=SpaceConfig)
    """What a search varies, a dataclass of the family."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Mean teacher of the networks; weight 0: none."""
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    """Earlier stages of the trials; see ``TrialSpec.sources``."""
    stop: StopConfig
    target: Target | None
    """None if no paper reports this experiment."""
    baseline: str | Mapping[str, Any] | None = None
    """The supervised baseline for comparison: a study of the table, or nested settings that replace this study's."""
    report_every: int = 1
    """Epochs between two reports of a trial."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings that replaced the published ones; empty for the published study."""
    proposed: bool = False
    """Whether a study file defines the study: its settings are a proposal, not those of a paper."""

    def __post_init__(self) -> None:
        high, remedy = self.measure.limit, ""
        if high is None:
            high, remedy = math.inf, "give a positive number"
        in_range("stop.failure_error", self.stop.failure_error, 0.0, high, remedy=remedy)
        if self.target is not None and self.target.measure != self.measure.name:
            raise SettingError(
                f"target.measure must be the measure of the study, {self.measure.name}, got {self.target.measure}; "
                "correct it or leave the target out."
            )

    @property
    def own(self) -> str:
        """Word for the study's own configuration, and name of its trial: "published" or "proposed"."""
        return "proposed" if self.proposed else "published"

    @property
    def measure(self) -> Measure:
        return MEASURES[measures_of(self.model, self.data)[0]]

    def trial(self, **seeds: int) -> TrialSpec:
        """Return the published configuration as a trial; ``seeds`` are ``seed``, ``label_seed`` and ``draws``, by
        default one per fold."""
        if self.data.folds:
            seeds = {"draws": self.data.folds, **seeds}
        return TrialSpec(
            family=self.family,
            data=self.data,
            model=self.model,
            training=self.training,
            teacher=self.teacher,
            sources=self.sources,
            **seeds,
        )

    def is_of(self, spec: TrialSpec) -> bool:
        """Return whether a trial has this study's data set, number of labels and measure."""
        study = (self.data.name, self.data.labels, self.measure)
        return (spec.data.name, spec.data.labels, spec.measure) == study

    def with_overrides(self, overrides: Mapping[str, Any]) -> Study:
        """Return this study with nested settings that replace its own, or raise ``UnknownNameError`` or
        ``SettingError``.

        If the measure is then another one, the target is removed, and with another model's measure the baseline.
        """
        sections = ("data", "model", "training", "teacher", "space", "stop", "sources")
        changed: dict[str, Any] = {}
        for section, values in overrides.items():
            if section not in sections:
                raise UnknownNameError("group of settings", section, sections)
            if not isinstance(values, Mapping):
                raise SettingError(f"{section} is a group of settings, got {values!r}; write {section}.NAME=VALUE.")
            current = getattr(self, section)
            if section == "sources":
                before = {name: as_mapping(source) for name, source in current.items()}
                changed[section] = build_sources(merge(before, values))
                continue
            changed[section] = build(type(current), merge(as_mapping(current), values), where=section)
        model = changed.get("model", self.model)
        measure = MEASURES[measures_of(model, changed.get("data", self.data))[0]]
        if measure != self.measure:
            changed["target"] = None
            if measure.unit != self.measure.unit and changed.get("stop", self.stop) == self.stop:
                limit = self.measure.text(self.stop.failure_error)
                raise SettingError(
                    f"stop.failure_error, {limit}, is in the unit of the {self.measure.title}, and the measure is now "
                    f"the {measure.title}, in {measure.unit}; set stop.failure_error too, for log-loss for example to "
                    "the natural logarithm of the number of classes."
                )
        if model.measure != self.model.measure:
            changed["baseline"] = None
        return dataclasses.replace(self, **changed, changes=merge(self.changes, overrides))
