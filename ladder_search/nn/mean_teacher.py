"""Mean Teacher (Tarvainen and Valpola 2017): a classifier, the student, with a teacher of averaged weights.

A consistency cost pulls the student towards the teacher's output for the same rows under other noise. The teacher is
evaluated and exported; in a step each network is normalised with its own rows' batch statistics. The settings of the
recurrent ladder's authors are unknown: the defaults are those of Mean Teacher's code, with steps converted to fractions
of the run, so that they suit short trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import COST_CONSISTENCY
from ladder_search.nn.network import Network, Teachable
from ladder_search.nn.protocol import PROGRESS, Batch, ModelConfig

STEEPNESS = 5.0
"""Coefficient of the ramp, exp(-5 (1 - s)^2)."""

_FOUND = "found."
"""Prefix of the teacher's batch statistics of a step, in the third result of ``Taught.cost``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Settings of the teacher; ``weight`` 0 disables it."""

    weight: float = 0.0
    """Maximum weight of the consistency cost, a mean over all rows of a step.

    Mean Teacher's code uses 10 to 100 with mse and ten classes, and 1 to 10 with kl, multiplied by the fraction of
    labelled examples. It divides the labelled rows' cost by all rows of a step, whereas here that cost is a mean over
    labelled rows: multiply its weights by all rows over labelled rows, 3.5 if 20 of 70 are labelled.
    """
    consistency: Literal["mse", "kl"] = "mse"
    """mse: squared difference of the probabilities, mean over classes; kl: from the teacher's to the student's."""
    decay: float = 0.999
    """Decay of the average of weights, per step, after the ramp."""
    decay_at_first: float = 0.99
    """Decay during the ramp, while the student's weights change fast."""
    ramp: float = 0.1
    """Fraction of the run in which the weight grows to its maximum; 0: it is constant."""
    statistics: Literal["measured", "averaged"] = "measured"
    """Statistics that normalise the teacher in evaluations.

    measured: computed with its weights on clean labelled minibatches, as for all other networks. averaged: averaged
    over steps with the decay of its weights, from mean 0 and variance 1; each step's are those of its rows under the
    teacher's noise, as in Mean Teacher's code. Measured statistics do not depend on their start, which is fairer to
    short trials, and are therefore the default. Both were equally good, 11.52 % +- 0.42 and 11.49 +- 0.49 (static
    classifier at half size, 1,000 labels, 3 passes, n = 2).
    """

    def __post_init__(self) -> None:
        in_range("teacher.weight", self.weight, 0.0, 1e6)
        in_range("teacher.ramp", self.ramp, 0.0, 1.0)
        for name in ("decay", "decay_at_first"):
            in_range(f"teacher.{name}", getattr(self, name), 0.0, 1.0)

    def check_suits(self, model: ModelConfig) -> None:
        """Raise ``SettingError`` unless a network with settings ``model`` can have a teacher."""
        if not self.weight or model.teachable:
            return
        raise SettingError(
            "a teacher needs a network that classifies, with noise, and passes unlabelled rows up, which "
            f"{type(model).__name__} with these settings does not; set teacher.weight=0, or for a recurrent network "
            "model.unlabelled=true, for a ladder model.decoder=gamma or full."
        )


@dataclass(frozen=True, slots=True)
class TaughtConfig(ModelConfig):
    """Settings of a network with its teacher, which the training program treats as one network."""

    student: ModelConfig
    teacher: TeacherConfig

    def signature(self) -> tuple[object, ...]:
        kinds = (self.teacher.consistency, self.teacher.statistics)
        return (type(self.student).__name__, *self.student.signature(), "taught", *kinds)

    def hyper(self) -> dict[str, list[float]]:
        teacher = self.teacher
        return {
            **self.student.hyper(),
            "teacher": [teacher.weight, teacher.decay, teacher.decay_at_first, teacher.ramp],
        }

    def on_network_of(self, other: Self) -> Self:
        return replace(self, student=self.student.on_network_of(other.student))

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the operations including the teacher's, which needs no backward pass: two of a product's three."""
        return self.student.flops(labelled, unlabelled) * 4 / 3

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.student.example_shape

    @property
    def statistics_batches(self) -> int:
        return self.student.statistics_batches

    @property
    def measures(self) -> tuple[str, ...]:
        return (*self.student.measures, "student_error")

    @property
    def reads_unlabelled(self) -> bool:
        return self.student.reads_unlabelled

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        self.student.check_fits(pixels, classes, dataset)


class Taught(Network):
    """A student and its teacher, two networks of one kind; the noise of a step is the student's, then the teacher's."""

    def __init__(self, student: Teachable, teacher: Teachable, config: TeacherConfig) -> None:
        super().__init__()
        self.student, self.teacher, self.config = student, teacher, config
        self.teacher.load_state_dict(student.state_dict())

    @property
    def term_names(self) -> tuple[str, ...]:
        return (*self.student.term_names, COST_CONSISTENCY)

    @property
    def widest(self) -> int:
        return self.student.widest

    @property
    def followers(self) -> Mapping[str, str]:
        """The teacher's weights, which follow the student's, and averaged statistics, which follow each step's."""
        weights = {f"teacher.{name}": f"student.{name}" for name, _ in self.student.named_parameters()}
        if self.config.statistics == "measured":
            return weights
        return weights | {f"teacher.{name}": f"{_FOUND}{name}" for name, _ in self.teacher.named_buffers()}

    def follow_rate(self, hyper: Mapping[str, Tensor]) -> Tensor:
        _, decay, at_first, ramp = hyper["teacher"].unbind(-1)
        return 1.0 - torch.where(hyper[PROGRESS] < ramp, at_first, decay)

    @property
    def measures(self) -> tuple[str, ...]:
        return (*self.teacher.measures, "student_error")

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return self.student.noise_size(labelled, unlabelled) + self.teacher.logits_noise_size(labelled + unlabelled)

    def cost(
        self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the student's cost plus the consistency cost, their terms, and the statistics that averages follow."""
        x = torch.cat([batch.x_labelled, batch.x_unlabelled])
        size = self.teacher.logits_noise_size(len(x))
        student_noise, teacher_noise = torch.split(noise, [noise.shape[-1] - size, size], dim=-1)
        total, terms, logits = self.student.cost_with_logits(batch, student_noise, hyper)
        assert logits is not None, "a network with a teacher classifies"
        statistics: dict[str, Tensor] | None = {} if self.config.statistics == "averaged" else None
        target = self.teacher.noisy_logits(x, teacher_noise, hyper, statistics).detach()
        weight, _, _, ramp = hyper["teacher"].unbind(-1)
        share = torch.where(ramp > 0, hyper[PROGRESS] / ramp.clamp_min(1e-12), 1.0).clamp(max=1.0)
        pull = weight * torch.exp(-STEEPNESS * (1.0 - share).square()) * self._difference(logits, target)
        total = total + pull
        # The first term of every network is the total.
        stacked = torch.stack([total, *terms[1:].unbind(0), pull])
        if statistics is None:
            return total, stacked
        return total, stacked, {_FOUND + name: value.detach() for name, value in statistics.items()}

    def _difference(self, logits: Tensor, wanted: Tensor) -> Tensor:
        if self.config.consistency == "mse":
            return (torch.softmax(logits, -1) - torch.softmax(wanted, -1)).square().mean()
        log_p, log_q = torch.log_softmax(logits, -1), torch.log_softmax(wanted, -1)
        return functional.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1).mean()

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        networks = {"student": self.student}
        if self.config.statistics == "measured":
            networks["teacher"] = self.teacher
        return {
            f"{name}.{buffer}": value
            for name, network in networks.items()
            for buffer, value in network.statistics(x_labelled).items()
        }

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        *judged, rows = self.teacher.scores(x, y).unbind(-1)
        return torch.stack([*judged, self.student.scores(x, y)[0], rows])

    def class_sums(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([self.teacher.class_sums(x, y), self.student.scores(x, y)[:1].double()])

    def forward(self, x: Tensor) -> Tensor:
        probabilities: Tensor = self.teacher(x)
        return probabilities
