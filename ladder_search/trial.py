"""Typed and validated settings of one trial."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ladder_search.config import as_mapping, build, in_range, merge
from ladder_search.data import scaling
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.scaling import ScaledInputs, Scaling
from ladder_search.data.splits import Split
from ladder_search.data.whitening import Prepared
from ladder_search.errors import SettingError
from ladder_search.metrics import ERROR, MEASURES, NLL, Measure, judged_by
from ladder_search.models import find_family
from ladder_search.nn.grouping import GroupingConfig
from ladder_search.nn.mean_teacher import Taught, TaughtConfig, TeacherConfig
from ladder_search.nn.network import Column, Network, Teachable
from ladder_search.nn.protocol import ColumnConfig, ModelConfig, StagedConfig
from ladder_search.paths import expanded
from ladder_search.training.feeding import adapted, training_feed, whitening_of
from ladder_search.training.pack import MemberSpec, Pack
from ladder_search.training.request import Request, request_of
from ladder_search.training.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """An earlier stage: a network that is trained once and shared by all trials with the same settings."""

    family: str = "ladder"
    """Row of ``models.FAMILIES``: the ``stage`` of the family that uses the network."""
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    weights: Literal["trained", "random"] = "trained"
    """random: the initial weights, with statistics of the source's data (Rusu et al. 2016, baseline 4)."""
    stop_at: float | None = None
    """Validation error at which training ends, so that sources of equal accuracy can be compared; null: full length."""
    statistics: Literal["source", "target"] = "source"
    """target: recompute batch statistics on the target's unlabelled pixels (AdaBN)."""
    bundle: str | None = None
    """Folder of a bundle with these model settings to use instead of training."""

    def __post_init__(self) -> None:
        if self.bundle is not None:
            object.__setattr__(self, "bundle", expanded(self.bundle, "sources.*.bundle"))
        if self.stop_at is not None:
            in_range("sources.*.stop_at", self.stop_at, 0.0, 1.0)
            if not self.data.validation:
                raise SettingError(
                    "sources.*.stop_at needs validation rows to stop by, got data.validation=0; hold some out."
                )
        if self.data.folds:
            raise SettingError(
                f"a source is trained once, on one part of its data, got sources.*.data.folds={self.data.folds}; set "
                "it to 0."
            )
        if self.data.preprocessing != "none":
            raise SettingError(
                "a source reads the pixels that its column reads, got sources.*.data.preprocessing="
                f"{self.data.preprocessing}; leave it at none."
            )

    def trial(self, seed: int) -> TrialSpec:
        """Return the source as a trial; ``seed`` sets weights and label draw."""
        return TrialSpec(
            family=self.family, data=self.data, model=self.model, training=self.training, seed=seed, label_seed=seed
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    family: str
    """Row of ``models.FAMILIES``."""
    data: DataConfig
    model: ModelConfig
    """Settings of the family's model; ``from_mapping`` determines their class from ``family``."""
    training: TrainingConfig
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Mean teacher of the network; none if its weight is 0."""
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    """Earlier stages by name; sorted by name, they are the columns of a progressive network."""
    seed: int = 1
    """Seed of weights, noise and batch order."""
    label_seed: int = 1
    """Seed of the label draw, equal for all configurations of a search so that they are comparable."""
    draws: int = 1
    """Number of label draws to train on; the error is their mean. Draw i adds i to both seeds."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise SettingError(f"draws must be at least 1, got {self.draws}; give a positive whole number.")
        if self.data.folds and self.draws != self.data.folds:
            raise SettingError(
                f"each label draw holds out one fold, got draws={self.draws} and data.folds={self.data.folds}; set "
                f"draws to {self.data.folds}, or data.folds to 0."
            )
        if self.data.measure is not None and self.model.measures != (ERROR.name,):
            raise SettingError(
                f"data.measure={self.data.measure} is for classifiers of rows, and this network is judged by its "
                f"{self.model.measure.title}; leave it out."
            )
        for training in (self.training, *(source.training for source in self.sources.values())):
            # Music has several steps per row for batch statistics; other data has only its rows.
            if self.measure is not NLL and min(training.labelled_batch, training.unlabelled_batch) < 2:
                raise SettingError(
                    "training batches must have at least 2 rows, batch statistics need them, got "
                    f"{training.labelled_batch} labelled and {training.unlabelled_batch} unlabelled; raise both."
                )
        self.teacher.check_suits(self.model)
        if isinstance(self.model, StagedConfig):
            self.model.check_sources(self._columns())
        elif self.sources:
            raise SettingError(
                f"the family {self.family} has no earlier stage, got sources {sorted(self.sources)}; leave them out."
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TrialSpec:
        """Build a trial from nested plain settings; see ``config.build`` for the errors."""
        raw = dict(mapping)
        family = find_family(str(raw.get("family", "")))
        raw["model"] = build(family.config, raw.get("model", {}), where="model")
        raw["sources"] = build_sources(raw.get("sources", {}))
        return build(cls, raw)

    def as_mapping(self) -> dict[str, Any]:
        """Return plain nested settings for ``from_mapping``; unused sources and teachers are omitted."""
        settings = as_mapping(self)
        if not self.sources:
            del settings["sources"]
        if self.teacher == TeacherConfig():
            del settings["teacher"]
        return settings

    def for_space(self) -> dict[str, Any]:
        """Return nested settings for a search space: ``as_mapping`` and the model's ``variation``."""
        return {**self.as_mapping(), "variation": self.model.variation()}

    def suggested(self, suggestion: Mapping[str, Any]) -> TrialSpec:
        """Return this trial with the settings suggested by a search space, see ``spaces.Space``."""
        settings = {name: values for name, values in suggestion.items() if name != "variation"}
        spec = TrialSpec.from_mapping(merge(self.as_mapping(), settings))
        variation = suggestion.get("variation")
        return replace(spec, model=spec.model.varied(variation)) if variation else spec

    def changed(self, settings: Mapping[str, Any], *, epochs: int | None = None) -> TrialSpec:
        """Return the trial with nested settings applied, and with a schedule of ``epochs`` unless None."""
        length = {} if epochs is None else {"training": {"epochs": epochs}}
        return TrialSpec.from_mapping(merge(merge(self.as_mapping(), settings), length))

    @property
    def measures(self) -> tuple[str, ...]:
        """What the trial is judged by, as names in ``metrics``; searches compare the first."""
        return measures_of(self.model, self.data)

    @property
    def measure(self) -> Measure:
        return MEASURES[self.measures[0]]

    def request(self) -> Request:
        return request_of(self.model, self.training, find_family(self.family).stacking)

    def program(self) -> tuple[object, ...]:
        """Return a key of the training program, without data set and batch sizes."""
        training, stages = self.training, self.stages.values()
        return (
            *self.model.signature(),
            *(self.teacher.weight > 0, self.teacher.consistency, self.teacher.statistics),
            *(training.dtype, training.precision, training.clip_norm is None),
            *(stage.model.signature() for stage in stages),
        )

    @property
    def stages(self) -> dict[str, SourceConfig]:
        """The sources that the network uses, in the order of its columns."""
        staged = isinstance(self.model, StagedConfig) and self.model.staged
        return dict(sorted(self.sources.items())) if staged else {}

    def _columns(self) -> dict[str, ColumnConfig]:
        models, needed = {}, find_family(self.family).stage
        for name, source in sorted(self.sources.items()):
            if source.family != needed or not isinstance(source.model, ColumnConfig):
                raise SettingError(
                    f"a source of {self.family} must be of the family {needed}, sources.{name}.family is "
                    f"{source.family}; set it to {needed}."
                )
            models[name] = source.model
        return models

    def member(self, dataset: Dataset, draw: int = 0, *, sources: Mapping[str, nn.Module] | None = None) -> MemberSpec:
        """Return the pack member that trains label draw number ``draw``, 0 <= draw < draws.

        Args: ``sources`` are the trained networks of ``stages``; without them the member cannot be trained.
        """
        data, split = self.data, self._split(dataset, draw)
        taken_over = {}
        if sources and isinstance(self.model, StagedConfig):
            columns = [
                adapted(sources[name], dataset, split.unlabelled, self.model.scale)
                if stage.statistics == "target"
                else sources[name]
                for name, stage in self.stages.items()
            ]
            taken_over = self.model.taken_over(columns)
        model = TaughtConfig(self.model, self.teacher) if self.teacher.weight else self.model
        scalings: tuple[Scaling, ...] = ()
        prepared = "" if data.preprocessing == "none" else _fitted_on(split)
        classes = dataset.train_y[split.labelled].astype(np.int64) if data.batches == "balanced" else None
        if dataset.scaled is not None:
            prepared, scalings = self._scalings(dataset)
            if len(scalings) > 1:
                split = split.offset(draw * len(dataset.train_x))
        return MemberSpec(
            model=model,
            training=self.training,
            split=split,
            seed=self.seed + draw,
            data=prepared,
            scalings=scalings,
            classes=classes,
            measures=() if self.measures == self.model.measures else judged_by(self.measures[0], model.measures),
            lengths=None if dataset.pieces is None else dataset.pieces.lengths[: dataset.pieces.training],
            stages=tuple((stage.family, *stage.model.signature()) for stage in self.stages.values()),
            taken_over=taken_over,
        )

    def _split(self, dataset: Dataset, draw: int) -> Split:
        data = self.data
        seed = self.label_seed if data.folds else self.label_seed + draw  # folds are parts of one label draw
        return dataset.split(n_labelled=data.labels, validation=data.validation, seed=seed, folds=data.folds, fold=draw)

    def _scalings(self, dataset: Dataset) -> tuple[str, tuple[Scaling, ...]]:
        """Return the name and the scalings of the numbers for each draw; one if nothing is held out."""
        data, columns = self.data, dataset.scaled
        assert columns is not None, "the data set has numbers"
        draws = self.draws if data.holds_out else 1
        held_out = (data.labels, data.validation, data.folds, self.label_seed, draws) if data.holds_out else ()
        identity = (dataset.digest, columns.tobytes(), data.scaling, held_out)
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]

        def fitted() -> tuple[Scaling, ...]:
            rows = (np.sort(self._split(dataset, draw).unlabelled) for draw in range(draws))
            return tuple(scaling.fit(dataset.train_x, of_draw, columns, data.scaling) for of_draw in rows)

        return name, scaling.kept(name, fitted)

    def check_fits(self, dataset: Dataset) -> None:
        """Raise ``SettingError`` unless model and data fit."""
        self._check_objects(dataset)
        self.model.check_fits(dataset.numbers, dataset.n_classes, dataset.name)
        numbers = dataset.scaled is not None
        if self.data.preprocessing != "none" and (dataset.moving or dataset.pieces or dataset.grouped or numbers):
            raise SettingError(
                f"data.preprocessing={self.data.preprocessing} whitens images that stand still, got {dataset.name}; "
                "leave it at none."
            )
        of_rows = {"folds": 0, "batches": "as-drawn", "measure": None}
        changed = [name for name, default in of_rows.items() if getattr(self.data, name) != default]
        if changed and (dataset.grouped or dataset.pieces or self.model.measures != (ERROR.name,)):
            raise SettingError(
                f"data.{changed[0]} is for classifiers of rows with one class each, got "
                f"{getattr(self.data, changed[0])} with {dataset.name}; leave it out."
            )
        if self.data.preprocessing != "none" and self.data.holds_out and self.draws > 1:
            raise SettingError(
                f"label draws hold out other images and data.preprocessing={self.data.preprocessing} is fitted on the "
                f"rest, got draws={self.draws}; train 1 draw."
            )
        self.member(dataset)

    def _check_objects(self, dataset: Dataset) -> None:
        """Raise ``SettingError`` unless model and data agree on the objects of an image."""
        grouped, model = dataset.grouped, self.model
        if isinstance(model, GroupingConfig):
            if grouped is None:
                raise SettingError(
                    f"the family {self.family} is scored by the true segments of images, and {dataset.name} has none; "
                    "choose a data set for grouping, for example data.dataset=shapes-small."
                )
            if model.segments < grouped.scene.segments:
                raise SettingError(
                    f"model.segments must be at least {grouped.scene.segments}, the largest number of true segments of "
                    f"an image of {dataset.name}, got {model.segments}; set it to {grouped.scene.segments}."
                )
            if model.likelihood == "binary" and dataset.full_scale != 1.0:
                raise SettingError(
                    f"model.likelihood=binary needs pixels of 0 and 1, and {dataset.name} has grey levels; set it to "
                    "continuous."
                )
        if grouped is None or ERROR.name not in model.measures:
            return
        if dataset.n_classes < 2:
            raise SettingError(
                f"a network with classes needs a data set with classes, and {dataset.name} has none; choose another "
                "data set."
            )
        if grouped.scene.digits > 1 and not model.reads_several_classes:
            raise SettingError(
                f"the family {self.family} reads one class per image, and images of {dataset.name} have "
                f"{grouped.scene.digits}; choose another data set, or a family of ladders or taggers."
            )

    def pack(self, dataset: Dataset, *, slots: int, compiled: bool, device: torch.device) -> Pack:
        """Return an empty pack for trials with the signature of this one."""
        member, stacking = self.member(dataset), find_family(self.family).stacking
        feed = training_feed(member, dataset, device)
        return Pack(member, self._build, feed, slots=slots, compiled=compiled, stacking=stacking)

    def empty_network(self) -> Network:
        """Return a network of this configuration, as trained by a pack, for loading values."""
        return self._build(self.model, generator=torch.Generator())

    def empty_sources(self) -> dict[str, Network]:
        """Return networks of ``stages`` for loading values."""
        generator = torch.Generator()
        return {name: find_family(s.family).build(s.model, generator=generator) for name, s in self.stages.items()}

    def _build(self, config: ModelConfig, *, generator: torch.Generator) -> Network:
        sources = [source for source in self.empty_sources().values() if isinstance(source, Column)]
        own = config.student if isinstance(config, TaughtConfig) else config

        def network() -> Network:
            return find_family(self.family).build(own, generator=generator, sources=sources)

        if not self.teacher.weight:
            return network()
        student, teacher = network(), network()
        assert isinstance(student, Teachable) and isinstance(teacher, Teachable), "the settings were checked"
        return Taught(student, teacher, self.teacher)

    def empty_module(self) -> nn.Module:
        """Return ``empty_network`` as exported: with preprocessing, so that it takes pixels in 0..1."""
        network = self.empty_network()
        if self.data.file is not None and self.data.preprocessing == "none":
            return ScaledInputs(network, self.model.example_shape)
        if self.data.preprocessing == "none":
            return network
        return Prepared(network, math.prod(self.model.example_shape))

    def exported(self, network: nn.Module, dataset: Dataset, device: torch.device) -> nn.Module:
        """Return a trained network as exported; ``device`` is where it was trained and its data may be cached."""
        member = self.member(dataset)
        whitening = whitening_of(member, dataset, device)
        if whitening is None and (member.scalings or self.data.file is not None):
            scaled = ScaledInputs(network, self.model.example_shape).to(next(network.parameters()).dtype)
            if member.scalings:
                scaled.take(member.scalings[0])
            return scaled
        if whitening is None:
            return network
        module = Prepared(network, math.prod(self.model.example_shape)).to(next(network.parameters()).dtype)
        module.take(whitening)
        return module


def measures_of(model: ModelConfig, data: DataConfig) -> tuple[str, ...]:
    """Return the names of what a network with these settings is judged by on these data."""
    chosen = data.measure
    if chosen is None and data.file is not None and model.measures == (ERROR.name,):
        chosen = "error"
    return model.measures if chosen is None else judged_by(chosen.replace("-", "_"), model.measures)


def build_sources(raw: Mapping[str, Any]) -> dict[str, SourceConfig]:
    """Build the sources of a trial from plain settings; see ``config.build`` for the errors."""
    if not isinstance(raw, Mapping):
        raise SettingError(f"sources must be groups of settings by name, got {raw!r:.80}; write sources.NAME.….")
    sources = {}
    for name, values in raw.items():
        if isinstance(values, SourceConfig):
            sources[name] = values
            continue
        if not isinstance(values, Mapping):
            raise SettingError(
                f"sources.{name} must be a group of settings, got {values!r:.80}; give its data, model …"
            )
        family = find_family(str(values.get("family", "ladder")))
        model = build(family.config, values.get("model", {}), where=f"sources.{name}.model")
        sources[name] = build(SourceConfig, {**values, "model": model}, where=f"sources.{name}")
    return sources


def _fitted_on(split: Split) -> str:
    """Return a digest of the set of training images, independent of their order."""
    return hashlib.sha256(np.sort(split.unlabelled).tobytes()).hexdigest()[:16]
