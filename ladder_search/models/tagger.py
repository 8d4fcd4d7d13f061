"""Tagger (Greff et al. 2016, "Tagger: Deep Unsupervised Perceptual Grouping"): one ladder network per group.

Legend: groups g = 1..K, pixels D; ``x_tilde``, ``z``, ``m``, ``delta_z``, ``L`` and ``v`` as in ``nn.likelihoods``;
levels l = 0..L of the ladder, ``h`` activations, ``z_l`` normalised pre-activations, ``u`` the normalised signal from
above, ``g`` the combinator, ``est`` the estimate. An iteration, with weights shared by groups and iterations::

    h   = relu(norm(W_0 [z, delta_z, m, L]) + beta_0)              est_l = g(z_l, u_l), with z_0 = h
    z_l = norm(W_l h),  h = relu(z_l + beta_l)                     u_l   = norm(V_l est_(l+1))
    top = softmax(gamma (z_L + beta_L)),  u_L = norm(top)
    z   = c_1 norm(W_z est_0) + b_1, binary: its sigmoid           m     = softmax over groups of c_2 norm(W_m est_0)

Properties of the authors' code: ``norm`` has no scale and shift, its epsilon is 1e-10, and batch normalisation is over
groups and rows together, in evaluations with the evaluated batch's statistics; the top level is a softmax even without
classes; no noise and no denoising cost within the ladder; the first iteration reads the constant initial z, later ones
of binary pixels its logits. Layer normalisation is the paper's variant, the code has batch normalisation only.

Ours: labelled and unlabelled rows share batches; evaluated images have noise like those of training, the same in every
batch; rows of an evaluation are normalised in batches of 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.nn.batchnorm import EPSILON, batch_normalise
from ladder_search.nn.combinators import find_combinator
from ladder_search.nn.denoising import rectified
from ladder_search.nn.grouping import TRAINING, Grouping, GroupingConfig, Inferred, Normalisation
from ladder_search.nn.likelihoods import LIKELIHOODS
from ladder_search.nn.network import Column


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggerConfig(GroupingConfig):
    """Settings of Tagger; the defaults are those of the authors' code for Shapes, with layer normalisation."""

    pixels: int = 400
    """D, the pixels of an image."""
    widths: tuple[int, ...] = (2000, 1000, 500)
    """Units of levels 0..L; with classes, the last is one more than their number."""
    norm: Literal["ln", "bn"] = "ln"
    """Layer or batch normalisation."""

    def __post_init__(self) -> None:
        self.check_groups()
        in_range("model.pixels", self.pixels, 1, 10**6)
        if len(self.widths) < 2 or min(self.widths) < 2:
            raise SettingError(
                f"model.widths must list at least 2 sizes of at least 2 units, got {list(self.widths)}; write for "
                "example [500, 250, 125]."
            )
        if self.classes and self.widths[-1] != self.classes + 1:
            raise SettingError(
                f"the last of model.widths must be the number of classes and one for none, {self.classes + 1}, got "
                f"{self.widths[-1]}; correct it."
            )

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (self.pixels,)

    def variation(self) -> dict[str, int | str]:
        """Return ``widths``, the units of the levels in text, without the top's if they are those of classes."""
        return {"widths": "-".join(map(str, self._hidden))}

    def varied(self, variation: Mapping[str, int | str]) -> TaggerConfig:
        hidden = tuple(map(int, str(variation.get("widths", "-".join(map(str, self._hidden)))).split("-")))
        return replace(self, widths=(*hidden, self.classes + 1) if self.classes else hidden)

    @property
    def _hidden(self) -> tuple[int, ...]:
        return self.widths[:-1] if self.classes else self.widths

    def signature(self) -> tuple[object, ...]:
        return (self.pixels, self.widths, self.norm, *self.group_signature())

    def on_network_of(self, other: TaggerConfig) -> TaggerConfig:
        return replace(self, pixels=other.pixels, widths=other.widths, groups=other.groups, classes=other.classes)

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the operations of a step's products: those of the inputs, both ways of the ladder, and z and m."""
        first = 4 * self.pixels * self.widths[0]
        products = first + 2 * sum(a * b for a, b in pairwise(self.widths)) + 2 * self.pixels * self.widths[0]
        runs = self.rows(labelled, unlabelled) * self.groups
        return 2.0 * runs * (3 * products * self.iterations - first)

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        if self.pixels != pixels or self.classes not in (0, classes):
            raise SettingError(
                f"model.pixels and model.classes must be the {pixels} pixels and {classes} classes of {dataset}, or 0 "
                f"classes, got {self.pixels} and {self.classes}; correct them."
            )


class Tagger(Grouping):
    """Tagger; parameters have the names of the legend, with those of levels in lists.

    Weights are normal with variance 1 / fan_in, offsets zero, ``gamma`` and ``c_2`` one, ``c_1`` and ``b_1`` as set.
    ``W[0]`` (n_0, 4 D), ``W[l]`` (n_l, n_(l-1)), ``V[l]`` (n_l, n_(l+1)), ``W_z`` and ``W_m`` (D, n_0).
    """

    def __init__(self, config: TaggerConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        self.K, self.D, self.classes, self.unlabelled = config.groups, config.pixels, config.classes, config.unlabelled
        self.iterations, self.evaluation_iterations = config.iterations, config.evaluation_iterations
        self.n_segments = config.segments
        self.likelihood = LIKELIHOODS[config.likelihood](config.noise, config.initial_w, config.w_rate)
        widths, self.depth = config.widths, len(config.widths) - 1

        def gaussian(n_out: int, n_in: int) -> Tensor:
            return torch.randn(n_out, n_in, generator=generator) / math.sqrt(n_in)

        self.W = nn.ParameterList([gaussian(b, a) for a, b in pairwise((4 * self.D, *widths))])
        self.beta = nn.ParameterList([torch.zeros(width) for width in widths])
        self.gamma = nn.Parameter(torch.ones(widths[-1]))
        self.V = nn.ParameterList([gaussian(a, b) for a, b in pairwise(widths)])
        build = find_combinator(self.likelihood.combinator)
        self.g = nn.ModuleList(build(width, 0.0, generator) for width in widths)
        self.W_z, self.W_m = (nn.Parameter(gaussian(self.D, widths[0])) for _ in range(2))
        self.c_1 = nn.Parameter(torch.full((self.D,), config.initial_scale))
        self.b_1 = nn.Parameter(torch.full((self.D,), config.initial_mean))
        self.c_2 = nn.Parameter(torch.ones(()))

    @property
    def measures(self) -> tuple[str, ...]:
        return self.config.measures

    @property
    def widest(self) -> int:
        return self.K * max(4 * self.D, *self.config.widths)

    def inferences(
        self, x_tilde: Sequence[Tensor], m: Tensor, normalisation: Normalisation = TRAINING
    ) -> list[Inferred]:
        z = read = torch.full_like(m, self.config.initial_z)
        found = []
        for observed in x_tilde:
            delta_z, L = self.likelihood.evidence(observed, z, m)
            z_pre, m_pre, logits = self._ladder(torch.cat([read, delta_z, m, L], dim=-1))
            z, read, m = self.likelihood.estimate(z_pre), self.likelihood.read(z_pre), torch.softmax(m_pre, dim=0)
            found.append(Inferred(z, m, logits if self.classes else None))
        return found

    def _ladder(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z and m before their nonlinearities, (K, rows, D), and the top's logits, for inputs (K, rows, 4 D)."""
        h = rectified(self._norm(functional.linear(inputs, self.W[0])) + self.beta[0], "relu")
        z = [h]
        for level in range(1, self.depth + 1):
            z.append(self._norm(functional.linear(h, self.W[level])))
            h = z[-1] + self.beta[level]
            h = self.gamma * h if level == self.depth else rectified(h, "relu")
        logits, u = h, self._norm(torch.softmax(h, dim=-1))
        est = self.g[self.depth](z[-1], u)
        for level in range(self.depth - 1, -1, -1):
            est = self.g[level](z[level], self._norm(functional.linear(est, self.V[level])))
        z_pre = self.c_1 * self._norm(functional.linear(est, self.W_z)) + self.b_1
        return z_pre, self.c_2 * self._norm(functional.linear(est, self.W_m)), logits

    def _norm(self, z_pre: Tensor) -> Tensor:
        if self.config.norm == "ln":
            return functional.layer_norm(z_pre, z_pre.shape[-1:], eps=EPSILON)
        return batch_normalise(z_pre.flatten(0, 1)).view(z_pre.shape)
