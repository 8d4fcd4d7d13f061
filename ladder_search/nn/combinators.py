"""Combinator functions g(z_tilde, u), which combine the lateral and the vertical signal of a decoder layer.

Legend: ``z_tilde`` corrupted lateral signal, ``u`` normalised signal from above, ``z_hat`` the denoised estimate, all
of shape (rows, units). Products are elementwise and parameters are vectors over units, except in the MLP combinators,
whose few weights are shared by the units of a layer.

Sources: Gaussian: Rasmus et al. 2015, equation for mu and v of the denoising function. All others: Pezeshki et al.
2016, section 3 and its appendix; the initial standard deviation of the MLP kinds was tuned there per variant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.errors import UnknownNameError
from ladder_search.nn.closed_form import ClosedForm

LEAKY_SLOPE = 0.1


def _mu_and_v(u: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mu, v before a gate, and the sigmoid of each."""
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a.unbind(0)
    s_mu, s_v = torch.sigmoid(a2 * u + a3), torch.sigmoid(a7 * u + a8)
    return a1 * s_mu + a4 * u + a5, a6 * s_v + a9 * u + a10, s_mu, s_v


class _Gauss(ClosedForm):
    """``Gauss`` without a gate: z_tilde and u (..., units), parameters (10, units) -> (..., units)."""

    @staticmethod
    def forward(z_tilde: Tensor, u: Tensor, a: Tensor) -> Tensor:
        mu, v, _, _ = _mu_and_v(u, a)
        return (z_tilde - mu) * v + mu

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z_tilde, u, a = ctx.saved_tensors
        a1, a2, _, a4, _, a6, a7, _, a9, _ = a.unbind(0)
        mu, v, s_mu, s_v = _mu_and_v(u, a)
        d_mu, d_v = d * (1.0 - v), d * (z_tilde - mu)
        # Gradients of the sigmoids' arguments.
        d_mu_in, d_v_in = d_mu * a1 * (s_mu * (1.0 - s_mu)), d_v * a6 * (s_v * (1.0 - s_v))
        d_u = d_mu_in * a2 + d_mu * a4 + d_v_in * a7 + d_v * a9
        of_a = (d_mu * s_mu, d_mu_in * u, d_mu_in, d_mu * u, d_mu, d_v * s_v, d_v_in * u, d_v_in, d_v * u, d_v)
        return d * v, d_u, torch.stack([each.flatten(0, -2).sum(0) for each in of_a])


class Gauss(nn.Module):
    """``z_hat = (z_tilde - mu(u)) * v(u) + mu(u)``, with mu and v each linear plus sigmoid in u.

    ``a`` contains a1..a10, shape (10, units). Initially a2 = a7 = 1 and all others 0, so that z_hat is zero.
    """

    def __init__(self, units: int, std: float, generator: torch.Generator, *, gated: bool = False) -> None:
        super().__init__()
        a = torch.zeros(10, units)
        a[1] = a[6] = 1.0
        self.a = nn.Parameter(a)
        self.gated = gated

    def forward(self, z_tilde: Tensor, u: Tensor) -> Tensor:
        if not self.gated:
            z_hat: Tensor = _Gauss.of(z_tilde, u, self.a)
            return z_hat
        mu, v, _, _ = _mu_and_v(u, self.a)
        return (z_tilde - mu) * torch.sigmoid(v) + mu


class Vanilla(nn.Module):
    """``b0 + w0z*z + w0u*u + w0zu*z*u + wS*sigmoid(b1 + w1z*z + w1u*u + w1zu*z*u)`` and its ablations.

    ``w`` contains the vectors in the order of ``NAMES``, shape (9, units), without the terms that an ablation removes.
    """

    NAMES = ("b0", "w0z", "w0u", "w0zu", "ws", "b1", "w1z", "w1u", "w1zu")

    def __init__(
        self,
        units: int,
        std: float,
        generator: torch.Generator,
        *,
        ones: tuple[str, ...] = ("w0z", "w1z", "ws"),
        without: tuple[str, ...] = (),
        random: bool = False,
    ) -> None:
        super().__init__()
        self.names = tuple(name for name in self.NAMES if name not in without)
        w = torch.stack([torch.full((units,), float(name in ones)) for name in self.names])
        if random:
            w = torch.randn(w.shape, generator=generator) * std
        self.w = nn.Parameter(w)

    def forward(self, z_tilde: Tensor, u: Tensor) -> Tensor:
        w = dict(zip(self.names, self.w.unbind(0), strict=True))
        linear = w["b0"] + w["w0z"] * z_tilde + w["w0u"] * u
        if "w0zu" in w:
            linear = linear + w["w0zu"] * z_tilde * u
        if "ws" not in w:
            return linear
        inner = w["b1"] + w["w1z"] * z_tilde + w["w1u"] * u
        if "w1zu" in w:
            inner = inner + w["w1zu"] * z_tilde * u
        return linear + w["ws"] * torch.sigmoid(inner)


class MultiLayer(nn.Module):
    """A small MLP of each unit's (u, z_tilde), or (u, z_tilde, u*z_tilde) if ``augmented``.

    Weights are shared by the units of a layer; hidden layers are leaky rectified (slope 0.1), the output is linear.
    Initial weights are normal with the given standard deviation, initial biases zero.
    """

    def __init__(
        self, units: int, std: float, generator: torch.Generator, *, hidden: tuple[int, ...], augmented: bool
    ) -> None:
        super().__init__()
        self.augmented = augmented
        sizes = (3 if augmented else 2, *hidden, 1)
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList([torch.randn(i, o, generator=generator) * std for i, o in pairs])
        self.biases = nn.ParameterList([torch.zeros(o) for _, o in pairs])

    def forward(self, z_tilde: Tensor, u: Tensor) -> Tensor:
        inputs = (u, z_tilde, u * z_tilde) if self.augmented else (u, z_tilde)
        h = torch.stack(inputs, dim=-1)  # (rows, units, 2 or 3)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = h @ weight + bias
            if i < last:
                h = functional.leaky_relu(h, LEAKY_SLOPE)
        return h.squeeze(-1)


Build = Callable[[int, float, torch.Generator], nn.Module]

_SIGMOID_TERM = ("ws", "b1", "w1z", "w1u", "w1zu")

COMBINATORS: dict[str, Build] = {
    "gauss": Gauss,
    "gated-gauss": lambda n, std, g: Gauss(n, std, g, gated=True),
    "vanilla": Vanilla,
    "rand-init": lambda n, std, g: Vanilla(n, std, g, random=True),
    "rev-init": lambda n, std, g: Vanilla(n, std, g, ones=("w0u", "w1u", "ws")),
    "no-sig": lambda n, std, g: Vanilla(n, std, g, without=_SIGMOID_TERM),
    "no-mult": lambda n, std, g: Vanilla(n, std, g, without=("w0zu", "w1zu")),
    "linear": lambda n, std, g: Vanilla(n, std, g, without=("w0zu", *_SIGMOID_TERM)),
}
"""Name -> constructor (units, initial standard deviation, generator); ``mlp-…`` and ``amlp-…`` are parsed."""

MLP_EXAMPLES = ("mlp-4", "mlp-2-2", "mlp-2-2-2", "amlp-4", "amlp-2-2", "amlp-2-2-2")

_MLP_NAME = re.compile(r"(a?)mlp((?:-[1-9][0-9]?)+)")


def find_combinator(name: str) -> Build:
    """Return the constructor of ``name``, a key of ``COMBINATORS`` or ``mlp-4``, ``amlp-2-2-2``, …; see ``Build``."""
    if name in COMBINATORS:
        return COMBINATORS[name]
    match = _MLP_NAME.fullmatch(name)
    if match is None:
        raise UnknownNameError("combinator", name, [*COMBINATORS, *MLP_EXAMPLES])
    augmented, sizes = bool(match[1]), tuple(int(size) for size in match[2].split("-")[1:])
    return lambda n, std, g: MultiLayer(n, std, g, hidden=sizes, augmented=augmented)
