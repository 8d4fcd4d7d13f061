"""Two moving digits: the frames and true digits of every pixel in NumPy, and positions within the frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder_search.data.drawing import TEST, UNSCORED, part_key
from ladder_search.data.moving_pairs import FULL, HALF, SMALL, MovingPairs, velocities
from ladder_search.data.occluded import Renderer, Scene

CPU = torch.device("cpu")


def test_speeds() -> None:
    assert set(velocities(2.2, 2.3)) == {(r, c) for r in (-2, -1, 1, 2) for c in (-2, -1, 1, 2) if abs(r) != abs(c)}
    speeds = [np.hypot(*velocity) for velocity in FULL.velocities]
    assert len(speeds) == 36 and min(speeds) == 3.0 and max(speeds) < 4.25


@pytest.mark.parametrize("scene", [FULL, HALF, SMALL], ids=["full", "half", "small"])
def test_frames_and_segments_in_numpy(scene: MovingPairs) -> None:
    n, d = 6, scene.digit
    digits = np.clip(np.random.default_rng(1).integers(-255, 400, (n, 2, d, d)), 0, 255) * (28 // d) ** 2
    images, segments = scene.painter(None, CPU).draw(torch.from_numpy(digits), part_key(TEST), torch.arange(n), TEST)
    assert images.shape == (n, *scene.shape) and segments.shape == (n, scene.frames, scene.side**2)
    motion = Scene(side=scene.side, digit=d, bar=0, gap=1, velocities=scene.velocities, frames=scene.frames)
    for i in range(n):
        ways = [Renderer(motion).positions(part_key(TEST), torch.tensor([2 * i + k]))[0].numpy() for k in range(2)]
        assert not np.array_equal(*ways)
        for t in range(scene.frames):
            ink = np.zeros((2, scene.side, scene.side), int)
            for k, way in enumerate(ways):
                row, column = way[t]
                assert 0 <= row <= scene.side - d and 0 <= column <= scene.side - d
                ink[k, row : row + d, column : column + d] = digits[i, k]
            assert (images[i, t].numpy() == ink.max(0)).all()
            lone = (ink.max(0) * 10 > ink.sum(0) * 9) & (ink.max(0) * 10 > scene.full_scale)
            expected = np.where(lone, ink.argmax(0), UNSCORED)
            found = segments[i, t].numpy().reshape(scene.side, scene.side)
            assert (found == expected).all()
            both = (ink > 0.2 * scene.full_scale).all(0)
            assert (found[both] == UNSCORED).all() or ((ink.max(0) * 10 > ink.sum(0) * 9) & both).any()
            assert (found[ink.sum(0) == 0] == UNSCORED).all(), "the background is not scored"
