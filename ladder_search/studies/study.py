"""What a study is: a published experiment as data, with the number that it must reach."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ladder_search.config import as_mapping, build, in_range, merge
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.metrics import ERROR, MEASURES, Measure
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.nn.protocol import ModelConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import DataConfig, SourceConfig, TrialSpec, build_sources


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A published test error, or what its study is judged by instead. Errors are fractions: 0.0106 is 1.06 %."""

    error: float
    spread: float | None
    spread_kind: Literal["standard deviation", "standard error"] = "standard deviation"
    seeds: int = 10
    """Runs behind the published number."""
    source: str
    verified: bool
    """Whether the error was confirmed in a source that could be read."""
    spread_verified: bool
    margin: float | None = None
    """How far above the published error a mean may be and count as reproduced; None: one published standard deviation.

    It is fixed in the study's table, before anything is trained.
    """
    standing: str = ""
    """What speaks against taking the number as evidence, in a few words; "": nothing is known."""
    measure: str = ERROR.name
    """Row of ``metrics.MEASURES``."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownNameError("measure", self.measure, MEASURES)
        if self.margin is not None and not 0.0 < self.margin < math.inf:
            raise SettingError(
                f"the margin of a target must be above 0 and finite, got {self.margin}; give one or none."
            )

    @property
    def deviation(self) -> float | None:
        """Standard deviation of single runs, whichever of the two the paper prints; None: it prints none."""
        if self.spread is None or self.spread_kind == "standard deviation":
            return self.spread
        return self.spread * math.sqrt(self.seeds)

    @property
    def largest_excess(self) -> float | None:
        """How far above the published error a mean may be and count as reproduced; None: nothing was fixed."""
        return self.deviation or None if self.margin is None else self.margin

    @property
    def withheld(self) -> str:
        """Why there is no verdict on this number, whatever is trained; "": there can be one."""
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
    """tied: one sigma everywhere; input-and-local: the input's own and one for layers 1..L."""
    lambda_: Literal["fixed", "tied", "per-layer"] = "tied"
    """tied: lambda_0, lambda_1 and one value for layers 2..L; one kind (bottom-only, Gamma) has one value anyway."""
    combinators: tuple[str, ...] = ()
    """Combinators to choose from; none: the study's own."""
    combinator_std: bool = False
    """Search the initial standard deviation of combinators that start at random."""
    lr: bool = False
    """Search the learning rate, 0.0005..0.005; the paper fixed 0.002."""
    decay_start: bool = False
    """Search the start of the linear decay, 0.5..0.86 of the epochs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StopConfig:
    """When a trial is stopped before its end."""

    first_rung_steps: int
    """No trial is compared with others before this many updates."""
    reduction: int = 3
    """The best 1/reduction of a rung goes on; rungs are reduction times apart."""
    failure_error: float
    """A trial whose validation error is above this after ``failure_steps`` updates has failed and stops.

    At most the limit of the study's measure, which the study checks.
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
    """A named experiment: fixed settings, what to search, when to stop, and the published target."""

    name: str
    family: str
    title: str
    """What was trained, in a few words; the name says on which data and labels."""
    data: DataConfig
    """The split of a search; final training holds nothing out."""
    model: ModelConfig
    """The published configuration's model settings."""
    training: TrainingConfig
    space: object = field(default_factory=SpaceConfig)
    """What a search varies, a dataclass of the family's own kind."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """A mean teacher of the networks; weight 0: none."""
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    """Earlier stages of the trials; see ``TrialSpec.sources``."""
    stop: StopConfig
    target: Target | None
    """None: no paper reports this experiment."""
    baseline: str | None = None
    """Study of the supervised baseline that this one is measured against."""
    report_every: int = 1
    """Epochs between two reports of a trial to the search."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that were put over the published ones, nested; none: the study is as published."""

    def __post_init__(self) -> None:
        high, remedy = self.measure.limit, ""
        if high is None:
            high, remedy = math.inf, "give a positive number"
        in_range("stop.failure_error", self.stop.failure_error, 0.0, high, remedy=remedy)
        if self.target is not None and self.target.measure != self.measure.name:
            raise SettingError(
                f"a study's target must be what its model is judged by, {self.name} has the target {self.target} and "
                f"is judged by its {self.measure.title}; name the target's measure, or leave it out."
            )

    @property
    def measure(self) -> Measure:
        """What its trials are judged by."""
        return self.model.measure

    def trial(self, **seeds: int) -> TrialSpec:
        """The published configuration as a trial; ``seeds`` are ``seed``, ``label_seed`` and ``draws``."""
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
        """Whether a trial answers this study's question: trained on its data, with as many labels, judged alike."""
        own = (self.data.dataset, self.data.labels, self.measure)
        return (spec.data.dataset, spec.data.labels, spec.measure) == own

    def with_overrides(self, overrides: Mapping[str, Any]) -> Study:
        """Return this study with nested settings put over its data, model, training, teacher, sources, space and stop
        rules.

        Where its model is then judged by another measure, it has neither target nor baseline.

        Raises:
            UnknownNameError: no such setting.
            SettingError: a value out of range.
        """
        sections = ("data", "model", "training", "teacher", "space", "stop", "sources")
        changed: dict[str, Any] = {}
        for section, values in overrides.items():
            if section not in sections:
                raise UnknownNameError("group of settings", section, sections)
            if not isinstance(values, Mapping):
                raise SettingError(f"{section} is a group of settings, got {values!r}; write {section}.NAME=VALUE.")
            own = getattr(self, section)
            if section == "sources":
                before = {name: as_mapping(source) for name, source in own.items()}
                changed[section] = build_sources(merge(before, values))
                continue
            changed[section] = build(type(own), merge(as_mapping(own), values), where=section)
        if changed.get("model", self.model).measure != self.measure:
            changed |= {"target": None, "baseline": None}
        return dataclasses.replace(self, **changed, changes=merge(self.changes, overrides))
