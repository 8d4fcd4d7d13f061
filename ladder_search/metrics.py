"""Names of every metric that a trial reports; one spelling for pack, Ray, Optuna, MLflow and reports.

What a search minimises is called its error, whatever it measures; ``MEASURES`` tells how it is shown. Classification
errors are fractions (0.0106 is 1.06 %); costs are in nats or mean squared units; times are in milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

STEP = "step"
EPOCH = "epoch"
VALIDATION_ERROR = "validation_error"
TEST_ERROR = "test_error"
COST = "cost"
COST_SUPERVISED = "cost_supervised"
COST_DECAY = "cost_decay"
COST_PREDICTION = "cost_prediction"
COST_CONSISTENCY = "cost_consistency"
LEARNING_RATE = "learning_rate"
STEP_TIME_MS = "step_time_ms"

HISTORY = "history"
"""Entry of a report to the search: one row of metrics per epoch since the last report."""
NOTE = "note"
"""Entry of a report to the search: something to tell the user, or empty."""
DIVERGED = "diverged"
"""Entry of a report to the search: true when a member became non-finite or cannot be trained; it ends the trial."""
REASON = "reason"
"""Entry of a report to the search: why, in a few words."""


def validation_score(name: str) -> str:
    """Name of what a trial is judged by besides its ``VALIDATION_ERROR``, see the networks' ``measures``."""
    return f"validation_{name}"


def cost_denoising(layer: int) -> str:
    """Name of layer ``layer``'s weighted denoising cost, ``lambda_l * mean squared error``."""
    return f"cost_denoising_{layer}"


NOTHING = "–"
"""Stands where there is no value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """What a search minimises, and how it is written: a smaller value is always the better one."""

    name: str
    """As a model names it."""
    title: str
    """In a sentence, after "validation" or "test"."""
    unit: str
    """Of a shown value."""
    scale: float
    """A shown value is this many times the value."""
    digits: int
    """After the point of a shown value."""
    difference: str
    """Unit of a shown difference."""
    limit: float | None
    """The largest value that there is; None: there is none."""

    @property
    def label(self) -> str:
        """Title and unit, for an axis; a percentage has its unit at every tick."""
        return self.title if self.unit == "%" else f"{self.title}, {self.unit}"

    def number(self, value: float) -> str:
        """Value without its unit: 0.0106 -> ``1.06``."""
        return f"{self.scale * value:.{self.digits}f}"

    def text(self, value: float | None) -> str:
        """Value as text: 0.0106 -> ``1.06 %``; – where there is none."""
        return NOTHING if value is None or not math.isfinite(value) else f"{self.number(value)} {self.unit}"

    def rounded(self, value: float) -> str:
        """Value as text, as short as can be: 0.15 -> ``15 %``."""
        return f"{self.scale * value:g} {self.unit}"

    def apart(self, difference: float) -> str:
        """Difference of two values as text: 0.0014 -> ``0.14 points``."""
        return f"{self.number(difference)} {self.difference}"


ERROR = Measure(name="error", title="error", unit="%", scale=100.0, digits=2, difference="points", limit=1.0)
"""Share of wrong classes."""
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

STUDENT_ERROR = replace(ERROR, name="student_error", title="student's error")
"""Of the network that a mean teacher was the average of."""

MEASURES: dict[str, Measure] = {m.name: m for m in (ERROR, NLL, PREDICTION_ERROR, STUDENT_ERROR)}
