"""Thaker's report: MNIST to street digits with progressive ladder networks, as published and corrected.

The published numbers are single runs whose source weights were never used: the code restored them into one session and
trained another. Controls are a random frozen source and a wider column with as many trainable weights. The same rows
exist for stand-ins of the street digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from ladder_search.models.ladder import LadderConfig
from ladder_search.models.progressive import ProgressiveConfig
from ladder_search.studies.study import StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import DataConfig, SourceConfig

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

    prefix: str
    target: str
    source: str
    widths: tuple[int, ...]
    validation: int
    source_validation: int
    epochs: int
    source_training: TrainingConfig
    stop_at: float | None


_DOMAINS = {
    "svhn": _Domain(
        prefix="svhn",
        target="svhn",
        source="mnist",
        widths=MNIST_WIDTHS,
        validation=7257,
        source_validation=10_000,
        epochs=100,
        source_training=TrainingConfig(),
        stop_at=MATCHED,
    ),
    "meter-digits": _Domain(
        prefix="meter-digits",
        target="meter-digits",
        source="mnist",
        widths=MNIST_WIDTHS,
        validation=1286,
        source_validation=10_000,
        epochs=30,
        source_training=TrainingConfig(),
        stop_at=MATCHED,
    ),
    "usps": _Domain(
        prefix="usps",
        target="usps",
        source="mnist",
        widths=MNIST_WIDTHS,
        validation=1291,
        source_validation=10_000,
        epochs=30,
        source_training=TrainingConfig(),
        stop_at=MATCHED,
    ),
    "digits": _Domain(
        prefix="house-numbers",
        target="synthetic-house-numbers",
        source="digits-28",
        widths=SMALL_WIDTHS,
        validation=4000,
        source_validation=297,
        epochs=20,
        source_training=TrainingConfig(epochs=75),
        stop_at=None,
    ),
}

_PLAIN: dict[str, Any] = {"decoder": "none"}


def ladder_source(domain: _Domain, **changes: Any) -> SourceConfig:
    """Return a ladder with 100 labels as the source."""
    depth = len(domain.widths) - 1
    return SourceConfig(
        data=DataConfig(dataset=domain.source, labels=100, validation=domain.source_validation),
        model=LadderConfig(
            widths=domain.widths,
            noise_std=(0.3,) * (depth + 1),
            lambda_=(1000.0, 10.0, *(0.1,) * (depth - 1)),
        ),
        training=domain.source_training,
        stop_at=domain.stop_at,
        **changes,
    )


def supervised_source(domain: _Domain, **changes: Any) -> SourceConfig:
    """Return a plain network of the same sizes, trained with all labels, as the source."""
    zeros = (0.0,) * len(domain.widths)
    return SourceConfig(
        data=DataConfig(dataset=domain.source, labels=None, validation=domain.source_validation),
        model=LadderConfig(widths=domain.widths, noise_std=zeros, lambda_=zeros, decoder="none"),
        training=domain.source_training,
        stop_at=domain.stop_at,
        **changes,
    )


def random_source(domain: _Domain) -> SourceConfig:
    """Return Rusu's baseline 4: the same network with its initial weights."""
    return replace(supervised_source(domain), weights="random", stop_at=None)


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


def _published(error: float, standing: str) -> Target:
    return Target(
        error=error, spread=None, seeds=1, source=THAKER, verified=True, spread_verified=False, standing=standing
    )


def _rows(domain: _Domain) -> tuple[Study, ...]:
    column = ProgressiveConfig(widths=domain.widths, approach="scratch")
    progressive = replace(column, approach="progressive")
    broad = wider(domain.widths)
    ladder = {domain.source: ladder_source(domain)}
    supervised = {domain.source: supervised_source(domain)}
    random = {domain.source: random_source(domain)}
    # The published columns: raw pixels, no batch norm; in their code relu(FC) is added after the nonlinearity.
    raw = replace(progressive, adapter="sum", batch_norm=False, initial="xavier", head="relu", pixels="raw")
    decay = 1e-6

    def study(
        name: str, title: str, model: ProgressiveConfig, sources: dict[str, SourceConfig], **changes: Any
    ) -> Study:
        published = changes.pop("published", None)
        lr = changes.pop("lr", 0.001)
        target = None
        if domain.target == "svhn" and published is not None:
            target = _published(*published)
        return Study(
            name=name if name.startswith("progressive-") else f"{domain.prefix}-{name}",
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
            target=target,
            **changes,
        )

    base = f"{domain.prefix}-scratch"
    main = "progressive-digits" if domain.prefix == "house-numbers" else "from-ladder"
    studies = [
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
    ]  # fmt: skip
    return tuple(studies)


STUDIES: tuple[Study, ...] = tuple(study for domain in _DOMAINS.values() for study in _rows(domain))
