"""Tagger in plain NumPy, float64, group after group: what the torch model must give.

It imports nothing of the library and is not fast; every line is meant to be checked by eye. Arrays of a group are
(rows, pixels), and everything of all groups is a list of them.

Parameters go by the names that they have in the torch model. Slopes are not derived: all functions take complex
numbers, and the imaginary part of the cost at p + 1e-100j is 1e-100 times its derivative by p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Params = Mapping[str, Array]
Groups = list[Array]

STEP = 1e-100


@dataclass(frozen=True, kw_only=True)
class Settings:
    groups: int
    iterations: int
    likelihood: str
    noise: float
    initial_z: float
    classes: int = 0
    class_cost: float = 0.0
    depth: int = 2
    norm: str = "ln"


class Iteration(NamedTuple):
    z: Groups
    m: Groups
    top: Groups


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def relu(x: Array) -> Array:
    return np.where(x.real > 0, x, 0.0 * x)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def over_groups(values: Groups) -> Groups:
    """A softmax over the groups of each pixel."""
    e = [np.exp(value) for value in values]
    return [each / sum(e) for each in e]


def normalised(values: Groups, norm: str) -> Groups:
    """By the units of each row of each group, or by all rows of all groups."""
    if norm == "ln":
        centred = [value - value.mean(axis=1, keepdims=True) for value in values]
        return [value / np.sqrt((value * value).mean(axis=1, keepdims=True) + 1e-10) for value in centred]
    rows = np.concatenate(values)
    mean = rows.mean(axis=0)
    variance = ((rows - mean) ** 2).mean(axis=0)
    return [(value - mean) / np.sqrt(variance + 1e-10) for value in values]


def combined(a: Array, z: Array, u: Array, *, gated: bool) -> Array:
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a
    mu = a1 * sigmoid(a2 * u + a3) + a4 * u + a5
    v = a6 * sigmoid(a7 * u + a8) + a9 * u + a10
    return (z - mu) * (sigmoid(v) if gated else v) + mu


def bernoulli_loss(p: Array, x: Array) -> Array:
    clipped = 1e-4 + (1.0 - 2e-4) * p
    return -x * np.log(clipped) - (1.0 - x) * np.log(1.0 - clipped)


def variance_of(params: Params) -> Array:
    w = params["likelihood.w"]
    return w + np.sqrt(w * w + 1.0)


def corrupted(settings: Settings, x: Array, draws: Array) -> Array:
    if settings.likelihood == "continuous":
        return x + settings.noise * draws
    flipped = np.array([[NormalDist().cdf(one) < settings.noise for one in row] for row in draws])
    return np.where(flipped, 1.0 - x, x)


def iterate(params: Params, settings: Settings, seen: Sequence[Array], m: Groups) -> list[Iteration]:
    """The results of all iterations, which read ``seen``; ``m`` are the first assignments."""
    z: Groups = [np.full_like(each, settings.initial_z) for each in m]
    read = z
    found = []
    for x in seen:
        if settings.likelihood == "binary":
            q = settings.noise
            p = [(1 - 2 * q) * each + q for each in z]
            losses = [bernoulli_loss(each, x) for each in p]
            mixture = sum(a * b for a, b in zip(m, p, strict=True))
            delta = [(1 - 2 * q) * each / (mixture - 1 + x) for each in m]
        else:
            tau = settings.noise**2 + variance_of(params) ** 2
            losses = [0.5 * np.log(tau) + (each - x) ** 2 / (2 * tau) for each in z]
            delta = [a * (x - b) for a, b in zip(m, z, strict=True)]
        likely = over_groups([-loss for loss in losses])
        inputs = [np.concatenate(each, axis=1) for each in zip(read, delta, m, likely, strict=True)]
        outputs, before, top = ladder(params, settings, inputs)
        binary = settings.likelihood == "binary"
        read = outputs
        z = [sigmoid(each) for each in outputs] if binary else outputs
        m = over_groups(before)
        found.append(Iteration(z, m, top))
    return found


def ladder(params: Params, settings: Settings, inputs: Groups) -> tuple[Groups, Groups, Groups]:
    """z and m before their nonlinearities, and the top's probabilities."""
    depth, norm = settings.depth, settings.norm

    def mapped(name: str, values: Groups) -> Groups:
        return normalised([value @ params[name].T for value in values], norm)

    gated = settings.likelihood == "continuous"
    h = [relu(value + params["beta.0"]) for value in mapped("W.0", inputs)]
    lateral = [h]
    for level in range(1, depth + 1):
        z = mapped(f"W.{level}", h)
        lateral.append(z)
        h = [value + params[f"beta.{level}"] for value in z]
        if level < depth:
            h = [relu(value) for value in h]
    top = [softmax(params["gamma"] * value) for value in h]
    u, estimate = normalised(top, norm), top
    for level in range(depth, -1, -1):
        if level < depth:
            u = mapped(f"V.{level}", estimate)
        a = params[f"g.{level}.a"]
        estimate = [combined(a, z, above, gated=gated) for z, above in zip(lateral[level], u, strict=True)]
    z = [params["c_1"] * value + params["b_1"] for value in mapped("W_z", estimate)]
    m = [params["c_2"] * value for value in mapped("W_m", estimate)]
    return z, m, top


def reconstruction_cost(params: Params, settings: Settings, x: Array, z: Groups, m: Groups) -> Array:
    if settings.likelihood == "binary":
        return bernoulli_loss(sum(a * b for a, b in zip(m, z, strict=True)), x).mean()
    v = variance_of(params)
    mixture = sum((a + 1e-5) * v**-0.5 * np.exp(-((x - b) ** 2) / (2 * v)) for a, b in zip(m, z, strict=True))
    return -np.log(mixture).mean()


def classes(top: Groups) -> Array:
    """Class probabilities of the rows, from the top's of all groups; the last unit is that of none."""
    summed = sum(each[:, :-1] for each in top)
    return summed / summed.sum(axis=1, keepdims=True)


def cost(
    params: Params, settings: Settings, x: Array, y: Array, noise: Array, draws: Array
) -> tuple[Array, list[Array], Array]:
    """Total, cost of each iteration, and cost of classes; y are k-hot classes of the first rows of x."""
    m = over_groups(list(draws))
    found = iterate(params, settings, [corrupted(settings, x, noise)] * settings.iterations, m)
    each = [reconstruction_cost(params, settings, x, one.z, one.m) for one in found]
    total, supervised = sum(each) / len(each), np.zeros(())
    if settings.classes:
        p = classes(found[-1].top)[: len(y)]
        share = y / y.sum(axis=1, keepdims=True)
        supervised = -settings.class_cost * (share * np.log(p)).sum(axis=1).mean()
        total = total + supervised
    return total, each, supervised
