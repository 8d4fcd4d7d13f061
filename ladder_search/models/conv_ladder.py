"""The convolutional ladder network (Rasmus et al. 2015, section 4), such as Conv-FC, Conv-Small and Conv-Large.

Legend as in ``models.ladder``; layer 0 is the image. Maps are (rows, height, width, channels), see ``nn.maps``.
Differences from the fully connected ladder: statistics are per channel, over rows and positions; pools have no beta,
gamma or nonlinearity, but are normalised and corrupted like every layer; a combinator has one set of parameters per
channel below a convolution or a pool, and one per unit otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ladder_search.metrics import COST, COST_SUPERVISED, cost_denoising
from ladder_search.nn.batchnorm import batch_normalise, batch_statistics, normalise, normalise_groups, scaled
from ladder_search.nn.classes import cross_entropy
from ladder_search.nn.combinators import find_combinator
from ladder_search.nn.denoising import Decoder, Denoiser, DenoisingConfig, rectified
from ladder_search.nn.maps import CONV_SMALL, LayersConfig, as_map, read_network, start
from ladder_search.nn.network import Column
from ladder_search.nn.protocol import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvLadderConfig(LayersConfig, DenoisingConfig):
    """Settings of a convolutional ladder; the defaults are the paper's Conv-Small Gamma model on 100 MNIST labels."""

    layout = ("image", "layers", "top_gamma")

    image: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width; pixels of an example are in this order."""
    layers: tuple[str, ...] = CONV_SMALL
    """Layers 1..L, in the notation of ``nn.maps``."""
    noise_std: tuple[float, ...] = (0.3,) * 10
    lambda_: tuple[float, ...] = (*(0.0,) * 9, 1.0)
    decoder: Decoder = "gamma"
    top_gamma: bool = True
    """Whether the softmax layer has a gamma besides its beta; in the paper's CIFAR-10 networks it has none."""

    def __post_init__(self) -> None:
        read_network(self.layers, self.image)
        self.check_layers()

    def signature(self) -> tuple[object, ...]:
        shape = (self.image, self.layers, self.decoder, self.combinator)
        return (*shape, self.lateral, self.activation, self.top_gamma)

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return a step's operations in products and convolutions, including those with padding."""
        layers, sizes = self.network.layers, self.network.sizes
        up = [layer.flops(below) for layer, below in zip(layers, sizes, strict=False)]
        down = [layer.flops_down(below) for layer, below in zip(layers, sizes, strict=False)]
        rows = labelled + (2 * unlabelled if self.decoded_layers else 0)
        encoder = rows * (3 * sum(up) - next(filter(None, up), 0.0))
        return encoder + (unlabelled * 3 * sum(down) if self.decoder == "full" else 0.0)


class ConvLadder(Denoiser):
    """A convolutional ladder; ``cost`` is the training cost, ``forward`` classifies clean images.

    Parameters, by layer: ``W`` of layers with weights; ``beta`` of the top and of all layers but pools; ``gamma`` of
    the top; ``V[l]``, the decoder's weights from layer l+1 to l; one combinator ``g`` per decoded layer. Buffers
    ``mean_l`` and ``variance_l``, per channel, are the test-time statistics, see ``statistics``.
    """

    config: ConvLadderConfig

    def __init__(self, config: ConvLadderConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        self.layers, self.sizes = config.network.layers, config.network.sizes
        depth, sizes = config.depth, config.network.sizes
        shapes = {str(i): layer.shape(sizes[i - 1]) for i, layer in enumerate(self.layers, 1)}
        self.W = nn.ParameterDict({name: start(shape, generator) for name, shape in shapes.items() if shape})
        shifted = [i for i, layer in enumerate(self.layers, 1) if i == depth or not layer.pools]
        self.beta = nn.ParameterDict({str(i): torch.zeros(sizes[i][0]) for i in shifted})
        self.gamma = nn.Parameter(torch.ones(sizes[depth][0])) if config.top_gamma else None
        top_down = config.decoded_layers
        # The inverse of layer l+1 decodes to layer l; the top layer takes its u from the softmax instead.
        shapes = {str(i): self.layers[i].shape_down(sizes[i]) for i in top_down[1:]}
        self.V = nn.ParameterDict({name: start(shape, generator) for name, shape in shapes.items() if shape})
        build, std = find_combinator(config.combinator), config.combinator_std
        self.g = nn.ModuleDict({str(i): build(self._combined(i), std, generator) for i in top_down})
        self.add_statistics(channels for channels, _, _ in sizes[1:])

    def _combined(self, layer: int) -> int:
        """Return the size of a combinator's vectors: channels below convolutions and pools, else units."""
        size = self.sizes[layer]
        maps = layer < self.config.depth and len(self.layers[layer].shape_down(size)) != 2
        return size[0] if maps else math.prod(size)

    @property
    def widest(self) -> int:
        return max(map(math.prod, self.sizes))

    def pre_activations(self, h: Tensor, layer: int) -> Tensor:
        """Return the layer's values before normalisation, from the map below; there is no bias."""
        return self.layers[layer - 1].up(h, self.W.get(str(layer)))

    def activate(self, z: Tensor, layer: int) -> Tensor:
        """Return ``h = phi(z + beta)``, ``z`` for pools, and the logits ``gamma * (z + beta)`` at the softmax layer."""
        if str(layer) not in self.beta:
            return z
        shifted: Tensor = z + self.beta[str(layer)]
        if layer == self.config.depth:
            return shifted if self.gamma is None else self.gamma * shifted
        return rectified(shifted, self.config.activation)

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the training cost of one step and its terms, as ``Ladder.cost_with_logits``. A row is an image of
        channels, height and width; each row of ``noise`` is by height, width and channels."""
        config, depth, decoded = self.config, self.config.depth, self.config.decoded_layers
        n_lab = batch.x_labelled.shape[0]
        n_unl = batch.x_unlabelled.shape[0] if decoded else 0
        sigma = hyper["noise_std"].unbind(-1)
        noisy = n_lab + n_unl
        draws = torch.split(noise, [noisy * math.prod(size) for size in self.sizes], dim=-1)

        # Rows: corrupted labelled, corrupted unlabelled, clean unlabelled, in one product per layer. The clean path of
        # labelled rows gets no gradient; it is only needed in ``statistics``.
        x = as_map(torch.cat([batch.x_labelled, batch.x_unlabelled]) if n_unl else batch.x_labelled, config.image)
        h = x + sigma[0] * draws[0].view(x.shape)
        z_tilde, z = {0: h[n_lab:]}, {0: x[n_lab:]}
        means: dict[int, Tensor] = {}
        scales: dict[int, Tensor] = {}
        if n_unl:
            h = torch.cat([h, x[n_lab:]])
        groups = [n_lab, n_unl, n_unl] if n_unl else [n_lab]
        for layer in range(1, depth + 1):
            z_pre = self.pre_activations(h, layer)
            places = z_pre.shape[1] * z_pre.shape[2]  # statistics are per channel, over rows and positions
            flat, mean, scale = normalise_groups(z_pre.flatten(0, -2), [n * places for n in groups])
            z_all = flat.view(z_pre.shape)
            corrupted = z_all[:noisy] + sigma[layer] * draws[layer].view(noisy, *z_all.shape[1:])
            if layer in decoded:  # other maps are not needed again
                z_tilde[layer], z[layer] = corrupted[n_lab:], z_all[noisy:]
                means[layer], scales[layer] = mean, scale
            both = torch.cat([corrupted, z_all[noisy:]]) if layer < depth and n_unl else corrupted
            h = self.activate(both, layer)

        logits = h.flatten(1)
        supervised = cross_entropy(logits[:n_lab], batch.y)
        total, terms = supervised, {COST_SUPERVISED: supervised}
        # The decoder's top gets probabilities, not logits.
        above = torch.softmax(logits[n_lab:], dim=-1)
        lambda_ = hyper["lambda_"].unbind(-1)
        for layer in decoded:
            u = self._from_above(above, layer)
            lateral = z_tilde[layer] if config.lateral else torch.zeros_like(z_tilde[layer])
            # Below full connections every unit of a map has its own combinator, so u is flat.
            z_hat = self.g[str(layer)](lateral.reshape(u.shape), u).reshape(lateral.shape)
            # z_hat is normalised with the clean unlabelled statistics; the input layer is compared unnormalised.
            estimate = z_hat if layer == 0 else scaled(z_hat.flatten(0, -2), means[layer], scales[layer])
            denoising = lambda_[layer] * (z[layer] - estimate.view(z_hat.shape)).square().mean()
            terms[cost_denoising(layer)] = denoising
            total = total + denoising
            above = z_hat
        terms[COST] = total
        return total, torch.stack([terms[name] for name in self.term_names])

    def _from_above(self, above: Tensor, layer: int) -> Tensor:
        """Return u: the layer's signal from above, normalised over rows and, for maps, positions."""
        u = above
        if layer < self.config.depth:
            u = self.layers[layer].down(above, self.V.get(str(layer)), self.sizes[layer])
        return batch_normalise(u.flatten(0, -2)).view(u.shape)

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        """Return test-time statistics, (channels of layer l,), as ``Ladder.statistics``.

        As in the original code, the unbiased variance counts rows, N / (N - 1), and not the positions of a channel.
        """
        minibatches, rows = x_labelled.shape[:2]
        h, statistics = as_map(x_labelled.flatten(0, 1), self.config.image), {}
        for layer in range(1, self.config.depth + 1):
            z_pre = self.pre_activations(h, layer)
            places = z_pre.reshape(minibatches, -1, z_pre.shape[-1])
            mean, variance = batch_statistics(places)
            statistics[f"mean_{layer}"] = mean.mean(0)
            statistics[f"variance_{layer}"] = variance.mean(0) * (rows / (rows - 1))
            h = self.activate(normalise(places, mean, variance).view(z_pre.shape), layer)
        return statistics

    def features(self, x: Tensor, *, noise: Mapping[int, Tensor] | None = None) -> list[Tensor]:
        """Return the clean path's activations h_0..h_L, for images (rows, d): the image and the layers are (rows,
        channels, height, width), where vectors are maps of one position, and the logits (rows, classes)."""
        added = {layer: value.permute(0, 2, 3, 1) for layer, value in (noise or {}).items()}
        image = as_map(x, self.config.image)
        h = [image + added[0] if 0 in added else image]
        for layer in range(1, self.config.depth + 1):
            z_pre = self.pre_activations(h[-1], layer)
            z = normalise(z_pre.flatten(0, -2), *self.stored(layer)).view(z_pre.shape)
            activated = self.activate(z, layer)
            h.append(activated + added[layer] if layer in added else activated)
        return [*(each.permute(0, 3, 1, 2) for each in h[:-1]), h[-1].flatten(1)]
