"""Names of all metrics that a trial reports.

The objective of a search is called its error, whatever it measures; ``MEASURES`` defines its format and its direction,
and every comparison of two values goes through ``Measure``. Classification
errors are fractions (0.0106 is 1.06 %); costs are in nats or mean squared units; times are in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

STEP = "step"
EPOCH = "epoch"
VALIDATION_ERROR = "validation_error"
TEST_ERROR = "test_error"
COST = "cost"
COST_SUPERVISED = "cost_supervised"
COST_DECAY = "cost_decay"
COST_PREDICTION = "cost_prediction"
COST_CONSISTENCY = "cost_consistency"
DRAW = "draw"
"""Number of the label draw that a row of metrics belongs to, from 0, if a trial trains its draws in turn."""
DRAW_ERROR = "draw_validation_error"
"""Validation error on this draw alone; ``VALIDATION_ERROR`` is then the mean over the draws that are complete."""
LEARNING_RATE = "learning_rate"
STEP_TIME_MS = "step_time_ms"

HISTORY = "history"
"""Entry of a report: one row of metrics per epoch since the last report."""
NOTE = "note"
"""Entry of a report: a message for the user, or empty."""
DIVERGED = "diverged"
"""Entry of a report: true if a member became non-finite or cannot be trained; it ends the trial."""
REASON = "reason"
"""Entry of a report: the reason, in a few words."""


def validation_score(name: str) -> str:
    """Return the name of a further validation measure besides ``VALIDATION_ERROR``, see the networks' ``measures``. The
    fraction of misclassified examples is ``validation_classification_error``, because the objective of every search is
    ``validation_error``."""
    return "validation_classification_error" if name == "error" else f"validation_{name}"


def cost_denoising(layer: int) -> str:
    """Return the name of layer ``layer``'s weighted denoising cost, ``lambda_l * mean squared error``."""
    return f"cost_denoising_{layer}"


def cost_after(iteration: int) -> str:
    """Return the name of the reconstruction's cost after an iteration of a grouping network."""
    return f"cost_after_{iteration}"


T = TypeVar("T")

NOTHING = "–"
"""Placeholder for a missing value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The objective of a search, its direction and its format."""

    name: str
    title: str
    """Title after "validation" or "test" in a sentence."""
    unit: str
    scale: float
    digits: int
    difference: str
    limit: float | None
    """Upper bound of the measure; None if unbounded."""
    rises: bool = False
    """Whether larger values are better."""
    converged_at: float | None = None
    """Value from which a training has converged; one with a worse value has collapsed. None: every finite value."""

    @property
    def convergence(self) -> str:
        """The rule of ``converged`` in a few words; empty without a rule."""
        if self.converged_at is None:
            return ""
        return f"{self.title} of at {'least' if self.rises else 'most'} {self.text(self.converged_at)}"

    def converged(self, value: float) -> bool:
        """Return whether a training with this finite value has converged."""
        return self.converged_at is None or self.gain(value, self.converged_at) >= 0

    def loss(self, value: float) -> float:
        """Return the value as a quantity of which less is better, for every comparison, order and test: the value, or
        its negative if larger values are better."""
        return -value if self.rises else value

    def gain(self, value: float, other: float) -> float:
        """Return by how much ``value`` is better than ``other``; negative if it is worse."""
        return self.loss(other) - self.loss(value)

    def best(self, things: Iterable[T], value: Callable[[T], float]) -> T | None:
        """Return the first of ``things`` with the best ``value``; None without any."""
        return min(things, key=lambda thing: self.loss(value(thing)), default=None)

    @property
    def worst(self) -> float:
        """Infinity, negative if larger values are better: any finite value is better."""
        return self.loss(math.inf)

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Direction of an Optuna study."""
        return "maximize" if self.rises else "minimize"

    @property
    def mode(self) -> Literal["min", "max"]:
        """Mode of Ray's schedulers and searchers."""
        return "max" if self.rises else "min"

    def beyond(self, worse: bool) -> Literal["above", "below"]:
        """Return on which side of a value the worse, or the better, values are."""
        return "above" if worse != self.rises else "below"

    @property
    def label(self) -> str:
        """Title of an axis; without the unit for a percentage, as every tick has it."""
        return self.title if self.unit in ("%", "") else f"{self.title}, {self.unit}"

    def number(self, value: float) -> str:
        """Format a value without its unit: 0.0106 -> ``1.06``."""
        return f"{self.scale * value:.{self.digits}f}"

    def text(self, value: float | None) -> str:
        """Format a value: 0.0106 -> ``1.06 %``; – for None."""
        return NOTHING if value is None or not math.isfinite(value) else f"{self.number(value)} {self.unit}".rstrip()

    def rounded(self, value: float) -> str:
        """Format a value as short as possible: 0.15 -> ``15 %``."""
        return f"{self.scale * value:g} {self.unit}".rstrip()

    def apart(self, difference: float) -> str:
        """Format a difference: 0.0014 -> ``0.14 points``."""
        return f"{self.number(difference)} {self.difference}"


ERROR = Measure(name="error", title="error", unit="%", scale=100.0, digits=2, difference="points", limit=1.0)
"""Fraction of misclassified examples."""
BALANCED_ERROR = replace(ERROR, name="balanced_error", title="balanced error")
"""Mean of the classes' errors, so that rare classes count as much as frequent ones."""
LOG_LOSS = Measure(name="log_loss", title="log-loss", unit="nats", scale=1.0, digits=3, difference="nats", limit=None)
"""Mean negative logarithm of the true class's probability."""
CLASS_MEASURES = (ERROR.name, BALANCED_ERROR.name, LOG_LOSS.name)
"""Measures of classifiers that ``data.measure`` chooses from."""


def judged_by(chosen: str, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the measures of a classifier with measures ``own``, first the one ``chosen`` of ``CLASS_MEASURES``."""
    others = [name for name in CLASS_MEASURES if name != chosen]
    return (chosen, *others, *(name for name in own if name not in CLASS_MEASURES))


NLL = Measure(name="nll", title="NLL", unit="nats per step", scale=1.0, digits=3, difference="nats", limit=None)
"""Negative log-likelihood of a sequence's next step."""
PREDICTION_ERROR = Measure(
    name="prediction_error",
    title="prediction error",
    unit="x 1e-5",
    scale=1e5,
    digits=1,
    difference="x 1e-5",
    limit=None,
)
"""Mean squared error of the next frame's pixels."""

AMI = Measure(
    name="ami", title="AMI", unit="", scale=1.0, digits=3, difference="AMI", limit=1.0, rises=True, converged_at=0.1
)
"""Adjusted mutual information of groups and true segments, mean over images, with the normaliser ``max`` of the papers
on Tagger; see ``nn.ami``. Networks that have not learned to group have 0 to 0.08 on shapes; the bound is ours."""
AMI_ARITHMETIC = replace(AMI, name="ami_arithmetic", title="AMI (arithmetic)")
"""The same with the arithmetic mean as normaliser, scikit-learn's present default; never smaller."""

STUDENT_ERROR = replace(ERROR, name="student_error", title="student's error")
"""Error of the student of a mean teacher."""

MOST_ITERATIONS = 20
"""Largest number of iterations, or estimated frames, of a grouping network."""


def after(name: str, iteration: int) -> str:
    """Return the name of the measure ``name`` after an iteration, or on an estimated frame, from 1."""
    return f"{name}_{iteration}"


MEASURES: dict[str, Measure] = {
    m.name: m for m in (ERROR, BALANCED_ERROR, LOG_LOSS, NLL, PREDICTION_ERROR, STUDENT_ERROR, AMI, AMI_ARITHMETIC)
}
MEASURES |= {
    after(m.name, i): replace(m, name=after(m.name, i), title=f"{m.title} after iteration {i}")
    for m in (AMI, ERROR)
    for i in range(1, MOST_ITERATIONS + 1)
}
