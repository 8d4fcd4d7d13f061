"""Reference errors on occluded sequences, of predictors with much or no information.

All numbers are mean-squared errors per pixel of the next occluded frame, with ink up to 1. The papers' prediction
errors, about 0.0015, are of this size; compare them with means over the predicted frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder_search.data.occluded import Renderer, seen_so_far


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionBounds:
    """Errors of predictors without parameters."""

    zero: float
    """Error of an empty frame, mean over frames 2..T."""
    copy: float
    """Error of the previous frame, mean over frames 2..T."""
    unknown_velocity: float
    """Error in frame 2 of the mean over all (equally likely) velocities, given the whole digit and its start."""
    known_motion: tuple[float, ...]
    """Errors in frames 2..T, given the motion and the pixels seen so far, with 0 for the others."""


def prediction_bounds(renderer: Renderer, digits: Tensor, positions: Tensor) -> PredictionBounds:
    """Return the errors on sequences of digits, float (n, d, d) in 0..1, at positions int64 (n, T, 2)."""
    frames = renderer.frames(digits, positions)
    seen = seen_so_far(renderer.visible(positions))
    targets = frames[:, 1:]
    known_motion = []
    for t in range(1, positions.shape[1]):
        expected = renderer.frames(digits * seen[:, t - 1], positions[:, t : t + 1])
        known_motion.append(_error(expected[:, 0], frames[:, t]))
    guesses = []
    for velocity in renderer.scene.velocities:
        moved = renderer.moved(positions[:, 0], torch.tensor(velocity, device=positions.device).expand(len(digits), 2))
        guesses.append(renderer.frames(digits, moved[:, 1:2])[:, 0])
    return PredictionBounds(
        zero=_error(torch.zeros_like(targets), targets),
        copy=_error(frames[:, :-1], targets),
        unknown_velocity=_error(torch.stack(guesses).mean(0), frames[:, 1]),
        known_motion=tuple(known_motion),
    )


def _error(guess: Tensor, target: Tensor) -> float:
    return float((guess - target).square().double().mean())
