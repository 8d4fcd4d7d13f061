"""A convolutional ladder in plain NumPy, float64, with gradients by complex steps: what the torch model must give.

Written from the behaviour of the original code of Rasmus et al. 2015, as its graph has it: labelled and unlabelled rows
go through the corrupted and through the clean path together, labelled rows first, and maps are (rows, channels, height,
width). It imports nothing of the library and is not fast; every line is meant to be checked by eye.

Gradients are not derived: all functions take complex numbers, and the imaginary part of the cost at p + 1e-100j is
1e-100 times its derivative by p, to the last digit, because nothing is subtracted. What compares numbers looks at their
real parts.

Layers are tuples: ("convv", channels, kernel, stride), ("convf", …), ("maxpool", size), ("globalmeanpool",), ("fc", n).
Names: ``W1``.., ``beta1``.., ``gamma``, ``V0``.., combinators ``g0``.. with rows a1..a10. Units of a map that is fully
connected are in the order of height, width, channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Params = dict[str, Array]

EPSILON = 1e-10
STEP = 1e-100


@dataclass(frozen=True, kw_only=True)
class Settings:
    image: tuple[int, int, int]
    layers: tuple[tuple[Any, ...], ...]
    noise_std: tuple[float, ...]
    lambda_: tuple[float, ...]
    decoder: str = "full"  # or "gamma", "none"
    lateral: bool = True
    slope: float = 0.0  # of the rectifier below zero: 0 is relu, 0.1 the paper's leaky relu

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def decoded(self) -> list[int]:
        """Decoded layers from the top down."""
        return {"full": list(range(self.depth, -1, -1)), "gamma": [self.depth], "none": []}[self.decoder]


# --- pieces -----------------------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.real.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def rectify(x: Array, slope: float) -> Array:
    return np.where(x.real > 0, x, slope * x)


def axes(x: Array) -> tuple[int, ...]:
    """What statistics are taken over: rows, and the places of a map."""
    return (0,) if x.ndim == 2 else (0, 2, 3)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance, shaped to spread over ``x``."""
    mean = x.mean(axis=axes(x), keepdims=True)
    return mean, ((x - mean) ** 2).mean(axis=axes(x), keepdims=True)


def normalised(x: Array, mean: Array, variance: Array) -> Array:
    return (x - mean) / np.sqrt(variance + EPSILON)


def spread(vector: Array, x: Array) -> Array:
    """A vector over channels or units, shaped to spread over ``x``."""
    return vector.reshape(1, -1, *[1] * (x.ndim - 2))


def correlate(x: Array, filters: Array, border: str) -> Array:
    """Each filter (channels, k, k) at all places where it fits ("valid") or touches ("full")."""
    k = filters.shape[-1]
    if border == "full":
        x = np.pad(x, ((0, 0), (0, 0), (k - 1, k - 1), (k - 1, k - 1)))
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = np.zeros((len(x), len(filters), height, width), dtype=np.result_type(x, filters))
    for i in range(k):
        for j in range(k):
            out += np.einsum("nchw,oc->nohw", x[:, :, i : i + height, j : j + width], filters[:, :, i, j])
    return out


def flat(x: Array) -> Array:
    """Units of a map in the order of height, width, channels."""
    return x.transpose(0, 2, 3, 1).reshape(len(x), -1) if x.ndim == 4 else x


def max_pool(x: Array, size: int) -> Array:
    height, width = -(-x.shape[2] // size), -(-x.shape[3] // size)
    out = np.zeros((*x.shape[:2], height, width), dtype=x.dtype)
    for i in range(height):
        for j in range(width):
            window = x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size].reshape(*x.shape[:2], -1)
            best = window.real.argmax(axis=2)[..., None]
            out[:, :, i, j] = np.take_along_axis(window, best, axis=2)[..., 0]
    return out


def up(layer: tuple[Any, ...], h: Array, weight: Array | None) -> Array:
    kind = layer[0]
    if kind == "fc":
        return flat(h) @ weight.T
    if kind == "maxpool":
        return max_pool(h, layer[1])
    if kind == "globalmeanpool":
        return h.mean(axis=(2, 3), keepdims=True) * h.shape[3] * np.sqrt(3.0)
    stride = layer[3]
    return correlate(h, weight, {"convv": "valid", "convf": "full"}[kind])[:, :, ::stride, ::stride]


def down(layer: tuple[Any, ...], z_hat: Array, weight: Array | None, below: Array) -> Array:
    """From the estimate of ``layer`` to the layer whose map is like ``below``."""
    kind = layer[0]
    if kind == "fc":
        return flat(z_hat) @ weight.T
    height, width = below.shape[2:]
    if kind == "maxpool":
        return z_hat.repeat(layer[1], axis=2).repeat(layer[1], axis=3)[:, :, :height, :width]
    if kind == "globalmeanpool":
        return np.broadcast_to(z_hat, below.shape)
    stride = layer[3]
    zeros = np.zeros((*z_hat.shape[:2], z_hat.shape[2] * stride, z_hat.shape[3] * stride), dtype=z_hat.dtype)
    zeros[:, :, ::stride, ::stride] = z_hat
    if kind == "convv":  # each value spreads a filter as it is: the filter that is compared is the flipped one
        return correlate(zeros, weight[:, :, ::-1, ::-1], "full")[:, :, :height, :width]
    return correlate(zeros, weight, "valid")[:, :, :height, :width]


def gauss(a: Array, z: Array, u: Array) -> Array:
    a = [spread(row, z) for row in a]
    mu = a[0] * sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
    v = a[5] * sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
    return (z - mu) * v + mu


# --- the network ------------------------------------------------------------------------------------------------------


@dataclass
class Path:
    """One pass through the encoder, labelled rows first; lists are indexed by layer."""

    h: list[Array] = field(default_factory=list)  # activations; at the top the logits
    z: list[Array] = field(default_factory=list)  # what lateral connections and targets read
    mean: list[Array] = field(default_factory=list)  # of the unlabelled rows
    variance: list[Array] = field(default_factory=list)


def activation(params: Params, s: Settings, z: Array, layer: int) -> Array:
    pools = "pool" in s.layers[layer - 1][0]
    if pools and layer < s.depth:
        return z
    shifted = z + spread(params[f"beta{layer}"], z)
    if layer < s.depth:
        return rectify(shifted, s.slope)
    return shifted * spread(params["gamma"], z) if "gamma" in params else shifted


def encode(params: Params, s: Settings, x: Array, n_lab: int, noise: Sequence[Array] | None) -> Path:
    def noised(z: Array, layer: int) -> Array:
        return z if noise is None else z + s.noise_std[layer] * noise[layer].reshape(z.shape)

    first, nothing = noised(x, 0), np.empty(0)
    path = Path(h=[first], z=[first], mean=[nothing], variance=[nothing])
    for layer in range(1, s.depth + 1):
        z_pre = up(s.layers[layer - 1], path.h[-1], params.get(f"W{layer}"))
        labelled, unlabelled = z_pre[:n_lab], z_pre[n_lab:]
        mean, variance = moments(unlabelled)
        z = np.concatenate([normalised(labelled, *moments(labelled)), normalised(unlabelled, mean, variance)])
        z = noised(z, layer)
        for values, value in zip(
            (path.h, path.z, path.mean, path.variance),
            (activation(params, s, z, layer), z, mean, variance),
            strict=True,
        ):
            values.append(value)
    return path


@dataclass
class Step:
    """Costs of one training step by name."""

    cost: Any
    supervised: Any
    denoising: dict[int, Any]


def train_step(
    params: Params, s: Settings, x_lab: Array, y: NDArray[np.integer], x_unl: Array, noise: Sequence[Array]
) -> Step:
    """Costs of one step.

    Args:
        x_lab, x_unl: images, (rows, channels, height, width).
        noise: standard normal draws of layers 0..L, each (n_lab + n_unl, channels, height, width) or (…, units).
    """
    n_lab, n_unl = len(x_lab), len(x_unl)
    x = np.concatenate([x_lab, x_unl])
    corrupted = encode(params, s, x, n_lab, noise)
    clean = encode(params, s, x, n_lab, None)

    p = softmax(corrupted.h[s.depth].reshape(n_lab + n_unl, -1))
    supervised = -np.log(p[np.arange(n_lab), y]).mean()

    denoising: dict[int, Any] = {}
    z_hat = p[n_lab:]
    for layer in s.decoded:
        target, lateral = clean.z[layer][n_lab:], corrupted.z[layer][n_lab:]
        u = z_hat if layer == s.depth else down(s.layers[layer], z_hat, params.get(f"V{layer}"), target)
        u = normalised(u, *moments(u))
        if u.ndim == 2:  # from full connections, or from the softmax: one combinator per unit
            side = flat(lateral) * s.lateral
            z_hat = gauss(params[f"g{layer}"], side, u)
            if target.ndim == 4:
                channels, height, width = target.shape[1:]
                z_hat = z_hat.reshape(n_unl, height, width, channels).transpose(0, 3, 1, 2)
        else:
            z_hat = gauss(params[f"g{layer}"], lateral * s.lateral, u)
        estimate = z_hat if layer == 0 else normalised(z_hat, clean.mean[layer], clean.variance[layer])
        units = target[0].size
        denoising[layer] = s.lambda_[layer] * ((target - estimate) ** 2).reshape(n_unl, -1).sum(axis=1).mean() / units
    return Step(supervised + sum(denoising.values()), supervised, denoising)


def gradients(params: Params, s: Settings, *inputs: Any) -> Params:
    """Derivative of the cost by every single number of ``params``."""
    found: Params = {}
    for name, value in params.items():
        slopes = np.zeros(value.size)
        for i in range(value.size):
            moved = value.astype(complex)
            moved.flat[i] += 1j * STEP
            slopes[i] = train_step(params | {name: moved}, s, *inputs).cost.imag / STEP
        found[name] = slopes.reshape(value.shape)
    return found


# --- evaluation -------------------------------------------------------------------------------------------------------


def evaluation_statistics(params: Params, s: Settings, minibatches: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Means and variances of layers 1..L: plain averages over labelled minibatches of mean and N/(N-1) variance.

    N is the number of rows, for maps as for vectors.
    """
    means: list[list[Array]] = [[] for _ in range(s.depth)]
    variances: list[list[Array]] = [[] for _ in range(s.depth)]
    for x in minibatches:
        h = x
        for layer in range(1, s.depth + 1):
            z_pre = up(s.layers[layer - 1], h, params.get(f"W{layer}"))
            mean, variance = moments(z_pre)
            means[layer - 1].append(mean.ravel())
            variances[layer - 1].append(variance.ravel() * len(x) / (len(x) - 1))
            h = activation(params, s, normalised(z_pre, mean, variance), layer)
    return [np.mean(m, axis=0) for m in means], [np.mean(v, axis=0) for v in variances]


def activations(
    params: Params, s: Settings, means: Sequence[Array], variances: Sequence[Array], x: Array
) -> list[Array]:
    """h_0..h_L of the clean path under given statistics; at the top the logits."""
    h = [x]
    for layer in range(1, s.depth + 1):
        z_pre = up(s.layers[layer - 1], h[-1], params.get(f"W{layer}"))
        mean, variance = (spread(values[layer - 1], z_pre) for values in (means, variances))
        h.append(activation(params, s, normalised(z_pre, mean, variance), layer))
    return [*h[:-1], h[-1].reshape(len(x), -1)]
