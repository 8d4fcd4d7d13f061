"""The torch RTagger against a plain NumPy one: costs, slopes, evaluation and statistics, to 1e-9 in float64."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.models.rtagger import RTagger, RTaggerConfig
from ladder_search.nn.protocol import Batch


def _load(name: str) -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


recurrent, tagger, reference = map(_load, ("numpy_recurrent", "numpy_tagger", "numpy_rtagger"))

SIDE, N_LAB, N_UNL = (5, 4), 2, 2
PIXELS = 20

CASES: dict[str, dict[str, Any]] = {
    "continuous, bn": {},
    "binary, bn": {"likelihood": "binary"},
    "continuous, ln": {"norm": "ln"},
    "classes": {"classes": 3},
    "binary, classes, labelled rows only": {"likelihood": "binary", "classes": 3, "unlabelled": False},
    "without states": {"stateful": False},
    "without feedback": {"feedback": False},
    "without either": {"stateful": False, "feedback": False, "decoder_cell": "g2"},
    "video": {"frames": 4},
    "video, binary, g1": {"frames": 3, "likelihood": "binary", "decoder_cell": "g1"},
}


def build(seed: int = 1, **changes: Any) -> RTagger:
    settings: dict[str, Any] = {
        "side": SIDE,
        "levels": ("conv:2:3:1 lstm:3:3", "conv:3:3:2 gru:2:3", "dense-lstm:4"),
        "groups": 3,
        "iterations": 3,
        "evaluation_iterations": 2,
        "noise": 0.3,
        "class_cost": 0.7,
        "segments": 3,
    }
    model = RTagger(RTaggerConfig(**settings | changes), generator=torch.Generator().manual_seed(seed)).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():  # off their start, where an order error could hide behind zeros and ones
        for value in model.parameters():
            value.add_(torch.from_numpy(np.asarray(0.4 * rng.standard_normal(tuple(value.shape)))))
    return model


def settings_of(model: RTagger) -> Any:
    config = model.config
    same = ("groups", "iterations", "likelihood", "noise", "initial_z", "classes", "class_cost")

    def word(text: str) -> tuple[Any, ...]:
        kind, *numbers = text.split(":")
        return (kind, *map(int, numbers))

    ladder = recurrent.Settings(
        levels=tuple(tuple(word(text) for text in level.split()) for level in config.levels),
        frame=(4, *SIDE),
        decoder_cell=config.decoder_cell,
        feedback=config.feedback,
        normalisation=config.norm,
    )
    grouping = tagger.Settings(**{name: getattr(config, name) for name in same})
    return reference.Settings(grouping=grouping, ladder=ladder, stateful=config.stateful, frames=config.frames)


def numbers(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def images(model: RTagger, rng: np.random.Generator, rows: int) -> np.ndarray:
    """(frames, rows, pixels), in 0..1, or 0 and 1."""
    x = rng.uniform(size=(model.config.frames, rows, PIXELS))
    return (x < 0.4).astype(float) if model.config.likelihood == "binary" else x


def laid_out(x: np.ndarray) -> torch.Tensor:
    """As the network reads it: (rows, pixels), or (rows, frames, height, width)."""
    return torch.from_numpy(x[0] if len(x) == 1 else x.transpose(1, 0, 2).reshape(-1, len(x), *SIDE).copy())


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_costs_and_slopes(changes: dict[str, Any]) -> None:
    model, rng = build(**changes), np.random.default_rng(2)
    config, settings = model.config, settings_of(model)
    n_lab, n_unl = N_LAB * (config.classes > 0), N_UNL * config.unlabelled
    x, y = images(model, rng, n_lab + n_unl), np.eye(3)[[2, 0]]
    noise = rng.standard_normal((max(1, config.frames - 1), *x.shape[1:]))
    draws = rng.standard_normal((config.groups, *x.shape[1:]))

    def cost_of(params: dict[str, np.ndarray]) -> Any:
        return reference.cost(params, settings, x, y[:n_lab], noise, draws)

    total, each, supervised = cost_of(numbers(model))
    rows = laid_out(x)
    spare = laid_out(images(model, rng, 2))  # of which nothing is to come
    batch = Batch(rows[:n_lab] if n_lab else spare, torch.tensor([2, 0]), rows[n_lab:] if n_unl else spare)
    laid = torch.from_numpy(np.concatenate([noise.ravel(), draws.ravel()]))
    assert len(laid) == model.noise_size(N_LAB, N_UNL)
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in config.hyper().items()}
    found, terms = model.cost(batch, laid, hyper)
    expected = [total, *[supervised] * (config.classes > 0), *each]
    assert len(terms) == len(model.term_names)
    np.testing.assert_allclose(terms.detach().numpy(), expected, rtol=1e-9)

    params, gradients = numbers(model), torch.autograd.grad(found, list(model.parameters()), allow_unused=True)
    for (name, value), gradient in zip(params.items(), gradients, strict=True):
        for i in rng.choice(value.size, min(3, value.size), replace=False):
            moved = value.astype(complex)
            moved.flat[i] += 1j * tagger.STEP
            slope = cost_of(params | {name: moved})[0].imag / tagger.STEP
            here = 0.0 if gradient is None else gradient.numpy().flat[i]
            np.testing.assert_allclose(here, slope, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("statistics", ["batch", "stored"])
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_evaluation(changes: dict[str, Any], statistics: str) -> None:
    model, rng, rows = build(**changes, statistics=statistics), np.random.default_rng(5), 5
    config, params, settings = model.config, numbers(model), settings_of(model)
    steps = config.evaluation_iterations if config.frames == 1 else config.frames - 1
    seen_frames = max(1, config.frames - 1)
    draws = np.random.default_rng(1).standard_normal(rows * (seen_frames + config.groups) * PIXELS, dtype=np.float32)
    noise, first = np.split(draws.astype(float), [seen_frames * rows * PIXELS])
    noise, first = noise.reshape(seen_frames, rows, PIXELS), first.reshape(config.groups, rows, PIXELS)

    def iterate(x: np.ndarray, norms: Any) -> Any:
        observed = [tagger.corrupted(settings.grouping, x[i], noise[i]) for i in range(seen_frames)]
        observed = observed * steps if config.frames == 1 else observed
        return observed, reference.iterate(params, settings, observed, tagger.over_groups(list(first)), norms)

    minibatches = [images(model, rng, rows) for _ in range(2)]
    norms = recurrent.Norms(params)
    for one in minibatches:
        iterate(one, norms)
    expected = norms.averages()
    values = model.statistics(torch.stack([laid_out(one) for one in minibatches]))
    assert values.keys() == {name for name, _ in model.named_buffers()} <= expected.keys()
    for name, value in values.items():
        np.testing.assert_allclose(value.detach().numpy(), expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
    model.load_state_dict({name: value.detach() for name, value in values.items()}, strict=False)

    x, y = images(model, rng, rows), np.array([0, 1, 2, 0, 1])
    observed, found = iterate(x, recurrent.Norms(params, expected if statistics == "stored" else None))
    segments = rng.integers(-1, 2, (rows, config.frames, PIXELS))
    given = laid_out(x)
    with torch.no_grad():
        seen, out = model.trace(given), model(given)
        scores = model.scores(given, torch.from_numpy(y), torch.from_numpy(segments)).numpy()
    by_name = dict(zip((*model.measures, "rows"), scores, strict=True))
    assert by_name["rows"] == rows
    np.testing.assert_allclose(seen.corrupted.numpy(), observed, rtol=1e-12)
    np.testing.assert_allclose(seen.z.transpose(1, 2).numpy(), [one.z for one in found], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(seen.m.transpose(1, 2).numpy(), [one.m for one in found], rtol=1e-9, atol=1e-12)

    from sklearn.metrics import adjusted_mutual_info_score

    by_step = []
    for i, one in enumerate(found):
        true = segments[:, 0] if config.frames == 1 else segments[:, i + 1]
        groups = np.argmax(one.m, axis=0)
        by_step.append(
            sum(
                adjusted_mutual_info_score(a[a >= 0], b[a >= 0], average_method="max")
                for a, b in zip(true, groups, strict=True)
            )
        )
        np.testing.assert_allclose(by_name[f"ami_{i + 1}"], by_step[-1], rtol=1e-9, atol=1e-12)
    whole = by_step[-1] if config.frames == 1 else np.mean(by_step)
    np.testing.assert_allclose(by_name["ami"], whole, rtol=1e-9, atol=1e-12)
    if config.classes:
        probabilities = tagger.classes(found[-1].top)
        np.testing.assert_allclose(out.numpy(), probabilities, rtol=1e-9)
        assert by_name["error"] == sum(probabilities.argmax(1) != y)
