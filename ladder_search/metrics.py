"""Names of every metric that a trial reports; one spelling for pack, Ray, Optuna, MLflow and reports.

Errors are fractions (0.0106 is 1.06 %); costs are in nats or mean squared units; times are in milliseconds.
"""

from __future__ import annotations

STEP = "step"
EPOCH = "epoch"
VALIDATION_ERROR = "validation_error"
TEST_ERROR = "test_error"
COST = "cost"
COST_SUPERVISED = "cost_supervised"
COST_DECAY = "cost_decay"
COST_PREDICTION = "cost_prediction"
LEARNING_RATE = "learning_rate"
STEP_TIME_MS = "step_time_ms"

HISTORY = "history"
"""Entry of a report to the search: one row of metrics per epoch since the last report."""
DIVERGED = "diverged"
"""Entry of a report to the search: true when a member became non-finite or cannot be trained; it ends the trial."""
REASON = "reason"
"""Entry of a report to the search: why, in a few words."""


def cost_denoising(layer: int) -> str:
    """Name of layer ``layer``'s weighted denoising cost, ``lambda_l * mean squared error``."""
    return f"cost_denoising_{layer}"
