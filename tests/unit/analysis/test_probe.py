"""The probe: what it computes, that it finds what is there, and that nothing reaches the network."""

from __future__ import annotations

import numpy as np
import torch

from ladder_search.analysis.probe import Probe, fit_probe


def scenes(n: int = 64, *, side: int = 6, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of 0 and 1, and maps at half their size with a frame's sub-pixels in four of their five channels."""
    generator = torch.Generator().manual_seed(seed)
    frames = (torch.rand(n, side, side, generator=generator) < 0.3).float()
    maps = torch.nn.functional.pixel_unshuffle(frames.unsqueeze(1), 2)
    return torch.cat([maps, torch.rand(n, 1, side // 2, side // 2, generator=generator)], 1), frames


def test_pixels_by_hand() -> None:
    random = np.random.default_rng(1)
    d, W, b = random.normal(size=(2, 3, 3, 2)), random.normal(size=(4, 3, 3, 3)), random.normal(size=4)
    expected = np.zeros((2, 5, 4))
    padded = np.pad(d, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, row, column in np.ndindex(2, 5, 4):
        which, i, j = row % 2 * 2 + column % 2, row // 2, column // 2
        logit = (W[which] * padded[n, :, i : i + 3, j : j + 3]).sum() + b[which]
        expected[n, row, column] = 1 / (1 + np.exp(-logit))
    probe = Probe(torch.tensor(W), torch.tensor(b), 2)
    # A frame of an odd side is cut from the larger one.
    np.testing.assert_allclose(probe(torch.tensor(d), 5).numpy(), expected[:, :5], rtol=1e-12)


def test_it_reads_what_is_there_and_nothing_else() -> None:
    d, frames = scenes()
    probe = fit_probe(d, frames, stride=2, steps=300, seed=1)
    fresh, wanted = scenes(seed=2)
    error = (probe(fresh, 6) - wanted).square().mean()
    nothing = fit_probe(torch.zeros_like(d), frames, stride=2, steps=300, seed=1)
    blind = (nothing(torch.zeros_like(fresh), 6) - wanted).square().mean()
    assert error < 0.02 and 0.2 < blind < 0.22  # 0.3 * 0.7


def test_the_same_seed_gives_the_same_probe() -> None:
    d, frames = scenes(200)
    one, again, other = (fit_probe(d, frames, stride=2, steps=20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.W, again.W) and torch.equal(one.b, again.b)
    assert not torch.equal(one.W, other.W)


def test_no_gradient_goes_into_the_maps() -> None:
    d, frames = scenes()
    d.requires_grad_()
    probe = fit_probe(d, frames, stride=2, steps=2, seed=1)
    assert d.grad is None and not probe.W.requires_grad and not probe.b.requires_grad
