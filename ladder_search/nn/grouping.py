"""Perceptual grouping by iterative inference (Greff et al. 2016): settings, inputs, costs and scores of K groups.

K copies of one network, the groups, explain an image together; symbols are those of ``nn.likelihoods``. Initially ``m``
is a softmax over groups of normal noise and ``z`` a constant. In each iteration the network reads ``z``, ``delta_z``,
``m`` and ``L`` and returns new ``z`` and ``m``. The cost is the mean over the iterations.

Classes, as in the authors' code: a network for c classes has c + 1. The last one, "none", belongs to no object and is
dropped; the others' probabilities are summed over the groups and divided by their total.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import AMI, AMI_ARITHMETIC, COST, COST_SUPERVISED, ERROR, MOST_ITERATIONS, after, cost_after
from ladder_search.nn.ami import agreement
from ladder_search.nn.classes import shares, wrong
from ladder_search.nn.likelihoods import Likelihood, Pixels
from ladder_search.nn.network import Network
from ladder_search.nn.protocol import Batch, ModelConfig
from ladder_search.nn.steps import Found

SCORED_ROWS = 100
"""Rows of a scored batch, whose statistics normalise it: the number of the authors' code."""

_SEED = 1
"""Seed of the noise and the initial assignments of evaluations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingConfig(ModelConfig):
    """Settings of networks that group pixels."""

    groups: int = 4
    """K, the number of groups: objects and background; more are harmless, fewer cannot separate all objects."""
    iterations: int = 3
    """Iterations in training."""
    evaluation_iterations: int = 5
    """Iterations in evaluations and of the exported network."""
    likelihood: Pixels = "binary"
    """binary: pixels are 0 or 1 and each is flipped with probability ``noise``; continuous: Gaussian noise."""
    noise: float = 0.2
    """q, the probability of a flipped pixel, or sigma, the standard deviation of Gaussian noise."""
    initial_z: float = 0.26
    """Value of z before the first iteration, the data's mean; textured digits have 0.5."""
    initial_w: float = 1.0
    """Initial w of the continuous likelihood, whose v, the variance of a pixel in the cost, is w + sqrt(w^2 + 1): 2.4
    for 1, the authors' value, and 0.06 for -8."""
    w_rate: float = 1.0
    """Factor of the learning rate of w. Adam changes w by at most the learning rate per step: with the authors' factor,
    1, and a rate of 0.001, v is above 0.05 for 11,000 updates and above 0.01 for 51,000. While v is above the error of
    the estimates, the cost gains little from groups that differ; a small v alone does not separate them, see
    reproductions/README.md."""
    initial_scale: float = 1.0
    """Standard deviation of the untrained network's estimates z, for binary pixels of their logits: the initial c_1 of
    Tagger, 1 in the authors' code."""
    initial_mean: float = 0.0
    """Their mean, the initial b_1, 0 in the authors' code. With the data's mean and standard deviation the error of a
    short training falls faster, see reproductions/README.md."""
    classes: int = 0
    """Classes of an image; 0: no classification, and labelled rows are not read."""
    class_cost: float = 0.1
    """Weight of the classification cost of the last iteration."""
    unlabelled: bool = True
    """Whether to train on unlabelled rows; false requires classes."""
    judged_by: Literal["ami", "error"] = "ami"
    """Measure of searches and targets; error requires classes."""
    segments: int = 4
    """Largest number of true segments of an image, for scoring; training does not use them."""

    def check_groups(self) -> None:
        """Raise ``SettingError`` for settings that no data set or that no network has."""
        for name, high in (
            ("groups", 64),
            ("iterations", MOST_ITERATIONS),
            ("evaluation_iterations", MOST_ITERATIONS),
            ("segments", 64),
        ):
            in_range(f"model.{name}", getattr(self, name), 1, high)
        in_range("model.class_cost", self.class_cost, 0.0, 1e6)
        in_range("model.initial_z", self.initial_z, 0.0, 1.0)
        in_range("model.initial_w", self.initial_w, -1e3, 1e3)
        in_range("model.w_rate", self.w_rate, 1e-3, 1e4)
        in_range("model.initial_scale", self.initial_scale, 0.0, 100.0)
        in_range("model.initial_mean", self.initial_mean, -100.0, 100.0)
        in_range("model.classes", self.classes, 0, 10**4)
        binary = self.likelihood == "binary"
        in_range("model.noise", self.noise, *((1e-4, 0.4999) if binary else (0.0, 10.0)))
        if not self.classes and not self.unlabelled:
            raise SettingError(
                "a network without classes reads unlabelled rows only, got model.classes=0 and model.unlabelled=false; "
                "set one of the two."
            )
        if self.judged_by == "error" and not self.classes:
            raise SettingError(
                "only a network with classes is judged by its error, got model.judged_by=error and model.classes=0; "
                "set classes, or judged_by=ami."
            )

    @property
    def measures(self) -> tuple[str, ...]:
        return measures_of(classes=self.classes, iterations=self.evaluation_iterations, judged_by=self.judged_by)

    @property
    def reads_several_classes(self) -> bool:
        return True

    @property
    def reads_unlabelled(self) -> bool:
        return self.unlabelled

    @property
    def statistics_batches(self) -> int:
        return 1

    @property
    def in_turn(self) -> int:
        return self.iterations

    def hyper(self) -> dict[str, list[float]]:
        return {"class_cost": [self.class_cost]}

    def rows(self, labelled: int, unlabelled: int) -> int:
        """Return the rows of a step that are read."""
        return labelled * (self.classes > 0) + unlabelled * self.unlabelled

    def group_signature(self) -> tuple[object, ...]:
        """Return the settings of this class that members of a pack share; evaluations depend on the noise too."""
        iterations = (self.iterations, self.evaluation_iterations)
        start = (self.likelihood, self.noise, self.initial_z, self.initial_w, self.w_rate)
        return (self.groups, *iterations, *start, self.classes, self.unlabelled, self.judged_by, self.segments)


class Normalisation(NamedTuple):
    """The statistics that normalise a run: by default those of its batch and iteration."""

    stored: bool = False
    """Whether the stored statistics may be used, if a network has them."""
    found: Found | None = None
    """Receives the statistics, see ``nn.steps.Steps``."""


TRAINING, EVALUATION = Normalisation(), Normalisation(stored=True)


class Inferred(NamedTuple):
    """The result of an iteration."""

    z: Tensor  # (K, rows, D)
    m: Tensor  # (K, rows, D)
    logits: Tensor | None  # (K, rows, classes + 1), the last one of "none"; None without classes


class Trace(NamedTuple):
    """Results of all iterations on images with the evaluation's noise, or of all frames of a video but the last, whose
    z are estimates of the next frame."""

    corrupted: Tensor  # (iterations, rows, D): what each iteration reads
    z: Tensor  # (iterations, rows, K, D)
    m: Tensor  # (iterations, rows, K, D)
    probabilities: Tensor | None  # (iterations, rows, classes)


class Grouping(Network):
    """A network that groups pixels. A subclass implements ``inferences``; ``forward`` classifies, or returns m.

    An image is read in every iteration. Of a video an iteration reads a frame and estimates the next one.
    """

    likelihood: Likelihood
    K: int
    """Groups."""
    D: int
    """Pixels of an image, or of a frame."""
    frames: int = 1
    """Frames of a video; 1: images."""
    classes: int
    """0: no classification."""
    iterations: int
    """Iterations in training; for videos ``frames - 1``."""
    evaluation_iterations: int
    unlabelled: bool
    """Whether unlabelled rows are read."""
    n_segments: int
    """Largest number of scored segments of an image."""

    @abstractmethod
    def inferences(
        self, x_tilde: Sequence[Tensor], m: Tensor, normalisation: Normalisation = TRAINING
    ) -> list[Inferred]:
        """Return the result of every iteration.

        Args:
            x_tilde: corrupted pixels that each iteration reads, (rows, D).
            m: initial assignments, (K, rows, D).
            normalisation: the statistics that normalise, for networks that have a choice.
        """

    # --- training -----------------------------------------------------------------------------------------------------

    @property
    def term_names(self) -> tuple[str, ...]:
        by_iteration = (cost_after(i) for i in range(1, self.iterations + 1))
        return (COST, *[COST_SUPERVISED] * (self.classes > 0), *by_iteration)

    @property
    def scored_rows(self) -> int | None:
        return SCORED_ROWS

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return self._noise_of(labelled * (self.classes > 0) + unlabelled * self.unlabelled)

    def _noise_of(self, rows: int) -> int:
        return rows * (max(1, self.frames - 1) + self.K) * self.D

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cost of one step and its terms: the mean over iterations of the reconstruction's cost, and
        ``class_cost`` times the cross-entropy of the last iteration's classes.

        ``noise`` is first that of the pixels, (rows, D) or by frame, then the logits of the initial assignments,
        (K, rows, D). Labelled rows come before unlabelled ones.
        """
        parts = [batch.x_labelled] * (self.classes > 0) + [batch.x_unlabelled] * self.unlabelled
        observed, targets, m = self._start(torch.cat(parts), noise, self.iterations)
        found = self.inferences(observed, m)
        by_iteration = [self.likelihood.cost(x, each.z, each.m) for x, each in zip(targets, found, strict=True)]
        total, terms = torch.stack(by_iteration).mean(), by_iteration
        if self.classes:
            labelled = _logits(found[-1])[:, : len(batch.x_labelled)]
            supervised = hyper["class_cost"][0] * _class_cost(labelled, batch.y)
            total, terms = total + supervised, [supervised, *terms]
        return total, torch.stack([total, *terms])

    def _start(self, x: Tensor, noise: Tensor, iterations: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return what the iterations read and are compared with, (rows, D) each, and the initial m."""
        frames = x.reshape(len(x), self.frames, self.D).unbind(1)
        clean = frames[:-1] or frames
        of_pixels, of_groups = torch.split(noise, [len(clean) * frames[0].numel(), self.K * frames[0].numel()], dim=-1)
        draws = of_pixels.view(len(clean), len(x), self.D).unbind(0)
        observed = [self.likelihood.corrupted(each, d) for each, d in zip(clean, draws, strict=True)]
        m = torch.softmax(of_groups.view(self.K, len(x), self.D), dim=0)
        if self.frames > 1:
            return observed, list(frames[1:]), m
        return observed * iterations, list(frames) * iterations, m

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def statistics(self, *minibatches: Tensor) -> dict[str, Tensor]:
        """Return no statistics: evaluations use those of their batch, as in the authors' code."""
        return {}

    def _evaluated(self, x: Tensor, normalisation: Normalisation = EVALUATION) -> tuple[list[Tensor], list[Inferred]]:
        """Return what the iterations read and found, for clean images or videos; the noise depends on the row only."""
        noise = _evaluation_noise(self._noise_of(len(x)), x.dtype, x.device)
        observed, _, m = self._start(x, noise, self.evaluation_iterations)
        return observed, self.inferences(observed, m, normalisation)

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities, (rows, classes), or without classes m, (rows, K, D), of the last iteration."""
        last = self._evaluated(x)[1][-1]
        return class_probabilities(_logits(last)) if self.classes else last.m.transpose(0, 1)

    def trace(self, x: Tensor) -> Trace:
        """Return the results of every iteration for clean images or videos, (rows, ...)."""
        return _traced(*self._evaluated(x), self.classes)

    def generated(self, x: Tensor, count: int) -> Trace:
        """Return the results of the ``count`` >= 1 frames that follow videos x, (rows, frames, ...).

        The whole video is read, with the evaluation's noise; its last frame gives the first new one. From then on the
        network reads what it has generated, ``sum_g m_g z_g``, with noise too.
        """
        rows, extra = len(x), x[:, 0].numel()
        noise = _evaluation_noise(self._noise_of(rows) + count * extra, x.dtype, x.device)
        draws, further = torch.split(noise, [self._noise_of(rows), count * extra], dim=-1)
        observed, _, m = self._start(x, draws, self.evaluation_iterations)
        following, frame, found = further.view(count, rows, self.D), x.reshape(rows, self.frames, self.D)[:, -1], []
        for draw in following.unbind(0):
            observed = [*observed, self.likelihood.corrupted(frame, draw)]
            last = self.inferences(observed, m, EVALUATION)[-1]
            frame = (last.m * last.z).sum(0)
            found.append(last)
        return _traced(observed[-count:], found, self.classes)

    def scores(self, x: Tensor, y: Tensor, segments: Tensor) -> Tensor:
        """Return sums over rows for every entry of ``measures``, then the number of rows, float64.

        The score of images is that of the last iteration; AMI of videos is averaged over the estimated frames.

        Args:
            x: clean images, (rows, ...), or videos.
            y: classes, (rows,), or k-hot classes, (rows, classes).
            segments: true segment of each pixel, int64 (rows, D) or, for videos, (rows, frames, D), in
                0..n_segments-1; -1: not scored.
        """
        found = self._evaluated(x)[1]
        by_frame = segments.reshape(len(x), self.frames, self.D).unbind(1)
        true = by_frame[1:] or by_frame * len(found)
        agreements = [
            agreement(here, each.m.argmax(0), n_labels=self.n_segments, n_groups=self.K)
            for here, each in zip(true, found, strict=True)
        ]
        sums = {
            AMI.name: [each.max.sum() for each in agreements],
            AMI_ARITHMETIC.name: [each.arithmetic.sum() for each in agreements],
        }
        total = {name: torch.stack(each).mean() if self.frames > 1 else each[-1] for name, each in sums.items()}
        if self.classes:
            sums[ERROR.name] = [wrong(class_probabilities(_logits(each)), y).sum() for each in found]
            total[ERROR.name] = sums[ERROR.name][-1]
        for name, each in sums.items():
            total |= {after(name, i): value for i, value in enumerate(each, 1)}
        divisor = torch.full((), len(x), dtype=torch.float64, device=x.device)
        return torch.stack([*(total[name].double() for name in self.measures), divisor])


def _traced(observed: Sequence[Tensor], found: Sequence[Inferred], classes: int) -> Trace:
    return Trace(
        corrupted=torch.stack([*observed]),
        z=torch.stack([each.z for each in found]).transpose(1, 2),
        m=torch.stack([each.m for each in found]).transpose(1, 2),
        probabilities=torch.stack([class_probabilities(_logits(each)) for each in found]) if classes else None,
    )


def measures_of(*, classes: int, iterations: int, judged_by: str) -> tuple[str, ...]:
    """Return the names of a grouping network's measures, first ``judged_by``; iterations are those of evaluations."""
    names = [AMI.name, *[ERROR.name] * (classes > 0), AMI_ARITHMETIC.name]
    names.sort(key=lambda name: name != judged_by)
    each = [after(name, i) for name in (AMI.name, ERROR.name)[: 1 + (classes > 0)] for i in range(1, iterations + 1)]
    return (*names, *each)


def class_probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of classes from those of all groups: (K, rows, classes + 1) -> (rows, classes)."""
    return torch.exp(_log_probabilities(logits))


def _class_cost(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of the classes against y / k, for y with k ones per row; averaged over rows."""
    log_p = _log_probabilities(logits)
    return -(shares(y, log_p.shape[-1], log_p.dtype) * log_p).sum(-1).mean()


def _log_probabilities(logits: Tensor) -> Tensor:
    """Return ``class_probabilities`` in logarithms, which do not underflow."""
    objects = torch.log_softmax(logits, dim=-1)[..., :-1]
    summed = torch.logsumexp(objects, dim=0)
    return summed - torch.logsumexp(summed, dim=-1, keepdim=True)


def _logits(found: Inferred) -> Tensor:
    assert found.logits is not None
    return found.logits


@functools.lru_cache(maxsize=8)
def _evaluation_noise(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the standard normal draws of an evaluation; stored, because captured programs have no generator."""
    draws = np.random.default_rng(_SEED).standard_normal(size, dtype=np.float32)
    return torch.from_numpy(draws).to(device, dtype)
