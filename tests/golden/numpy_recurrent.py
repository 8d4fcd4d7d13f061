"""A recurrent ladder in plain NumPy, float64, frame after frame: what the torch model must give.

It imports nothing of the library and is not fast; every line is meant to be checked by eye. Maps are (rows, channels,
height, width), a step of music being a map of one row. Nothing is made for several frames at once and nothing that is
zero is left out.

Parameters go by the names that they have in the torch model. Slopes are not derived: all functions take complex
numbers, and the imaginary part of the cost at p + 1e-100j is 1e-100 times its derivative by p.

Levels are lists of words: ("conv", channels, kernel, stride), then ("lstm", channels, kernel), ("dense-lstm", units), …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Params = Mapping[str, Array]
State = dict[str, Array]

EPSILON = 1e-5
STEP = 1e-100


@dataclass(frozen=True, kw_only=True)
class Settings:
    levels: tuple[tuple[tuple[Any, ...], ...], ...]
    frame: tuple[int, int, int]  # channels, height, width
    flat: bool = False  # filters are 1 x kernel
    decoder_cell: str | None = "g3"  # None: no decoder
    feedback: bool = True
    iterations: int = 1
    normalisation: str = "ln"
    prediction: str = "bce"
    lambda_c: float = 1.0
    lambda_p: float = 1.0
    noise_std: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 0.0


# --- pieces -----------------------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def leaky(x: Array) -> Array:
    return np.where(x.real > 0, x, 0.1 * x)


def spread(vector: Array) -> Array:
    return vector.reshape(1, -1, 1, 1)


def flat(x: Array) -> Array:
    """Units of a map in the order of height, width, channels."""
    return x.transpose(0, 2, 3, 1).reshape(len(x), -1)


def correlate(x: Array, filters: Array, stride: tuple[int, int] = (1, 1)) -> Array:
    """Each filter (channels, in, height, width) around every place; zeros around the map."""
    high, wide = filters.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (high // 2, high // 2), (wide // 2, wide // 2)))
    windows = sliding_window_view(padded, (high, wide), axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    return np.tensordot(windows, filters, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)


def product(x: Array, weight: Array, stride: tuple[int, int] = (1, 1)) -> Array:
    """A full connection gives a map of one place."""
    return (flat(x) @ weight.T)[:, :, None, None] if weight.ndim == 2 else correlate(x, weight, stride)


def enlarged(x: Array, stride: tuple[int, int], size: Sequence[int]) -> Array:
    return x.repeat(stride[0], axis=2).repeat(stride[1], axis=3)[:, :, : size[0], : size[1]]


def gauss(a: Array, z: Array, u: Array, *, gated: bool) -> Array:
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = (spread(row) for row in a)
    mu = a1 * sigmoid(a2 * u + a3) + a4 * u + a5
    v = a6 * sigmoid(a7 * u + a8) + a9 * u + a10
    return (z - mu) * (sigmoid(v) if gated else v) + mu


@dataclass
class Norms:
    """Batch statistics of each call, noted; or, where ``stored`` has them, stored ones."""

    params: Params
    stored: Mapping[str, Array] | None = None
    noted: dict[str, list[tuple[Array, Array, float]]] = field(default_factory=dict)

    def layer(self, name: str, z: Array) -> Array:
        mean = z.mean(axis=(1, 2, 3), keepdims=True)
        variance = ((z - mean) ** 2).mean(axis=(1, 2, 3), keepdims=True)
        return self._scaled(name, (z - mean) / np.sqrt(variance + EPSILON))

    def batch(self, name: str, z: Array, present: Array) -> Array:
        if self.stored is not None:
            mean, variance = self.stored[f"{name}.mean"], self.stored[f"{name}.variance"]
        elif not present.any():
            mean, variance = np.zeros(z.shape[1]), np.ones(z.shape[1])
        else:
            here = z[present]
            mean = here.mean(axis=(0, 2, 3))
            variance = ((here - spread(mean)) ** 2).mean(axis=(0, 2, 3))
        self.noted.setdefault(name, []).append((mean, variance, float(present.sum())))
        return self._scaled(name, (z - spread(mean)) / np.sqrt(spread(variance) + EPSILON))

    def of_kind(self, kind: str, name: str, z: Array, present: Array) -> Array:
        return self.layer(name, z) if kind == "ln" else self.batch(name, z, present)

    def averages(self) -> dict[str, Array]:
        """Of all calls, weighted by their rows."""
        found = {}
        for name, calls in self.noted.items():
            rows = sum(row for _, _, row in calls)
            found[f"{name}.mean"] = sum(mean * row for mean, _, row in calls) / rows
            found[f"{name}.variance"] = sum(variance * row for _, variance, row in calls) / rows
        return found

    def _scaled(self, name: str, z: Array) -> Array:
        if f"{name}.scale" not in self.params:
            return z
        return z * spread(self.params[f"{name}.scale"]) + spread(self.params[f"{name}.shift"])


# --- the network ------------------------------------------------------------------------------------------------------


def pair(s: Settings, number: int) -> tuple[int, int]:
    return (1 if s.flat else number, number)


def encoder_level(
    params: Params, s: Settings, level: int, h: Array, state: State, present: Array, norms: Norms
) -> tuple[Array, State]:
    """Level l reads the map below, d of its own level, and its state; it gives e and its new state."""
    name, words = f"body.encoder.{level - 1}", s.levels[level - 1]
    for i, (_, _, _, stride) in enumerate(words[:-1]):
        z = correlate(h, params[f"{name}.layers.{i}.W"], pair(s, stride))
        h = leaky(norms.batch(f"{name}.layers.{i}.norm", z, present))
    kind, name = words[-1][0], f"{name}.cell"
    if kind == "none":
        return h, {}
    z = product(h, params[f"{name}.W"])
    if kind == "dense":
        return leaky(norms.batch(f"{name}.norm", z, present)), {}
    if f"{name}.D" in params:
        z = z + product(state[f"d{level}"], params[f"{name}.D"])
    if kind.startswith("dense"):
        z = z + spread(params[f"{name}.b"])
    else:
        z = norms.of_kind(s.normalisation, f"{name}.norm", z, present)
    h = state[f"h{level}"]
    again = product(h, params[f"{name}.U"])
    if kind.endswith("rnn"):
        h = np.tanh(z + again)
        return h, {f"h{level}": h}
    if kind.endswith("lstm"):
        i, f, o, g = np.split(z + again, 4, axis=1)
        c = sigmoid(f) * state[f"c{level}"] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, {f"h{level}": h, f"c{level}": c}
    (r, k, g), (r_, k_, g_) = np.split(z, 3, axis=1), np.split(again, 3, axis=1)
    keep, candidate = sigmoid(k + k_), np.tanh(g + sigmoid(r + r_) * g_)
    h = keep * h + (1 - keep) * candidate
    return h, {f"h{level}": h}


def decoder_cell(params: Params, s: Settings, level: int, e: Array, u: Array, present: Array, norms: Norms) -> Array:
    name = f"body.g.{level - 1}"
    if s.decoder_cell == "g1":
        z = norms.batch(f"{name}.norm", correlate(u, params[f"{name}.W"]), present)
        return gauss(params[f"{name}.g.a"], e, z, gated=False)
    z = correlate(np.concatenate([u, e], axis=1), params[f"{name}.W"])
    c = leaky(norms.of_kind(s.normalisation, f"{name}.norm", z, present))
    w = correlate(c, params[f"{name}.V"]) + spread(params[f"{name}.b"])
    if s.decoder_cell == "g2":
        return gauss(params[f"{name}.g.a"], e, w, gated=True)
    a, w = np.split(w, 2, axis=1)
    return sigmoid(a) * e + (1 - sigmoid(a)) * w


def stride_of(s: Settings, level: int) -> tuple[int, int]:
    strides = [pair(s, word[3]) for word in s.levels[level - 1][:-1]]
    return int(np.prod([one for one, _ in strides])), int(np.prod([other for _, other in strides]))


def decode(
    params: Params, s: Settings, e: Sequence[Array], features: Sequence[int], present: Array, norms: Norms
) -> list[Array]:
    """Returns d of levels 1..L. ``features`` is the size of what the top cell reads: channels, height, width."""
    d = product(e[-1], params["body.top.W"]) + spread(params["body.top.b"])
    d = leaky(d)
    if s.levels[-1][-1][0].startswith("dense"):
        channels, height, width = features
        d = d.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    found = [d]
    for level in range(len(s.levels) - 1, 0, -1):
        u = enlarged(found[0], stride_of(s, level + 1), e[level - 1].shape[2:])
        found.insert(0, decoder_cell(params, s, level, e[level - 1], u, present, norms))
    return found


def sizes(s: Settings) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Of each level, what its cell reads and what it gives."""
    found, below = [], s.frame
    for words in s.levels:
        for _, channels, _, stride in words[:-1]:
            high, wide = pair(s, stride)
            below = (channels, -(-below[1] // high), -(-below[2] // wide))
        kind, *numbers = words[-1]
        features = below
        if kind.startswith("dense"):
            below = (numbers[0], 1, 1)
        elif kind != "none":
            below = (numbers[0], *below[1:])
        found.append((features, below))
    return found


def zeros(s: Settings, rows: int) -> State:
    found = {}
    for level, ((_, given), words) in enumerate(zip(sizes(s), s.levels, strict=True), 1):
        found |= {f"{name}{level}": np.zeros((rows, *given)) for name in "hcd"}
        if words[-1][0].startswith("dense"):
            del found[f"d{level}"]  # nobody reads it
    return found


@dataclass
class Frame:
    """What one frame gives: e and d of levels 1..L, and the state that it leaves."""

    e: list[Array]
    d: list[Array]
    state: State


def run(
    params: Params,
    s: Settings,
    frames: Sequence[Array],
    norms: Norms,
    *,
    state: State | None = None,
    present: Sequence[Array] | None = None,
    decoded: int,
    drop: Sequence[Sequence[Array]] | None = None,
) -> list[Frame]:
    """Run over frames, each (rows, channels, height, width).

    Args:
        present: (rows,) of each frame, which rows statistics are taken from.
        decoded: frames that are decoded after their last iteration.
        drop: of each frame and level, what e is multiplied by where the decoder reads it.
    """
    rows = len(frames[0])
    state = zeros(s, rows) if state is None else dict(state)
    found = []
    fed = any(name.endswith("cell.D") for name in params)
    for t, x in enumerate(frames):
        here = np.ones(rows, bool) if present is None else present[t]
        for iteration in range(s.iterations):
            e: list[Array] = []
            d: list[Array] = []
            for level in range(1, len(s.levels) + 1):
                h, new = encoder_level(params, s, level, e[-1] if e else x, state, here, norms)
                e.append(h)
                state |= new
            last = iteration == s.iterations - 1
            if s.decoder_cell is not None and (t < decoded if last else fed):
                read = e if drop is None else [value * kept for value, kept in zip(e, drop[t], strict=True)]
                d = decode(params, s, read, sizes(s)[-1][0], here, norms)
                state |= {f"d{level}": value for level, value in enumerate(d, 1) if f"d{level}" in state}
        found.append(Frame(e, d, dict(state)))
    return found


def bottom(params: Params, s: Settings, x: Array, d: Array) -> Array:
    """Logits of the next frame."""
    u = enlarged(d, stride_of(s, 1), x.shape[2:])
    h = leaky(correlate(np.concatenate([u, x], axis=1), params["bottom.W"]) + spread(params["bottom.b"]))
    return correlate(h, params["bottom.V"]) + spread(params["bottom.c"])


def told(params: Params, e: Array) -> Array:
    return flat(e) @ params["W"].T + params["b"]


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Of each number alone."""
    return np.log(1 + np.exp(logits)) - targets * logits


def kept(draws: Array, p: float) -> Array:
    """What dropout multiplies by."""
    return (draws < NormalDist().inv_cdf(1 - p) if p else np.ones(draws.shape)) / (1 - p)


def decay(params: Params, s: Settings) -> Any:
    weights = [value for name, value in params.items() if name.split(".")[-1] in ("W", "D", "U", "V")]
    return 0.5 * s.weight_decay * sum((value**2).sum() for value in weights)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.real.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


# --- costs ------------------------------------------------------------------------------------------------------------


def video_cost(params: Params, s: Settings, x: Array, y: Array, noise: Array, draws: Array) -> dict[str, Any]:
    """Terms of the cost of videos (rows, frames, channels, height, width).

    Args:
        y: classes of the first rows; the others are unlabelled.
        noise: as x.
        draws: of dropout, (rows, channels of the top level).
    """
    noisy, n = x + s.noise_std * noise, x.shape[1]
    found = run(params, s, [noisy[:, t] for t in range(n)], Norms(params), decoded=n - 1)
    terms: dict[str, Any] = {"cost_decay": decay(params, s)}
    if "W" in params:
        p = log_softmax(told(params, found[-1].e[-1] * kept(draws, s.dropout)[:, :, None, None]))
        terms["cost_supervised"] = -s.lambda_c * p[np.arange(len(y)), y].mean()
    if "bottom.W" in params:
        errors = []
        for t in range(n - 1):
            logits = bottom(params, s, noisy[:, t], found[t].d[0])
            squared = (sigmoid(logits) - x[:, t + 1]) ** 2
            errors.append(cross_entropy(logits, x[:, t + 1]) if s.prediction == "bce" else squared)
        terms["cost_prediction"] = s.lambda_p * np.mean(errors)
    return terms


def notes(params: Params, s: Settings, x: Array, frame: Frame, top: Array) -> Array:
    """Logits of the next step's notes; ``top`` is what the output layer reads where there is no decoder."""
    return bottom(params, s, x, frame.d[0]) if "bottom.W" in params else told(params, top).reshape(x.shape)


def music_cost(
    params: Params,
    s: Settings,
    inputs: Array,
    targets: Array,
    present: Array,
    scored: Array,
    state: State,
    noise: Array,
    draws: Sequence[Array],
) -> tuple[dict[str, Any], State]:
    """Terms of the cost of windows (rows, steps, channels, 1, pitches), and the state in which they end.

    Args:
        present, scored: (rows, steps).
        noise: as the inputs.
        draws: of dropout, of each level, (rows, steps, channels).
    """
    noisy, n = inputs + s.noise_std * noise, inputs.shape[1]
    drop = [[kept(level[:, t], s.dropout)[:, :, None, None] for level in draws] for t in range(n)]
    there = [present[:, t] for t in range(n)]
    frames = [noisy[:, t] for t in range(n)]
    decoded = s.decoder_cell is not None
    found = run(params, s, frames, Norms(params), state=state, present=there, decoded=n, drop=drop if decoded else None)
    total: Any = 0.0
    for t, frame in enumerate(found):
        logits = notes(params, s, frames[t], frame, frame.e[-1] * drop[t][-1])
        total = total + (cross_entropy(logits, targets[:, t]).sum(axis=(1, 2, 3)) * scored[:, t]).sum()
    terms = {"cost_supervised": total / max(scored.sum(), 1), "cost_decay": decay(params, s)}
    return terms, found[-1].state
