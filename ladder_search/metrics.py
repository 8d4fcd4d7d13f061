"""Names of all metrics that a trial reports.

The objective of a search is called its error, whatever it measures; ``MEASURES`` defines its format. Classification
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
"""Entry of a report: one row of metrics per epoch since the last report."""
NOTE = "note"
"""Entry of a report: a message for the user, or empty."""
DIVERGED = "diverged"
"""Entry of a report: true if a member became non-finite or cannot be trained; it ends the trial."""
REASON = "reason"
"""Entry of a report: the reason, in a few words."""


def validation_score(name: str) -> str:
    """Return the name of a further validation measure besides ``VALIDATION_ERROR``, see the networks' ``measures``."""
    return f"validation_{name}"


def cost_denoising(layer: int) -> str:
    """Return the name of layer ``layer``'s weighted denoising cost, ``lambda_l * mean squared error``."""
    return f"cost_denoising_{layer}"


NOTHING = "–"
"""Placeholder for a missing value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The objective of a search, which is minimised, and its format."""

    name: str
    title: str
    """Title after "validation" or "test" in a sentence."""
    unit: str
    scale: float
    digits: int
    difference: str
    limit: float | None
    """Upper bound of the measure; None if unbounded."""

    @property
    def label(self) -> str:
        """Title of an axis; without the unit for a percentage, as every tick has it."""
        return self.title if self.unit == "%" else f"{self.title}, {self.unit}"

    def number(self, value: float) -> str:
        """Format a value without its unit: 0.0106 -> ``1.06``."""
        return f"{self.scale * value:.{self.digits}f}"

    def text(self, value: float | None) -> str:
        """Format a value: 0.0106 -> ``1.06 %``; – for None."""
        return NOTHING if value is None or not math.isfinite(value) else f"{self.number(value)} {self.unit}"

    def rounded(self, value: float) -> str:
        """Format a value as short as possible: 0.15 -> ``15 %``."""
        return f"{self.scale * value:g} {self.unit}"

    def apart(self, difference: float) -> str:
        """Format a difference: 0.0014 -> ``0.14 points``."""
        return f"{self.number(difference)} {self.difference}"


ERROR = Measure(name="error", title="error", unit="%", scale=100.0, digits=2, difference="points", limit=1.0)
"""Fraction of misclassified examples."""
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
"""Error of the student of a mean teacher."""

MEASURES: dict[str, Measure] = {m.name: m for m in (ERROR, NLL, PREDICTION_ERROR, STUDENT_ERROR)}
