"""Where the recordings of written formats are, and with which settings they were made."""

from __future__ import annotations

from pathlib import Path

import torch

RECORDED = Path(__file__).parent / "format-1"
"""What the first version that was recorded wrote."""

SEARCH = (
    "--set", "model.widths=64,8,10", "--set", "model.lambda_=1000,10,0.1", "--set", "model.noise_std=0.3,0.3,0.3",
    "--set", "stop.first_rung_steps=20",
)  # fmt: skip
COMPARISON = ("digits-50-base", "digits-100-base", "--seeds", "1", "--epochs", "1")
ANALYSIS = ("families/recurrent", "--rows", "2", "--judged", "20", "--probe-steps", "3")
TRAINING = ("--seeds", "2", "--epochs", "6", "--curve", "3")


def _pattern(*shape: int) -> torch.Tensor:
    """Numbers in 0..1 that no generator draws."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * 0.6180339887498949 % 1.0).reshape(shape)


EXAMPLES = {
    "ladder": _pattern(3, 64),
    "ladder-conv": _pattern(3, 64),
    "progressive": _pattern(3, 64),
    "progressive-conv": _pattern(3, 64),
    "recurrent": _pattern(3, 5, 16, 16),
    "sequence": (_pattern(3, 8, 88) < 0.1).double(),
    "tagger": (_pattern(3, 400) < 0.3).double(),
    "rtagger": (_pattern(3, 400) < 0.3).double(),
}
"""One batch for the network of every family."""
