"""The music baselines in plain NumPy, float64, with gradients by complex steps: what the torch models must give.

One row, one step and one unit's formula at a time, as the papers print them: the LSTM with forget gates (Gers et al.
2000), the GRU with its reset gate behind the product (as cuDNN has it), the TCN of Bai et al. 2018. It imports nothing
of the library and is not fast; every line is meant to be checked by eye.

Gradients are not derived: all functions take complex numbers, and the imaginary part of the cost at p + 1e-100j is
1e-100 times its derivative by p, to the last digit, because nothing is subtracted.

Names are those of the torch model: ``layers.0.W``.. ``V``, ``gamma``. The gates of an LSTM are, in this order, input,
forget, output gate and candidate; those of a GRU reset gate, update gate and candidate. A filter of a TCN has its taps
one after the other, the oldest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Params = dict[str, Array]

STEP = 1e-100


@dataclass(frozen=True, kw_only=True)
class Settings:
    kind: str
    layers: int
    kernel: int
    dropout: float
    weight_decay: float


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def relu(x: Array) -> Array:
    return np.where(x.real > 0, x, 0.0)


def dropped(x: Array, normals: Array | None, rate: float) -> Array:
    if normals is None or rate == 0.0:
        return x
    keep = normals < NormalDist().inv_cdf(1.0 - rate)
    return np.where(keep, x / (1.0 - rate), 0.0)


# --- layers, one row: [steps, n_in] -> [steps, hidden] ----------------------------------------------------------------


def recurrent(p: Params, kind: str, x: Array, state: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    W, U, beta, h = p["W"], p["U"], p["beta"], state["h"]
    c = state.get("c")
    n = len(h)
    out = []
    for now in x:
        if kind == "rnn":
            h = np.tanh(W @ now + U @ h + beta)
        if kind == "gru":
            reset = sigmoid(W[:n] @ now + U[:n] @ h + beta[:n])
            update = sigmoid(W[n : 2 * n] @ now + U[n : 2 * n] @ h + beta[n : 2 * n])
            candidate = np.tanh(W[2 * n :] @ now + beta[2 * n :] + reset * (U[2 * n :] @ h))
            h = (1.0 - update) * candidate + update * h
        if kind == "lstm":
            z = [
                W[k * n : (k + 1) * n] @ now + U[k * n : (k + 1) * n] @ h + beta[k * n : (k + 1) * n] for k in range(4)
            ]
            c = sigmoid(z[1]) * c + sigmoid(z[0]) * np.tanh(z[3])
            h = sigmoid(z[2]) * np.tanh(c)
        out.append(h)
    return np.stack(out), {"h": h} if c is None else {"h": h, "c": c}


def convolution(x: Array, before: Array, v: Array, g: Array, beta: Array, dilation: int) -> Array:
    """Output t sees inputs t, t - dilation, t - 2 dilation, ...; ``before`` are the inputs before the first."""
    everything, taps = np.concatenate([before, x]), v.shape[1] // x.shape[1]
    filters = [g[o] * v[o] / np.sqrt((v[o] ** 2).sum()) for o in range(len(v))]
    out = np.zeros((len(x), len(v)), dtype=np.result_type(x, v, g, beta))
    for t in range(len(x)):
        for o, weights in enumerate(filters):
            total = beta[o]
            for j in range(taps):
                seen = everything[len(before) + t - (taps - 1 - j) * dilation]
                total = total + weights[j * x.shape[1] : (j + 1) * x.shape[1]] @ seen
            out[t, o] = total
    return out


def block(
    p: Params, s: Settings, x: Array, state: dict[str, Array], level: int, normals: list[Array | None]
) -> tuple[Array, dict[str, Array]]:
    dilation = 2**level
    past = (s.kernel - 1) * dilation
    z = convolution(x, state["x"], p["v.0"], p["g.0"][:, 0], p["beta.0"], dilation)
    a = dropped(relu(z), normals[0], s.dropout)
    z = convolution(a, state["a"], p["v.1"], p["g.1"][:, 0], p["beta.1"], dilation)
    b = dropped(relu(z), normals[1], s.dropout)
    skip = x @ p["P"].T + p["delta"] if "P" in p else x
    last = {"x": np.concatenate([state["x"], x])[-past:], "a": np.concatenate([state["a"], a])[-past:]}
    return relu(b + skip), last


# --- the network ------------------------------------------------------------------------------------------------------


def logits(
    params: Params, s: Settings, inputs: Array, carried: dict[str, Array], normals: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Log-odds of all rows, and the new state.

    Args:
        inputs: [rows, steps, notes].
        carried: name_layer -> [rows, ...].
        normals: [dropouts, rows, steps, hidden], or None outside training.
    """
    found, after = [], {name: [] for name in carried}
    for row in range(len(inputs)):
        h = inputs[row]
        for layer in range(s.layers):
            own = {name.split(".", 2)[2]: p for name, p in params.items() if name.startswith(f"layers.{layer}.")}
            names = [name.split("_")[0] for name in carried if name.endswith(f"_{layer + 1}")]
            state = {name: carried[f"{name}_{layer + 1}"][row] for name in names}
            if s.kind == "tcn":
                both = [None if normals is None else normals[2 * layer + i][row] for i in range(2)]
                h, state = block(own, s, h, state, layer, both)
            else:
                h, state = recurrent(own, s.kind, h, state)
                h = dropped(h, None if normals is None else normals[layer][row], s.dropout)
            for name, value in state.items():
                after[f"{name}_{layer + 1}"].append(value)
        found.append(h @ params["V"].T + params["gamma"])
    return np.stack(found), {name: np.stack(values) for name, values in after.items()}


def nats(found: Array, targets: Array, scored: Array) -> Any:
    """Sum over the notes of all steps that are scored."""
    p = sigmoid(found)
    each = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(-1)
    return each[scored].sum()


def squared_weights(params: Params, s: Settings) -> Any:
    """Of all matrices and filters, as they are used."""
    total = (params["V"] ** 2).sum()
    for name, value in params.items():
        leaf = name.split(".", 2)[-1]
        if leaf in ("W", "U", "P"):
            total = total + (value**2).sum()
        if leaf.startswith("v."):
            g = params[name.replace(".v.", ".g.")]
            total = total + ((g * value / np.sqrt((value**2).sum(1, keepdims=True))) ** 2).sum()
    return total


def train_step(
    params: Params, s: Settings, inputs: Array, targets: Array, scored: Array, carried: dict[str, Array], normals: Array
) -> tuple[Any, Any, dict[str, Array]]:
    """Cost, its part without the weight decay, and the new state."""
    found, after = logits(params, s, inputs, carried, normals)
    supervised = nats(found, targets, scored) / scored.sum()
    return supervised + 0.5 * s.weight_decay * squared_weights(params, s), supervised, after


def gradients(params: Params, s: Settings, *inputs: Any) -> Params:
    """Derivative of the cost by every single number of ``params``."""
    found: Params = {}
    for name, value in params.items():
        slopes = np.zeros(value.size)
        for i in range(value.size):
            moved = value.astype(complex)
            moved.flat[i] += 1j * STEP
            slopes[i] = train_step(params | {name: moved}, s, *inputs)[0].imag / STEP
        found[name] = slopes.reshape(value.shape)
    return found
