"""The ladder network (Rasmus et al. 2015, section 3 and Algorithm 1): a denoising MLP with lateral connections.

Legend: ``z`` clean and ``z_tilde`` corrupted pre-activations after batch normalisation, ``h`` activations, ``u`` the
signal from the layer above in the decoder, ``g`` the combinator, ``z_hat = g(z_tilde, u)`` the denoised estimate,
``lambda_`` the denoising weights, ``noise_std`` the sigmas; layer 0 is the input and layer L the softmax.

The full model, bottom-only, Gamma and the supervised baseline differ only in the vector ``lambda_`` and in the part of
the decoder that is built. No gradient is stopped: the denoising cost also trains the clean encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.metrics import COST, COST_SUPERVISED, cost_denoising
from ladder_search.nn.batchnorm import batch_normalise, batch_statistics, normalise, normalise_groups, scaled
from ladder_search.nn.classes import cross_entropy
from ladder_search.nn.combinators import find_combinator
from ladder_search.nn.denoising import Decoder, Denoiser, DenoisingConfig, rectified
from ladder_search.nn.network import Column, Teachable
from ladder_search.nn.protocol import Batch, WidthsConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderConfig(WidthsConfig, DenoisingConfig):
    """Settings of a ladder network; the defaults are the paper's 100-label MNIST model."""

    layout = ("widths",)

    widths: tuple[int, ...] = (784, 1000, 500, 250, 250, 250, 10)
    """Units of layers 0..L: input, hidden layers, classes."""
    noise_std: tuple[float, ...] = (0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)
    lambda_: tuple[float, ...] = (1000.0, 10.0, 0.1, 0.1, 0.1, 0.1, 0.1)
    decoder: Decoder = "full"

    def __post_init__(self) -> None:
        self.check_widths()
        self.check_layers()

    def signature(self) -> tuple[object, ...]:
        return (self.widths, self.decoder, self.combinator, self.lateral, self.activation)

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the floating-point operations of one step's matrix products.

        A product of (rows, m) and (m, n) takes 2 rows m n operations, and its backward pass twice as many, or as many
        for the first layer, whose input needs no gradient.
        """
        products = [2.0 * n_in * n_out for n_in, n_out in pairwise(self.widths)]
        rows = labelled + (2 * unlabelled if self.decoded_layers else 0)
        encoder = rows * (3 * sum(products) - products[0])
        return encoder + (unlabelled * 3 * sum(products) if self.decoder == "full" else 0.0)

    @property
    def teachable(self) -> bool:
        """Whether the network can have a mean teacher: only with a decoder does it read unlabelled rows."""
        return bool(self.decoded_layers)


class Ladder(Teachable, Denoiser):
    """A ladder network; ``cost`` is the training cost, ``forward`` classifies clean inputs.

    Parameters: ``W[l-1]`` (n_l, n_{l-1}) and ``V[l-1]`` (n_{l-1}, n_l), normal with variance 1/fan_in and without bias;
    ``beta`` of every layer, zero; ``gamma`` of the softmax layer, one; one combinator per decoded layer. Buffers
    ``mean_l`` and ``variance_l`` are the test-time statistics, see ``statistics``.
    """

    config: LadderConfig

    def __init__(self, config: LadderConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        widths, depth = config.widths, config.depth

        def gaussian(n_out: int, n_in: int) -> Tensor:
            return torch.randn(n_out, n_in, generator=generator) / math.sqrt(n_in)

        self.W = nn.ParameterList([gaussian(widths[i], widths[i - 1]) for i in range(1, depth + 1)])
        self.beta = nn.ParameterList([torch.zeros(widths[i]) for i in range(1, depth + 1)])
        self.gamma = nn.Parameter(torch.ones(widths[depth]))
        top_down = config.decoded_layers
        # V[l] maps z_hat[l+1] to layer l; the top layer takes its u from the softmax instead.
        self.V = nn.ParameterDict({str(i): gaussian(widths[i], widths[i + 1]) for i in top_down[1:]})
        build = find_combinator(config.combinator)
        self.g = nn.ModuleDict({str(i): build(widths[i], config.combinator_std, generator) for i in top_down})
        self.add_statistics(widths[1:])

    @property
    def widest(self) -> int:
        return max(self.config.widths)

    def activate(self, z: Tensor, layer: int) -> Tensor:
        """Return ``h = phi(z + beta)``, or the logits ``gamma * (z + beta)`` at the softmax layer."""
        shifted: Tensor = z + self.beta[layer - 1]
        if layer == self.config.depth:
            return self.gamma * shifted
        return rectified(shifted, self.config.activation)

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.cost_with_logits(batch, noise, hyper)[:2]

    def noisy_logits(
        self, x: Tensor, noise: Tensor, hyper: Mapping[str, Tensor], found: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Return the logits of the corrupted path, (rows, classes), with ``noise`` by layer; see the base class."""
        sigma, widths, rows = hyper["noise_std"].unbind(-1), self.config.widths, len(x)
        draws = torch.split(noise, [rows * n for n in widths], dim=-1)
        h = x + sigma[0] * draws[0].view(x.shape)
        for layer in range(1, self.config.depth + 1):
            z_pre = functional.linear(h, self.W[layer - 1])
            mean, variance = batch_statistics(z_pre)
            if found is not None:
                found |= {f"mean_{layer}": mean, f"variance_{layer}": variance * (rows / (rows - 1))}
            z = normalise(z_pre, mean, variance)
            h = self.activate(z + sigma[layer] * draws[layer].view(z.shape), layer)
        return h

    def logits_noise_size(self, rows: int) -> int:
        return rows * sum(self.config.widths)

    def cost_with_logits(
        self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the training cost of one step (paper, equations of the total cost C), its terms, and logits.

        ``noise`` are standard normal draws, (noise_size,), by layer, with labelled rows first; ``hyper`` are
        ``noise_std`` and ``lambda_``, (L+1,) each. The terms, named by ``term_names``, are cost, cross-entropy and the
        weighted denoising cost of each layer; the logits are the corrupted path's of labelled and, with a decoder,
        unlabelled rows.
        """
        config, depth = self.config, self.config.depth
        n_lab = batch.x_labelled.shape[-2]
        n_unl = batch.x_unlabelled.shape[-2] if config.decoded_layers else 0
        sigma = hyper["noise_std"].unbind(-1)
        noisy = n_lab + n_unl
        draws = torch.split(noise, [noisy * n for n in config.widths], dim=-1)

        # Rows: corrupted labelled, corrupted unlabelled, clean unlabelled, in one product per layer. The clean path of
        # labelled rows gets no gradient; it is only needed in ``statistics``.
        groups = [n_lab, n_unl, n_unl] if n_unl else [n_lab]
        inputs = [batch.x_labelled, batch.x_unlabelled] if n_unl else [batch.x_labelled]
        corrupted = [x + sigma[0] * d for x, d in zip(inputs, self._draws(draws[0], groups, 0), strict=True)]
        z_tilde, z = [corrupted[-1]], [batch.x_unlabelled]
        h = torch.cat([*corrupted, batch.x_unlabelled] if n_unl else corrupted, dim=-2)
        means: list[Tensor] = [h]  # entry 0 is not used: layer 0 is not normalised
        scales: list[Tensor] = [h]
        for layer in range(1, depth + 1):
            z_all, mean, scale = normalise_groups(functional.linear(h, self.W[layer - 1]), groups)
            # Split instead of sliced: the gradient of a slice is a tensor of zeros with one part filled in.
            parts = torch.split(z_all, groups, dim=-2)
            noises = self._draws(draws[layer], groups, layer)
            corrupted = [part + sigma[layer] * d for part, d in zip(parts, noises, strict=False)]
            z_tilde.append(corrupted[-1])
            z.append(parts[-1])
            means.append(mean)
            scales.append(scale)
            if layer < depth and n_unl:
                corrupted.append(parts[-1])
            h = self.activate(torch.cat(corrupted, dim=-2), layer)

        labelled, *unlabelled = torch.split(h, groups[:2], dim=-2)
        supervised = cross_entropy(labelled, batch.y)
        total, terms = supervised, {COST_SUPERVISED: supervised}
        # The decoder's top gets probabilities, not logits.
        logits, above = h, torch.softmax(unlabelled[0], dim=-1) if n_unl else h
        lambda_ = hyper["lambda_"].unbind(-1)
        for layer in config.decoded_layers:
            u = batch_normalise(above if layer == depth else functional.linear(above, self.V[str(layer)]))
            lateral = z_tilde[layer] if config.lateral else torch.zeros_like(z_tilde[layer])
            z_hat = self.g[str(layer)](lateral, u)
            # z_hat is normalised with the clean unlabelled statistics; the input layer is compared unnormalised.
            estimate = z_hat if layer == 0 else scaled(z_hat, means[layer], scales[layer])
            denoising = lambda_[layer] * (z[layer] - estimate).square().mean()
            terms[cost_denoising(layer)] = denoising
            total = total + denoising
            above = z_hat
        terms[COST] = total
        return total, torch.stack([terms[name] for name in self.term_names]), logits

    def _draws(self, draws: Tensor, groups: list[int], layer: int) -> list[Tensor]:
        """Return a layer's noise per corrupted group of rows, labelled rows first."""
        rows = groups[:2]
        return list(torch.split(draws.view(sum(rows), self.config.widths[layer]), rows, dim=-2))

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        """Return the test-time statistics: averages over labelled minibatches of mean and unbiased variance, (n_l,).

        In the clean path every minibatch (minibatches, rows >= 2, d) is normalised with its own biased statistics.
        """
        rows = x_labelled.shape[-2]
        h, statistics = x_labelled, {}
        for layer in range(1, self.config.depth + 1):
            z_pre = functional.linear(h, self.W[layer - 1])
            mean, variance = batch_statistics(z_pre)
            statistics[f"mean_{layer}"] = mean.mean(0)
            statistics[f"variance_{layer}"] = variance.mean(0) * (rows / (rows - 1))
            h = self.activate(normalise(z_pre, mean, variance), layer)
        return statistics

    def features(self, x: Tensor, *, noise: Mapping[int, Tensor] | None = None) -> list[Tensor]:
        """Return the clean path's activations h_0..h_L, (rows, n_l); ``noise`` is layer -> (rows, n_l) or (n_l,)."""
        added = noise or {}
        h = [x + added[0] if 0 in added else x]
        for layer in range(1, self.config.depth + 1):
            z_pre = functional.linear(h[-1], self.W[layer - 1])
            z = normalise(z_pre, *self.stored(layer))
            activated = self.activate(z, layer)
            h.append(activated + added[layer] if layer in added else activated)
        return h
