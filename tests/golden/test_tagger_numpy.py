"""The torch Tagger against a plain NumPy one: costs, slopes and evaluation, to 1e-9 in float64."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from ladder_search.models.tagger import Tagger, TaggerConfig
from ladder_search.nn.protocol import Batch


def _load_reference() -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location("numpy_tagger", Path(__file__).with_name("numpy_tagger.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()

PIXELS, N_LAB, N_UNL = 7, 3, 4

CASES: dict[str, dict[str, Any]] = {
    "binary, ln": {},
    "binary, bn": {"norm": "bn"},
    "continuous, ln": {"likelihood": "continuous"},
    "continuous, bn": {"likelihood": "continuous", "norm": "bn"},
    "binary, classes": {"classes": 3, "widths": (6, 4)},
    "continuous, classes, bn": {"likelihood": "continuous", "norm": "bn", "classes": 3, "widths": (6, 5, 4)},
    "labelled rows only": {"likelihood": "continuous", "classes": 3, "widths": (6, 5, 4), "unlabelled": False},
    "one iteration": {"iterations": 1},
    "four levels": {"widths": (6, 5, 4, 3), "groups": 2},
}


def build(seed: int = 1, **changes: Any) -> Tagger:
    settings: dict[str, Any] = {
        "pixels": PIXELS,
        "widths": (6, 5, 4),
        "groups": 3,
        "iterations": 3,
        "evaluation_iterations": 4,
        "noise": 0.3,
        "class_cost": 0.7,
    }
    model = Tagger(TaggerConfig(**settings | changes), generator=torch.Generator().manual_seed(seed)).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():  # off their start, where an order error could hide behind zeros and ones
        for value in model.parameters():
            value.add_(torch.from_numpy(np.asarray(0.4 * rng.standard_normal(tuple(value.shape)))))
    return model


def settings_of(model: Tagger) -> Any:
    config = model.config
    same = ("groups", "iterations", "likelihood", "noise", "initial_z", "classes", "class_cost", "norm")
    return reference.Settings(depth=model.depth, **{name: getattr(config, name) for name in same})


def numbers(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def images(model: Tagger, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Rows of pixels in 0..1, or 0 and 1."""
    x = rng.uniform(size=(rows, PIXELS))
    return (x < 0.4).astype(float) if model.config.likelihood == "binary" else x


def hyper_of(model: Tagger) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in model.config.hyper().items()}


@pytest.mark.parametrize(
    ("changes", "k_hot"),
    [*((case, False) for case in CASES.values()), *((case, True) for case in CASES.values() if "classes" in case)],
    ids=[*CASES, *(f"{name}, k-hot" for name, case in CASES.items() if "classes" in case)],
)
def test_costs_and_slopes(changes: dict[str, Any], k_hot: bool) -> None:
    model, rng = build(**changes), np.random.default_rng(2)
    config, settings = model.config, settings_of(model)
    n_lab, n_unl = N_LAB * (config.classes > 0), N_UNL * config.unlabelled
    x = images(model, rng, n_lab + n_unl)
    y = np.eye(3)[[2, 0, 1]]
    if k_hot:
        y[1, 1] = 1.0  # of two classes
    noise, draws = rng.standard_normal(x.shape), rng.standard_normal((config.groups, *x.shape))

    def cost_of(params: dict[str, np.ndarray]) -> Any:
        return reference.cost(params, settings, x, y[:n_lab], noise, draws)

    total, each, supervised = cost_of(numbers(model))
    given = torch.from_numpy(y).long() if k_hot else torch.tensor([2, 0, 1])
    rows = torch.from_numpy(x)
    labelled = rows[:n_lab] if n_lab else torch.rand(N_LAB, PIXELS).double()  # of which nothing is to come
    unlabelled = rows[n_lab:] if n_unl else torch.rand(N_UNL, PIXELS).double()
    laid = torch.from_numpy(np.concatenate([noise.ravel(), draws.ravel()]))
    assert len(laid) == model.noise_size(N_LAB, N_UNL)
    found, terms = model.cost(Batch(labelled, given, unlabelled), laid, hyper_of(model))
    expected = [total, *[supervised] * (config.classes > 0), *each]
    assert len(terms) == len(model.term_names)
    np.testing.assert_allclose(terms.detach().numpy(), expected, rtol=1e-9)
    assert found == terms[0]

    params, gradients = numbers(model), torch.autograd.grad(found, list(model.parameters()), allow_unused=True)
    for (name, value), gradient in zip(params.items(), gradients, strict=True):
        assert gradient is not None, name
        for i in range(value.size):
            moved = value.astype(complex)
            moved.flat[i] += 1j * reference.STEP
            slope = cost_of(params | {name: moved})[0].imag / reference.STEP
            np.testing.assert_allclose(gradient.numpy().flat[i], slope, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_evaluation(changes: dict[str, Any]) -> None:
    model, rng, rows = build(**changes), np.random.default_rng(5), 6
    config, params, settings = model.config, numbers(model), settings_of(model)
    x, y = images(model, rng, rows), np.array([0, 1, 2, 0, 1, 2])
    # Of several pixels each: an AMI of single pixels is a quotient of roundings.
    segments = np.stack([rng.permutation([0, 0, 0, 1, 1, 1, -1]) for _ in range(rows)])
    given = torch.from_numpy(x)
    with torch.no_grad():
        seen, out = model.trace(given), model(given)
        scores = model.scores(given, torch.from_numpy(y), torch.from_numpy(segments)).numpy()
    by_name = dict(zip((*model.measures, "rows"), scores, strict=True))
    assert by_name["rows"] == rows

    draws = (
        np.random.default_rng(1).standard_normal(rows * (1 + config.groups) * PIXELS, dtype=np.float32).astype(float)
    )
    noise, first = draws[: x.size].reshape(x.shape), draws[x.size :].reshape(config.groups, *x.shape)
    observed = [reference.corrupted(settings, x, noise)] * config.evaluation_iterations
    found = reference.iterate(params, settings, observed, reference.over_groups(list(first)))
    np.testing.assert_allclose(seen.corrupted.numpy(), observed, rtol=1e-12)
    np.testing.assert_allclose(seen.z.transpose(1, 2).numpy(), [one.z for one in found], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(seen.m.transpose(1, 2).numpy(), [one.m for one in found], rtol=1e-9, atol=1e-12)
    for i, one in enumerate(found, 1):
        for normaliser, name in (("max", f"ami_{i}"), ("max", "ami"), ("arithmetic", "ami_arithmetic")):
            if i < len(found) and name in ("ami", "ami_arithmetic"):
                continue
            groups = np.argmax(one.m, axis=0)
            each = [
                adjusted_mutual_info_score(true[true >= 0], group[true >= 0], average_method=normaliser)
                for true, group in zip(segments, groups, strict=True)
            ]
            np.testing.assert_allclose(by_name[name], sum(each), rtol=1e-9, atol=1e-12, err_msg=name)
    if config.classes:
        probabilities = [reference.classes(one.top) for one in found]
        np.testing.assert_allclose(seen.probabilities.numpy(), probabilities, rtol=1e-9)
        np.testing.assert_allclose(out.numpy(), probabilities[-1], rtol=1e-9)
        assert by_name["error"] == sum(probabilities[-1].argmax(1) != y)
    else:
        np.testing.assert_allclose(out.transpose(0, 1).numpy(), found[-1].m, rtol=1e-9, atol=1e-12)
