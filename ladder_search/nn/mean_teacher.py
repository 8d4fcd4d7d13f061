"""Mean Teacher (Tarvainen and Valpola 2017) around a network that classifies: a teacher whose weights follow.

The student trains with its own cost and is pulled, on all rows of a batch, towards what the teacher makes of the same
inputs under other noise. The teacher's weights are an exponential average of the student's; it is what is judged,
exported and evaluated. What the recurrent ladder's authors used is not known: the defaults are those of Mean Teacher's
own code, its steps turned into shares of the run, so that short trials see the teacher, too.

In a step each network is normalised by the batch statistics of its own rows. What the teacher is normalised by where it
is judged and exported is ``TeacherConfig.statistics``: an average over steps, as its weights are, or measured then.
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
"""Of the ramp, exp(-5 (1 - s)^2)."""

_FOUND = "found."
"""Prefix of a step's batch statistics of the teacher, in ``Taught.cost``'s third result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Settings of the teacher. ``weight`` 0 is none."""

    weight: float = 0.0
    """Largest weight of the consistency cost, a mean over all rows of a step.

    Mean Teacher's own code has 10 to 100 with mse and ten classes, 1 to 10 with kl, times the share of all examples
    that is labelled where few are; but it divides the labelled rows' cost by all rows of a step, and here that cost is
    their mean: its weights are to be multiplied by all rows over labelled rows, 3.5 where 20 of 70 are labelled.
    """
    consistency: Literal["mse", "kl"] = "mse"
    """mse: squared difference of the probabilities, mean over classes; kl: from the teacher's to the student's."""
    decay: float = 0.999
    """Of the average of weights, per step, after the ramp."""
    decay_at_first: float = 0.99
    """The same during the ramp, when the student's weights change fast."""
    ramp: float = 0.1
    """Share of the run in which the weight grows to its largest; 0: it has it from the start."""
    statistics: Literal["measured", "averaged"] = "measured"
    """What the teacher is normalised by where it is judged.

    measured: then, with its weights, on clean labelled minibatches, as all networks here are. averaged: over steps,
    with the decay of its weights and from mean 0 and variance 1 on; each step's are those of its rows under the
    teacher's noise, as in Mean Teacher's own code. Measured ones belong to the weights of the moment and have no start
    to forget, so that short trials are judged fairly: hence the default. Where both were tried they came to the same,
    11.52 % +- 0.42 and 11.49 +- 0.49 (static classifier at half size, 1,000 labels, 3 passes, n = 2).
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
    """Settings of a network and its teacher, to the training program those of one network."""

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
        """Backward a product is two, which the teacher does not need."""
        return self.student.flops(labelled, unlabelled) * 4 / 3

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.student.example_shape

    @property
    def statistics_batches(self) -> int:
        """As many as the student averages."""
        return self.student.statistics_batches

    @property
    def measures(self) -> tuple[str, ...]:
        """Those of the teacher, and the student's error."""
        return (*self.student.measures, "student_error")

    @property
    def reads_unlabelled(self) -> bool:
        return self.student.reads_unlabelled

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        self.student.check_fits(pixels, classes, dataset)


class Taught(Network):
    """A student and its teacher, two networks of one kind.

    They have ``cost_with_logits``, ``noisy_logits`` and ``logits_noise_size`` besides what all networks have, and no
    buffers but test-time statistics; the noise of a step is the student's, then the teacher's.
    """

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
        """1 - decay: the share of its way that the teacher goes in a step."""
        _, decay, at_first, ramp = hyper["teacher"].unbind(-1)
        return 1.0 - torch.where(hyper[PROGRESS] < ramp, at_first, decay)

    @property
    def measures(self) -> tuple[str, ...]:
        """The teacher's, and the student's error."""
        return (*self.teacher.measures, "student_error")

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return self.student.noise_size(labelled, unlabelled) + self.teacher.logits_noise_size(labelled + unlabelled)

    def cost(
        self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the student's cost with the consistency cost added, the terms of both, and what averages follow."""
        x = torch.cat([batch.x_labelled, batch.x_unlabelled])
        size = self.teacher.logits_noise_size(len(x))
        own, other = torch.split(noise, [noise.shape[-1] - size, size], dim=-1)
        total, terms, logits = self.student.cost_with_logits(batch, own, hyper)
        assert logits is not None, "a network with a teacher classifies"
        found: dict[str, Tensor] | None = {} if self.config.statistics == "averaged" else None
        wanted = self.teacher.noisy_logits(x, other, hyper, found).detach()
        weight, _, _, ramp = hyper["teacher"].unbind(-1)
        share = torch.where(ramp > 0, hyper[PROGRESS] / ramp.clamp_min(1e-12), 1.0).clamp(max=1.0)
        pull = weight * torch.exp(-STEEPNESS * (1.0 - share).square()) * self._difference(logits, wanted)
        total = total + pull
        # The first of all networks' terms is their sum.
        stacked = torch.stack([total, *terms[1:].unbind(0), pull])
        if found is None:
            return total, stacked
        return total, stacked, {_FOUND + name: value.detach() for name, value in found.items()}

    def _difference(self, logits: Tensor, wanted: Tensor) -> Tensor:
        if self.config.consistency == "mse":
            return (torch.softmax(logits, -1) - torch.softmax(wanted, -1)).square().mean()
        mine, theirs = torch.log_softmax(logits, -1), torch.log_softmax(wanted, -1)
        return functional.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1).mean()

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        """Test-time statistics of the networks that have none from their steps: the student, and a measured teacher."""
        networks = {"student": self.student}
        if self.config.statistics == "measured":
            networks["teacher"] = self.teacher
        return {
            f"{name}.{buffer}": value
            for name, network in networks.items()
            for buffer, value in network.statistics(x_labelled).items()
        }

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """Sums of what the teacher is judged by, of the student's errors, and the number of rows."""
        *judged, rows = self.teacher.scores(x, y).unbind(-1)
        return torch.stack([*judged, self.student.scores(x, y)[0], rows])

    def forward(self, x: Tensor) -> Tensor:
        """The teacher's class probabilities."""
        probabilities: Tensor = self.teacher(x)
        return probabilities
