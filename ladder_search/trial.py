"""TrialSpec: one trial, typed and checked. Mappings end here; everything below works on what this module builds."""

from __future__ import annotations

import copy
import hashlib
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ladder_search.config import as_mapping, build, in_range
from ladder_search.data.dataset import Dataset
from ladder_search.data.datasets import DATASETS
from ladder_search.data.music import FlatCorpus
from ladder_search.data.occluded import Renderer
from ladder_search.data.occluded_sets import FIXED_SEED, TEST, VALIDATION, stream_key
from ladder_search.data.splits import Split
from ladder_search.data.whitening import Prepared, Whitening, fit
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.metrics import NLL, Measure, measure_of
from ladder_search.models import find_family
from ladder_search.nn.mean_teacher import Taught, TaughtConfig, TeacherConfig
from ladder_search.paths import expanded
from ladder_search.training.evaluation import labelled_statistics
from ladder_search.training.feeds import Feed, MovingDigits, TrainingData
from ladder_search.training.music_feed import MusicFeed
from ladder_search.training.pack import MemberSpec, Pack
from ladder_search.training.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which examples a trial sees."""

    dataset: str
    """Row of ``data.datasets.DATASETS``."""
    labels: int | None
    """Labelled examples, the same number of each class; null: all training examples are labelled."""
    validation: int
    """Training examples held out to judge a configuration by; 0 in final training."""
    preprocessing: Literal["none", "gcn-zca"] = "none"
    """none: pixels in 0..1; gcn-zca: contrast normalisation, then whitening, see ``data.whitening``.

    Whitening is fitted on the images that are trained on, not on those held out, and applied to all others, too.
    """

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise UnknownNameError("data set", self.dataset, DATASETS)
        if self.labels is not None and self.labels < 1:
            raise SettingError(
                f"data.labels must be at least 1 or null, got {self.labels}; give a positive whole number."
            )
        if self.validation < 0:
            raise SettingError(f"data.validation must be 0 or more, got {self.validation}; give a whole number.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """An earlier stage: a network that is trained once and shared by all trials that ask for the same one."""

    family: str = "ladder"
    """Row of ``models.FAMILIES``, one without sources of its own."""
    data: DataConfig
    model: Any
    training: TrainingConfig
    weights: Literal["trained", "random"] = "trained"
    """random: as initialised, with statistics of its own data (Rusu et al. 2016, baseline 4)."""
    stop_at: float | None = None
    """Validation error at which training ends, so that sources of equal accuracy can be compared; null: full length."""
    statistics: Literal["source", "target"] = "source"
    """target: batch statistics are computed anew on the target's pixels (AdaBN), which need no labels."""
    bundle: str | None = None
    """Folder of a bundle with these model settings, to be used instead of training one."""

    def __post_init__(self) -> None:
        if self.bundle is not None:
            object.__setattr__(self, "bundle", expanded(self.bundle, "sources.*.bundle"))
        if self.stop_at is not None:
            in_range("sources.*.stop_at", self.stop_at, 0.0, 1.0)
            if self.data.validation < 1:
                raise SettingError(
                    "sources.*.stop_at needs validation rows to stop by, got data.validation=0; hold some out."
                )
        if self.data.preprocessing != "none":
            raise SettingError(
                "a source reads the pixels that its column reads, got sources.*.data.preprocessing="
                f"{self.data.preprocessing}; leave it at none."
            )

    def trial(self, seed: int) -> TrialSpec:
        """The source as a trial of its own; ``seed`` sets its weights and its label draw."""
        return TrialSpec(
            family=self.family, data=self.data, model=self.model, training=self.training, seed=seed, label_seed=seed
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """One configuration with its seeds."""

    family: str
    """Row of ``models.FAMILIES``."""
    data: DataConfig
    model: Any
    """Settings of the family's model, a ``ModelConfig``; ``from_mapping`` learns from ``family`` which class it is."""
    training: TrainingConfig
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """A mean teacher of the network; weight 0: none."""
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    """Earlier stages by their names, in whose alphabetical order they are the columns of a progressive network."""
    seed: int = 1
    """Seed of weights, noise and batch order."""
    label_seed: int = 1
    """Seed of the label draw: equal for all configurations of a search, so that they are compared on the same draw."""
    draws: int = 1
    """Label draws that the configuration is trained on; its error is their mean. Draw i adds i to both seeds."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise SettingError(f"draws must be at least 1, got {self.draws}; give a positive whole number.")
        for training in (self.training, *(source.training for source in self.sources.values())):
            # A window of music has its steps to take statistics over; whatever else is trained has its rows alone.
            if self.measure is not NLL and min(training.labelled_batch, training.unlabelled_batch) < 2:
                raise SettingError(
                    "training batches must have at least 2 rows, batch statistics need them, got "
                    f"{training.labelled_batch} labelled and {training.unlabelled_batch} unlabelled; raise both."
                )
        self.teacher.check_suits(self.model)
        if hasattr(self.model, "check_sources"):
            self.model.check_sources({name: source.model for name, source in sorted(self.sources.items())})
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
        """Plain nested settings; ``from_mapping`` gives this trial back. Of stages and teachers it tells if any."""
        found = as_mapping(self)
        if not self.sources:
            del found["sources"]
        if self.teacher == TeacherConfig():
            del found["teacher"]
        return found

    @property
    def measure(self) -> Measure:
        """What the trial is judged by."""
        return measure_of(self.model)

    @property
    def stages(self) -> dict[str, SourceConfig]:
        """The sources that the network really uses, in the order of its columns."""
        return dict(sorted(self.sources.items())) if getattr(self.model, "staged", False) else {}

    def member(self, dataset: Dataset, draw: int = 0, *, sources: Mapping[str, nn.Module] | None = None) -> MemberSpec:
        """Return the pack member that trains label draw number ``draw``, 0 <= draw < draws.

        Args:
            sources: the trained networks of ``stages``; without them the member can be looked at, not trained.
        """
        split = dataset.split(
            n_labelled=self.data.labels, n_validation=self.data.validation, seed=self.label_seed + draw
        )
        data = "" if self.data.preprocessing == "none" else _fitted_on(split)
        given = {}
        if sources:
            columns = [
                adapted(sources[name], dataset, split.unlabelled, self.model.scale)
                if stage.statistics == "target"
                else sources[name]
                for name, stage in self.stages.items()
            ]
            given = self.model.given(columns)
        return MemberSpec(
            model=TaughtConfig(self.model, self.teacher) if self.teacher.weight else self.model,
            training=self.training,
            split=split,
            seed=self.seed + draw,
            data=data,
            lengths=None if dataset.pieces is None else dataset.pieces.lengths[: dataset.pieces.training],
            stages=tuple((stage.family, *stage.model.signature()) for stage in self.stages.values()),
            given=given,
        )

    def check_fits(self, dataset: Dataset) -> None:
        """Raise ``SettingError`` when model and data do not fit each other, before anything is trained."""
        self.model.check_fits(dataset.numbers, dataset.n_classes, dataset.name)
        if self.data.preprocessing != "none" and (dataset.moving is not None or dataset.pieces is not None):
            raise SettingError(
                f"data.preprocessing={self.data.preprocessing} whitens images that stand still, got {dataset.name}; "
                "leave it at none."
            )
        if self.data.preprocessing != "none" and self.data.validation and self.draws > 1:
            raise SettingError(
                f"label draws hold out other images and data.preprocessing={self.data.preprocessing} is fitted on the "
                f"rest, got draws={self.draws}; train 1 draw."
            )
        self.member(dataset)
        for name, stage in self.stages.items():
            if hasattr(stage.model, "check_sources"):
                raise SettingError(
                    f"sources.{name}.family must be one without sources, got {stage.family}; use ladder."
                )

    def pack(self, dataset: Dataset, *, slots: int, compiled: bool, device: torch.device) -> Pack:
        """Return an empty pack for trials with this one's signature."""
        family, member = find_family(self.family), self.member(dataset)
        data = training_data(self, dataset, device)
        return Pack(member, self._build, data, slots=slots, compiled=compiled, stacking=family.stacking)

    def empty_network(self) -> nn.Module:
        """Return a network of this configuration, as a pack trains it, whose values are to be loaded."""
        return self._build(self.model, torch.Generator())

    def empty_sources(self) -> dict[str, nn.Module]:
        """Return networks of ``stages`` whose values are to be loaded, or do not matter."""
        return {name: find_family(s.family).build(s.model, torch.Generator()) for name, s in self.stages.items()}

    def _build(self, model: Any, generator: torch.Generator) -> nn.Module:
        build_network, sources = find_family(self.family).build, list(self.empty_sources().values())
        if not self.teacher.weight:
            return build_network(model, generator, sources)
        own = model.student if isinstance(model, TaughtConfig) else model
        student, teacher = build_network(own, generator, sources), build_network(own, generator, sources)
        return Taught(student, teacher, self.teacher)

    def empty_module(self) -> nn.Module:
        """The same as it is exported: it takes pixels in 0..1, whatever is made of them in training."""
        network = self.empty_network()
        if self.data.preprocessing == "none":
            return network
        return Prepared(network, math.prod(self.model.example_shape))

    def exported(self, network: nn.Module, dataset: Dataset, device: torch.device) -> nn.Module:
        """Return a trained network as it is exported; it was trained on ``device``, where its data may be yet."""
        whitening = _held(self, dataset, device).whitening
        if whitening is None:
            return network
        module = Prepared(network, math.prod(self.model.example_shape)).to(next(network.parameters()).dtype)
        module.take(whitening)
        return module


def build_sources(raw: Mapping[str, Any]) -> dict[str, SourceConfig]:
    """Build the sources of a trial from plain settings; see ``config.build`` for the errors."""
    if not isinstance(raw, Mapping):
        raise SettingError(f"sources must be groups of settings by name, got {raw!r:.80}; write sources.NAME.….")
    found = {}
    for name, values in raw.items():
        if isinstance(values, SourceConfig):
            found[name] = values
            continue
        if not isinstance(values, Mapping):
            raise SettingError(
                f"sources.{name} must be a group of settings, got {values!r:.80}; give its data, model …"
            )
        family = find_family(str(values.get("family", "ladder")))
        model = build(family.config, values.get("model", {}), where=f"sources.{name}.model")
        found[name] = build(SourceConfig, {**values, "model": model}, where=f"sources.{name}")
    return found


def adapted(source: nn.Module, dataset: Dataset, rows: NDArray[np.int64], scale: float) -> nn.Module:
    """Return the network with its batch statistics computed anew on rows of a data set (AdaBN, Li et al. 2016).

    Args:
        rows: training rows, whose labels are not looked at; minibatches of 100 are averaged, a rest is left out.
        scale: what pixels in 0..1 are multiplied by.
    """
    size = min(_ADAPTED_ROWS, len(rows))
    batches = torch.from_numpy(rows[: len(rows) // size * size].reshape(1, -1, size))
    params = {name: value.detach().unsqueeze(0) for name, value in source.named_parameters()}
    x, y = (_tensor(array, torch.device("cpu")) for array in (dataset.train_x, dataset.train_y))
    feed = TrainingData(x=x, y=y, full_scale=dataset.full_scale / scale)
    found = labelled_statistics(source, params, feed, batches)
    changed = copy.deepcopy(source)
    changed.load_state_dict({name: value[0] for name, value in found.items()}, strict=False)
    return changed


_ADAPTED_ROWS = 100


@dataclass(frozen=True, slots=True)
class _Held:
    feed: Feed
    whitening: Whitening | None


class _Prepared:
    """Data sets on a device, those that were used last: a trial's own and that of its sources, which two threads of a
    host use in turn."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._held: OrderedDict[tuple[object, ...], _Held] = OrderedDict()

    def get(self, key: tuple[object, ...], prepare: Callable[[], _Held]) -> _Held:
        """Return what ``key`` names; ``prepare`` makes it unless it is held."""
        with self._lock:
            held = self._held.pop(key, None)
            if held is None:
                while len(self._held) >= self._most:  # before the next takes its room
                    self._held.popitem(last=False)
                held = prepare()
            self._held[key] = held
            return held


_PREPARED = _Prepared(2)


def training_data(spec: TrialSpec, dataset: Dataset, device: torch.device) -> Feed:
    """Return the training set on ``device``, prepared and read as the trial has it."""
    return _held(spec, dataset, device).feed


def test_data(spec: TrialSpec, dataset: Dataset, device: torch.device) -> Feed:
    """Return the test set, prepared and read alike: for final training alone."""
    whitening = _held(spec, dataset, device).whitening
    x, y = _tensor(dataset.test_x, device), _tensor(dataset.test_y, device).long()
    if whitening is not None:
        return TrainingData(x=whitening(x), y=y, full_scale=1.0)
    pieces = dataset.pieces
    if pieces is not None:
        corpus = FlatCorpus(notes=dataset.test_x, first=pieces.test_first, lengths=pieces.test_lengths)
        everything = np.arange(len(corpus.lengths))
        return MusicFeed(corpus, x, training=everything, judged=everything)
    return _feed(spec, dataset, spec.member(dataset).split, x, y, TEST)


def _held(spec: TrialSpec, dataset: Dataset, device: torch.device) -> _Held:
    member = spec.member(dataset)
    rows = spec.training.labelled_batch + spec.training.unlabelled_batch
    key = (dataset.digest, device, member.data, spec.model.example_shape, bool(spec.data.validation), rows)

    def prepare() -> _Held:
        x, y = _tensor(dataset.train_x, device), _tensor(dataset.train_y, device).long()
        if spec.data.preprocessing != "gcn-zca":
            return _Held(_feed(spec, dataset, member.split, x, y, VALIDATION), None)
        whitening = fit(x[torch.from_numpy(np.sort(member.split.unlabelled)).to(device)])
        return _Held(TrainingData(x=whitening(x), y=y, full_scale=1.0), whitening)

    return _PREPARED.get(key, prepare)


def _feed(spec: TrialSpec, dataset: Dataset, split: Split, x: torch.Tensor, y: torch.Tensor, part: int) -> Feed:
    """How examples come from the rows of a data set; ``part`` tells which fixed sequences moving digits have."""
    moving, pieces = dataset.moving, dataset.pieces
    if pieces is not None:
        corpus = FlatCorpus(notes=dataset.train_x, first=pieces.first, lengths=pieces.lengths)
        return MusicFeed(corpus, x, training=split.unlabelled, judged=split.validation)
    if moving is None:
        return TrainingData(x=x, y=y, full_scale=dataset.full_scale)
    return MovingDigits(
        x=x,
        y=y,
        full_scale=dataset.full_scale,
        renderer=Renderer(moving.scene, x.device),
        fixed_key=stream_key(FIXED_SEED, part),
        reconstructed=moving.reconstructed,
        numbers=torch.arange(spec.training.labelled_batch + spec.training.unlabelled_batch, device=x.device),
        shape=spec.model.example_shape,
    )


def _fitted_on(split: Split) -> str:
    """Names the set of images that are trained on, whatever their order: those of a pack's members are the same."""
    return hashlib.sha256(np.sort(split.unlabelled).tobytes()).hexdigest()[:16]


def _tensor(array: Any, device: torch.device) -> torch.Tensor:
    with warnings.catch_warnings():
        # Memory-mapped arrays are read-only and stay so: nothing here writes to a data set.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
