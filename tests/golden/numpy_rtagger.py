"""RTagger in plain NumPy, float64: the groups of ``numpy_tagger`` around the recurrent ladder of ``numpy_recurrent``.

Pixels of a group are (rows, height * width); the groups are rows of one batch, one group after another, as the batch
statistics are those of all. See both files for names and slopes; the tests load them before this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy_recurrent as recurrent
import numpy_tagger as tagger

Array = tagger.Array
Params = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Settings:
    grouping: tagger.Settings
    ladder: recurrent.Settings
    stateful: bool = True
    frames: int = 1


def iterate(
    params: Params, settings: Settings, seen: Sequence[Array], m: list[Array], norms: recurrent.Norms
) -> list[tagger.Iteration]:
    """The results of all iterations, which read ``seen``; ``m`` are the first assignments."""
    s, ladder = settings.grouping, settings.ladder
    rows, (_, height, width) = len(m[0]), ladder.frame
    z = [np.full_like(each, s.initial_z) for each in m]
    read, state, found = z, recurrent.zeros(ladder, s.groups * rows), []
    for x in seen:
        delta, likely = evidence(params, s, x, z, m)
        channels = [np.concatenate(each) for each in (read, delta, m, likely)]
        inputs = np.stack(channels, axis=1).reshape(-1, 4, height, width)
        (one,) = recurrent.run(params, ladder, [inputs], norms, state=state, decoded=1)
        state = dict(one.state)
        if not settings.stateful:
            state = {name: value if name[0] == "d" else np.zeros(value.shape) for name, value in state.items()}
        outputs = output(params, ladder, inputs, one.d[0], norms).reshape(s.groups, rows, 2, height * width)
        read = list(outputs[:, :, 0])
        z = [tagger.sigmoid(each) for each in read] if s.likelihood == "binary" else read
        m = tagger.over_groups(list(outputs[:, :, 1]))
        top = []
        if s.classes:
            logits = recurrent.told(params, one.e[-1])
            top = [tagger.softmax(each) for each in np.split(logits, s.groups)]
        found.append(tagger.Iteration(z, m, top))
    return found


def evidence(params: Params, s: tagger.Settings, x: Array, z: list[Array], m: list[Array]) -> tuple[Any, Any]:
    if s.likelihood == "binary":
        q = s.noise
        p = [(1 - 2 * q) * each + q for each in z]
        mixture = sum(a * b for a, b in zip(m, p, strict=True))
        delta = [(1 - 2 * q) * each / (mixture - 1 + x) for each in m]
        return delta, tagger.over_groups([-tagger.bernoulli_loss(each, x) for each in p])
    tau = s.noise**2 + tagger.variance_of(params) ** 2
    delta = [a * (x - b) for a, b in zip(m, z, strict=True)]
    return delta, tagger.over_groups([-0.5 * np.log(tau) - (each - x) ** 2 / (2 * tau) for each in z])


def output(params: Params, s: recurrent.Settings, inputs: Array, d: Array, norms: recurrent.Norms) -> Array:
    """z and m before their nonlinearities, as two channels."""
    u = recurrent.enlarged(d, recurrent.stride_of(s, 1), inputs.shape[2:])
    z = recurrent.correlate(np.concatenate([u, inputs], axis=1), params["bottom.W"])
    h = recurrent.leaky(norms.of_kind(s.normalisation, "bottom.norm", z, np.ones(len(z), bool)))
    return recurrent.correlate(h, params["bottom.V"]) + recurrent.spread(params["bottom.c"])


def cost(params: Params, settings: Settings, x: Array, y: Array, noise: Array, draws: Array) -> Any:
    """Total, cost of each iteration, and cost of classes.

    ``x`` and ``noise`` are (frames, rows, pixels), noise of a video without its last frame; ``y`` are k-hot classes of
    the first rows.
    """
    s = settings.grouping
    seen = [tagger.corrupted(s, frame, one) for frame, one in zip(x, noise, strict=False)]
    targets = list(x[1:])
    if settings.frames == 1:
        seen, targets = seen * s.iterations, [x[0]] * s.iterations
    found = iterate(params, settings, seen, tagger.over_groups(list(draws)), recurrent.Norms(params))
    each = [
        tagger.reconstruction_cost(params, s, target, one.z, one.m) for target, one in zip(targets, found, strict=True)
    ]
    total, supervised = sum(each) / len(each), np.zeros(())
    if s.classes:
        p = tagger.classes(found[-1].top)[: len(y)]
        share = y / y.sum(axis=1, keepdims=True)
        supervised = -s.class_cost * (share * np.log(p)).sum(axis=1).mean()
        total = total + supervised
    return total, each, supervised
