"""Thaker's report: MNIST to street digits with progressive ladder networks, as published and corrected.

The published numbers are single runs whose source weights were never used: the code restored them into one session and
trained another. Controls are a random frozen source and a wider column with as many trainable weights. The same rows
exist for stand-ins of the street digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from ladder_search.data.config import DataConfig
from ladder_search.models.ladder import LadderConfig
from ladder_search.models.progressive import ProgressiveConfig
from ladder_search.studies.study import StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig

THAKER = "Thaker 2017, progressive ladder networks (project report)"
NEVER_USED = "one run; its source's weights were never used"
ONE_RUN = "one run"

MNIST_WIDTHS = (784, 1000, 500, 250, 250, 250, 10)
# A quarter of the report's widths, for data sets that a laptop searches in minutes.
SMALL_WIDTHS = (784, 250, 125, 60, 60, 60, 10)
MATCHED = 0.05
"""Validation error at which sources stop, to compare sources of equal quality: the report's 95 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressiveSpaceConfig:
    """What a search of the progressive family varies around the study's own settings; see ``spaces/progressive.py``."""

    alpha: Literal["fixed", "tied", "per-layer"] = "tied"
    """Initial alpha of the laterals, 0.003..3; tied: one for all layers, per-layer: one each."""
    adapter: bool = True
    """Search the adapter's kind: rusu, sum, linear."""
    adapter_width: bool = False
    """Search the adapters' hidden width."""
    batch_norm: bool = False
    """Search whether the target column has batch normalisation."""
    weight_decay: bool = True
    """Search the weight decay: 0, 1e-6, 1e-5."""
    lr: bool = True
    """Search the learning rate, 0.0001..0.003."""
    statistics: bool = True
    """Search whether the source's batch statistics are its own or recomputed on the target's pixels."""
    source_labels: bool = False
    """Search the source's labels, 100 or 1000; each value needs its own source."""
    source_noise: bool = False
    """Search the noise and the lowest denoising weight of a ladder source; every trial trains its own source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Domain:
    """A source and a target with the same classes."""

    target: str
    prefix: str = ""
    """Start of the studies' names; "": that of the target."""
    source: str = "mnist"
    widths: tuple[int, ...] = MNIST_WIDTHS
    validation: int
    source_validation: int = 10_000
    epochs: int
    source_training: TrainingConfig = field(default_factory=TrainingConfig)
    stop_at: float | None = MATCHED

    def ladder(self) -> SourceConfig:
        """Return a ladder with 100 labels as the source."""
        lambda_ = (1000.0, 10.0, *(0.1,) * (len(self.widths) - 2))
        noise_std = (0.3,) * len(self.widths)
        return self._source(100, LadderConfig(widths=self.widths, noise_std=noise_std, lambda_=lambda_))

    def supervised(self) -> SourceConfig:
        """Return a plain network of the same sizes, trained with all labels, as the source."""
        zeros = (0.0,) * len(self.widths)
        return self._source(None, LadderConfig(widths=self.widths, noise_std=zeros, lambda_=zeros, decoder="none"))

    def _source(self, labels: int | None, model: LadderConfig) -> SourceConfig:
        data = DataConfig(dataset=self.source, labels=labels, validation=self.source_validation)
        return SourceConfig(data=data, model=model, training=self.source_training, stop_at=self.stop_at)


_DOMAINS = (
    _Domain(target="svhn", validation=7257, epochs=100),
    _Domain(target="meter-digits", validation=1286, epochs=30),
    _Domain(target="usps", validation=1291, epochs=30),
    _Domain(
        target="synthetic-house-numbers",
        prefix="house-numbers",
        source="digits-28",
        widths=SMALL_WIDTHS,
        validation=4000,
        source_validation=297,
        epochs=20,
        source_training=TrainingConfig(epochs=75),
        stop_at=None,
    ),
)


def wider(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the widths of a column with as many trainable weights as a progressive one including its adapters.

    Rusu's adapter adds n_{i-1} n_i + n_i^2 weights to layer i >= 2; all hidden layers are widened by one factor m,
    which solves a m^2 + b m = c, where a are the weights between hidden layers and b the others.
    """
    hidden = widths[1:-1]
    a = sum(n_in * n_out for n_in, n_out in pairwise(hidden))
    b = widths[0] * hidden[0] + hidden[-1] * widths[-1]
    adapters = sum(n_in * n_out + n_out * n_out for n_in, n_out in pairwise(widths[1:]))
    m = (-b + math.sqrt(b * b + 4.0 * a * (a + b + adapters))) / (2.0 * a)
    return (widths[0], *(round(m * n) for n in hidden), widths[-1])


def published(error: float, standing: str) -> Target:
    return Target(error=error, seeds=1, source=THAKER, verified=True, standing=standing)


def _rows(domain: _Domain) -> tuple[Study, ...]:
    column = ProgressiveConfig(widths=domain.widths, approach="scratch")
    progressive = replace(column, approach="progressive")
    broad = wider(domain.widths)
    prefix = domain.prefix or domain.target
    ladder, supervised = {domain.source: domain.ladder()}, {domain.source: domain.supervised()}
    # Rusu's baseline 4: the same network with its initial weights.
    random = {domain.source: replace(domain.supervised(), weights="random", stop_at=None)}
    # The published columns: raw pixels, no batch norm; in their code relu(FC) is added after the nonlinearity.
    raw = replace(progressive, adapter="sum", batch_norm=False, initial="xavier", head="relu", pixels="raw")
    decay = 1e-6

    def study(
        name: str, title: str, model: ProgressiveConfig, sources: dict[str, SourceConfig], **changes: Any
    ) -> Study:
        lr, number = changes.pop("lr", 0.001), changes.pop("published", None)
        return Study(
            name=name if name.startswith("progressive-") else f"{prefix}-{name}",
            family="progressive",
            title=title,
            data=DataConfig(dataset=domain.target, labels=None, validation=domain.validation),
            model=model,
            training=TrainingConfig(
                epochs=domain.epochs, lr=lr, decay_start=0.61, labelled_batch=64, unlabelled_batch=64
            ),
            space=ProgressiveSpaceConfig(),
            sources=sources,
            stop=StopConfig(first_rung_steps=500, failure_error=0.895, failure_steps=2000),
            target=published(*number) if domain.target == "svhn" and number else None,
            **changes,
        )

    base = f"{prefix}-scratch"
    main = "progressive-digits" if prefix == "house-numbers" else "from-ladder"
    return (
        study(main, "progressive column on a ladder with 100 labels", progressive, ladder,
              baseline=base, published=(0.223, NEVER_USED)),
        study("from-supervised", "progressive column on a supervised source", progressive, supervised, baseline=base),
        study("from-random", "control: progressive column on a random frozen source", progressive, random,
              baseline=base),
        study("fine-tuned", "one column, starts from the ladder's weights", replace(column, approach="fine-tuned"),
              ladder, baseline=base),
        study("scratch", "one column from scratch", column, {}),
        study("wider", "control: one column, as many trainable weights", replace(column, widths=broad), {},
              baseline=base),
        study("no-alpha", "progressive on a ladder, no scalars", replace(progressive, alpha="absent"), ladder,
              baseline=base),
        study("scratch-published", "as published: probabilities as logits, pixels 0..255, no batch norm",
              replace(column, batch_norm=False, initial="fan-in", head="double-softmax", pixels="raw",
                      weight_decay=decay), {}, lr=1e-4, published=(0.65, ONE_RUN)),
        study("from-random-published", "as published: what the progressive runs were, a random source",
              replace(raw, alpha="absent", weight_decay=decay), random, lr=1e-4, published=(0.223, NEVER_USED)),
        study("raw-alpha", "as published but learned scalars on the laterals", replace(raw, weight_decay=decay),
              ladder, lr=1e-4),
        study("raw-no-alpha", "as published on a ladder's weights, no scalars",
              replace(raw, alpha="absent", weight_decay=decay), ladder, lr=1e-4, published=(0.93, NEVER_USED)),
    )  # fmt: skip


STUDIES: tuple[Study, ...] = tuple(study for domain in _DOMAINS for study in _rows(domain))
