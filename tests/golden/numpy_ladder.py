"""A ladder network in plain NumPy, float64, with gradients derived by hand: the numbers that the torch model must give.

Written from the equations of Rasmus et al. 2015 and the behaviour of the original code, as the original graph has it:
labelled and unlabelled rows go through the corrupted and through the clean path together, labelled rows first. It
imports nothing of the library and is not fast; every line is meant to be checked against the paper by eye.

Names: ``W1``..``WL`` (n_l, n_{l-1}), ``beta1``.. (n_l,), ``gamma`` (n_L,), ``V0``..``V{L-1}`` (n_l, n_{l+1}), and the
combinators ``g0``..``gL``: rows a1..a10 for "gauss", and b0, w0z, w0u, w0zu, wS, b1, w1z, w1u, w1zu for "vanilla".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Params = dict[str, Any]

EPSILON = 1e-10


@dataclass(frozen=True, kw_only=True)
class Settings:
    widths: tuple[int, ...]
    noise_std: tuple[float, ...]
    lambda_: tuple[float, ...]
    decoder: str = "full"  # or "gamma", "none"
    combinator: str = "gauss"
    lateral: bool = True
    slope: float = 0.0  # of the rectifier below zero: 0 is relu, 0.1 the paper's leaky relu

    @property
    def depth(self) -> int:
        return len(self.widths) - 1

    @property
    def decoded(self) -> list[int]:
        """Decoded layers from the top down."""
        return {"full": list(range(self.depth, -1, -1)), "gamma": [self.depth], "none": []}[self.decoder]


# --- pieces -----------------------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance over the rows."""
    return x.mean(axis=0), x.var(axis=0)


def normalised(x: Array, mean: Array, variance: Array) -> Array:
    return (x - mean) / np.sqrt(variance + EPSILON)


def batch_norm_backward(x: Array, dz: Array, dmean: Array | float = 0.0, dvariance: Array | float = 0.0) -> Array:
    """Gradient of x, given those of its normalised value and, where others read them, of its mean and variance."""
    mean, variance = moments(x)
    s = np.sqrt(variance + EPSILON)
    dmean = dmean - dz.sum(axis=0) / s
    dvariance = dvariance + (dz * (x - mean)).sum(axis=0) * -0.5 / s**3
    return dz / s + dmean / len(x) + dvariance * 2.0 * (x - mean) / len(x)


# --- combinators ------------------------------------------------------------------------------------------------------


def gauss(a: Array, z: Array, u: Array, *, gated: bool = False) -> Array:
    mu = a[0] * sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
    v = a[5] * sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
    if gated:
        v = sigmoid(v)
    return (z - mu) * v + mu


def gauss_backward(a: Array, z: Array, u: Array, d: Array) -> tuple[Array, Array, Array]:
    s1, s2 = sigmoid(a[1] * u + a[2]), sigmoid(a[6] * u + a[7])
    mu = a[0] * s1 + a[3] * u + a[4]
    v = a[5] * s2 + a[8] * u + a[9]
    dmu, dv = d * (1.0 - v), d * (z - mu)
    t1, t2 = dmu * a[0] * s1 * (1.0 - s1), dv * a[5] * s2 * (1.0 - s2)
    da = np.stack([term.sum(axis=0) for term in (dmu * s1, t1 * u, t1, dmu * u, dmu, dv * s2, t2 * u, t2, dv * u, dv)])
    return d * v, t1 * a[1] + dmu * a[3] + t2 * a[6] + dv * a[8], da


def vanilla(w: Array, z: Array, u: Array) -> Array:
    b0, w0z, w0u, w0zu, ws, b1, w1z, w1u, w1zu = w
    return b0 + w0z * z + w0u * u + w0zu * z * u + ws * sigmoid(b1 + w1z * z + w1u * u + w1zu * z * u)


def vanilla_backward(w: Array, z: Array, u: Array, d: Array) -> tuple[Array, Array, Array]:
    _, w0z, w0u, w0zu, ws, b1, w1z, w1u, w1zu = w
    s = sigmoid(b1 + w1z * z + w1u * u + w1zu * z * u)
    t = d * ws * s * (1.0 - s)
    dz = d * (w0z + w0zu * u) + t * (w1z + w1zu * u)
    du = d * (w0u + w0zu * z) + t * (w1u + w1zu * z)
    dw = np.stack([term.sum(axis=0) for term in (d, d * z, d * u, d * z * u, d * s, t, t * z, t * u, t * z * u)])
    return dz, du, dw


def without(*absent: str) -> Any:
    """Vanilla with terms left out; ``w`` holds the rows that are left, in Vanilla's order."""
    names = ("b0", "w0z", "w0u", "w0zu", "ws", "b1", "w1z", "w1u", "w1zu")
    kept = [row for row, name in enumerate(names) if name not in absent]

    def combine(w: Array, z: Array, u: Array) -> Array:
        full = np.zeros((9, w.shape[1]))
        full[kept] = w
        return vanilla(full, z, u)

    return combine


def multi_layer(layers: Sequence[tuple[Array, Array]], z: Array, u: Array, *, augmented: bool) -> Array:
    """One small network for all units: inputs u, z and, when augmented, u*z; leaky rectifiers, linear output."""
    out = np.empty_like(z)
    for unit in range(z.shape[1]):
        columns = [u[:, unit], z[:, unit]] + ([u[:, unit] * z[:, unit]] if augmented else [])
        h = np.stack(columns, axis=1)
        for number, (weight, bias) in enumerate(layers):
            h = h @ weight + bias
            if number < len(layers) - 1:
                h = np.where(h > 0, h, 0.1 * h)
        out[:, unit] = h[:, 0]
    return out


_SIGMOID = ("ws", "b1", "w1z", "w1u", "w1zu")


def combine(name: str, g: Any, z: Array, u: Array) -> Array:
    if "mlp" in name:
        return multi_layer(g, z, u, augmented=name.startswith("amlp"))
    table = {
        "gauss": gauss,
        "gated-gauss": lambda g, z, u: gauss(g, z, u, gated=True),
        "vanilla": vanilla,
        "rand-init": vanilla,
        "rev-init": vanilla,
        "no-sig": without(*_SIGMOID),
        "no-mult": without("w0zu", "w1zu"),
        "linear": without("w0zu", *_SIGMOID),
    }
    result: Array = table[name](g, z, u)
    return result


BACKWARD = {"gauss": gauss_backward, "vanilla": vanilla_backward}


# --- the network ------------------------------------------------------------------------------------------------------


@dataclass
class Path:
    """One pass through the encoder, labelled rows first; lists are indexed by layer."""

    h: list[Array] = field(default_factory=list)  # activations; at the top the logits
    z: list[Array] = field(default_factory=list)  # what lateral connections and targets read
    z_pre: list[Array] = field(default_factory=list)
    mean: list[Array] = field(default_factory=list)  # of the unlabelled rows
    variance: list[Array] = field(default_factory=list)


def encode(params: Params, s: Settings, x: Array, n_lab: int, noise: Sequence[Array] | None) -> Path:
    def noised(z: Array, layer: int) -> Array:
        return z if noise is None else z + s.noise_std[layer] * noise[layer]

    first, nothing = noised(x, 0), np.empty(0)
    path = Path(h=[first], z=[first], z_pre=[nothing], mean=[nothing], variance=[nothing])
    for layer in range(1, s.depth + 1):
        z_pre = path.h[-1] @ params[f"W{layer}"].T
        labelled, unlabelled = z_pre[:n_lab], z_pre[n_lab:]
        mean, variance = moments(unlabelled)
        groups = [normalised(labelled, *moments(labelled)), normalised(unlabelled, mean, variance)]
        z = noised(np.concatenate(groups), layer)
        shifted = z + params[f"beta{layer}"]
        h = params["gamma"] * shifted if layer == s.depth else np.where(shifted > 0, shifted, s.slope * shifted)
        for values, value in zip(
            (path.h, path.z, path.z_pre, path.mean, path.variance), (h, z, z_pre, mean, variance), strict=True
        ):
            values.append(value)
    return path


def encode_backward(
    params: Params,
    s: Settings,
    path: Path,
    n_lab: int,
    dlogits: Array,
    dz_unlabelled: dict[int, Array],
    dmean: dict[int, Array],
    dvariance: dict[int, Array],
    gradients: Params,
) -> None:
    """Add the path's share to ``gradients``; the three dicts are what the decoder and the costs hand to its layers."""
    dh = dlogits
    for layer in range(s.depth, 0, -1):
        shifted = path.z[layer] + params[f"beta{layer}"]
        if layer == s.depth:
            gradients["gamma"] += (dh * shifted).sum(axis=0)
            dz = dh * params["gamma"]
        else:
            dz = dh * np.where(shifted > 0, 1.0, s.slope)
        gradients[f"beta{layer}"] += dz.sum(axis=0)
        labelled, unlabelled = dz[:n_lab], dz[n_lab:] + dz_unlabelled.get(layer, 0.0)
        below = [
            batch_norm_backward(path.z_pre[layer][:n_lab], labelled),
            batch_norm_backward(
                path.z_pre[layer][n_lab:], unlabelled, dmean.get(layer, 0.0), dvariance.get(layer, 0.0)
            ),
        ]
        dz_pre = np.concatenate(below)
        gradients[f"W{layer}"] += dz_pre.T @ path.h[layer - 1]
        dh = dz_pre @ params[f"W{layer}"]


@dataclass
class Step:
    """What one training step computes: costs by name, gradients by parameter (None without a backward pass)."""

    cost: float
    supervised: float
    denoising: dict[int, float]
    gradients: Params | None


def train_step(
    params: Params,
    s: Settings,
    x_lab: Array,
    y: NDArray[np.integer],
    x_unl: Array,
    noise: Sequence[Array],
    *,
    backward: bool = True,
) -> Step:
    """Costs and gradients of one step.

    Args:
        noise: standard normal draws of layers 0..L, each (n_lab + n_unl, n_l), labelled rows first.
    """
    n_lab, n_unl = len(x_lab), len(x_unl)
    x = np.concatenate([x_lab, x_unl])
    corrupted = encode(params, s, x, n_lab, noise)
    clean = encode(params, s, x, n_lab, None)

    p = softmax(corrupted.h[s.depth])
    supervised = float(-np.log(p[np.arange(n_lab), y]).mean())

    u_pre, u, z_hat, difference = {}, {}, {}, {}
    denoising: dict[int, float] = {}
    for layer in s.decoded:
        u_pre[layer] = p[n_lab:] if layer == s.depth else z_hat[layer + 1] @ params[f"V{layer}"].T
        u[layer] = normalised(u_pre[layer], *moments(u_pre[layer]))
        lateral = corrupted.z[layer][n_lab:] * (1.0 if s.lateral else 0.0)
        z_hat[layer] = combine(s.combinator, params[f"g{layer}"], lateral, u[layer])
        estimate = z_hat[layer]
        if layer > 0:
            estimate = normalised(estimate, clean.mean[layer], clean.variance[layer])
        difference[layer] = clean.z[layer][n_lab:] - estimate
        units = s.widths[layer]
        denoising[layer] = float(s.lambda_[layer] * (difference[layer] ** 2).sum(axis=1).mean() / units)
    step = Step(supervised + sum(denoising.values()), supervised, denoising, None)
    if not backward:
        return step

    gradients: Params = {name: np.zeros_like(value) for name, value in params.items()}
    to_clean: dict[int, Array] = {}
    to_corrupted: dict[int, Array] = {}
    dmean: dict[int, Array] = {}
    dvariance: dict[int, Array] = {}
    dz_hat = {layer: np.zeros_like(z_hat[layer]) for layer in s.decoded}
    dlogits = p.copy()
    dlogits[np.arange(n_lab), y] -= 1.0
    dlogits[:n_lab] /= n_lab
    dlogits[n_lab:] = 0.0
    for layer in reversed(s.decoded):
        ddifference = 2.0 * s.lambda_[layer] * difference[layer] / (n_unl * s.widths[layer])
        if layer > 0:
            root = np.sqrt(clean.variance[layer] + EPSILON)
            centred = z_hat[layer] - clean.mean[layer]
            to_clean[layer] = ddifference
            dmean[layer] = (ddifference / root).sum(axis=0)
            dvariance[layer] = (ddifference * centred).sum(axis=0) * 0.5 / root**3
            dz_hat[layer] -= ddifference / root
        else:
            dz_hat[layer] -= ddifference
        lateral = corrupted.z[layer][n_lab:] * (1.0 if s.lateral else 0.0)
        dlateral, du, dg = BACKWARD[s.combinator](params[f"g{layer}"], lateral, u[layer], dz_hat[layer])
        gradients[f"g{layer}"] += dg
        to_corrupted[layer] = dlateral * (1.0 if s.lateral else 0.0)
        du_pre = batch_norm_backward(u_pre[layer], du)
        if layer == s.depth:
            q = p[n_lab:]
            dlogits[n_lab:] = q * (du_pre - (q * du_pre).sum(axis=1, keepdims=True))
        else:
            gradients[f"V{layer}"] += du_pre.T @ z_hat[layer + 1]
            dz_hat[layer + 1] += du_pre @ params[f"V{layer}"]
    encode_backward(params, s, corrupted, n_lab, dlogits, to_corrupted, {}, {}, gradients)
    nothing = np.zeros_like(dlogits)
    encode_backward(params, s, clean, n_lab, nothing, to_clean, dmean, dvariance, gradients)
    step.gradients = gradients
    return step


# --- training and evaluation ------------------------------------------------------------------------------------------


class Adam:
    """Kingma and Ba 2015, Algorithm 1, with the paper's settings; the learning rate comes with every update."""

    def __init__(self, params: Params) -> None:
        self.t = 0
        self.m = {name: np.zeros_like(value) for name, value in params.items()}
        self.v = {name: np.zeros_like(value) for name, value in params.items()}

    def update(self, params: Params, gradients: Params, lr: float) -> None:
        self.t += 1
        for name, d in gradients.items():
            self.m[name] = 0.9 * self.m[name] + 0.1 * d
            self.v[name] = 0.999 * self.v[name] + 0.001 * d * d
            m_hat = self.m[name] / (1.0 - 0.9**self.t)
            v_hat = self.v[name] / (1.0 - 0.999**self.t)
            params[name] = params[name] - lr * m_hat / (np.sqrt(v_hat) + 1e-8)


def evaluation_statistics(params: Params, s: Settings, minibatches: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Means and variances of layers 1..L: plain averages over labelled minibatches of mean and unbiased variance."""
    means: list[list[Array]] = [[] for _ in range(s.depth)]
    variances: list[list[Array]] = [[] for _ in range(s.depth)]
    for x in minibatches:
        h = x
        for layer in range(1, s.depth + 1):
            z_pre = h @ params[f"W{layer}"].T
            means[layer - 1].append(z_pre.mean(axis=0))
            variances[layer - 1].append(z_pre.var(axis=0, ddof=1))
            h = activation(params, s, normalised(z_pre, *moments(z_pre)), layer)
    return [np.mean(m, axis=0) for m in means], [np.mean(v, axis=0) for v in variances]


def classify(params: Params, s: Settings, means: Sequence[Array], variances: Sequence[Array], x: Array) -> Array:
    """Class probabilities of the clean path under given statistics."""
    h = x
    for layer in range(1, s.depth + 1):
        z = normalised(h @ params[f"W{layer}"].T, means[layer - 1], variances[layer - 1])
        h = activation(params, s, z, layer)
    return softmax(h)


def activation(params: Params, s: Settings, z: Array, layer: int) -> Array:
    shifted = z + params[f"beta{layer}"]
    if layer == s.depth:
        result: Array = params["gamma"] * shifted
        return result
    return np.where(shifted > 0, shifted, s.slope * shifted)
