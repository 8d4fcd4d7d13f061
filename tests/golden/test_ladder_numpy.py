"""The torch ladder against a plain NumPy one: costs, gradients, Adam and evaluation, to a relative 1e-9 in float64."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.splits import Split
from ladder_search.data.streams import LABELLED, UNLABELLED, BatchStream
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.combinators import COMBINATORS, MLP_EXAMPLES
from ladder_search.nn.protocol import Batch
from ladder_search.training.noise import fill_normals, noise_keys
from ladder_search.training.pack import MemberSpec, MemberState, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig


def _load_reference() -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location("numpy_ladder", Path(__file__).with_name("numpy_ladder.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()

WIDTHS = (64, 30, 20, 15, 10)
NOISE = (0.3, 0.2, 0.4, 0.1, 0.25)  # all different: a sigma at the wrong layer shows
KINDS: dict[str, dict[str, Any]] = {
    "full": {"lambda_": (1000.0, 10.0, 0.1, 0.3, 0.7)},
    "bottom-only": {"lambda_": (5000.0, 0.0, 0.0, 0.0, 0.0)},
    "gamma": {"lambda_": (0.0, 0.0, 0.0, 0.0, 2.0), "decoder": "gamma"},
    "supervised": {"lambda_": (0.0,) * 5, "decoder": "none"},
}
RELATIVE = 1e-9
"""Of every entry; entries that nearly cancel are held to 1e-12 of the largest one."""


def assert_close(found: Any, expected: Any, what: str = "") -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    np.testing.assert_allclose(found, expected, rtol=RELATIVE, atol=1e-12 * np.abs(expected).max(), err_msg=what)


@dataclass
class Case:
    """One random network and one step's inputs, for both implementations."""

    config: LadderConfig
    model: Ladder
    batch: Batch
    noise: list[np.ndarray]  # per layer, labelled rows first

    @property
    def settings(self) -> Any:
        c = self.config
        return reference.Settings(
            widths=c.widths,
            noise_std=c.noise_std,
            lambda_=c.lambda_,
            decoder=c.decoder,
            combinator=c.combinator,
            lateral=c.lateral,
            slope=0.1 if c.activation == "leaky-relu" else 0.0,
        )

    def cost(self) -> tuple[torch.Tensor, dict[str, float]]:
        rows = None if self.config.decoded_layers else len(self.batch.y)  # the baseline has no unlabelled rows
        noise = torch.from_numpy(np.concatenate([layer[:rows].ravel() for layer in self.noise]))
        hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.config.hyper().items()}
        assert len(noise) == self.model.noise_size(len(self.batch.y), len(self.batch.x_unlabelled))
        total, terms = self.model.cost(self.batch, noise, hyper)
        return total, dict(zip(self.model.term_names, terms.tolist(), strict=True))

    def reference_step(self, *, backward: bool = True) -> Any:
        b = self.batch
        inputs = (b.x_labelled.numpy(), b.y.numpy(), b.x_unlabelled.numpy(), self.noise)
        return reference.train_step(to_reference(self.model), self.settings, *inputs, backward=backward)


def to_reference(model: torch.nn.Module) -> dict[str, Any]:
    """Parameters of the torch model under the reference's names."""
    values = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    layers = sorted({int(name.split(".")[1]) for name in values if name.startswith("g.")})
    found = {f"g{layer}": _combinator(values, f"g.{layer}.") for layer in layers}
    return found | {reference_name(name): value for name, value in values.items() if not name.startswith("g.")}


def reference_name(name: str) -> str:
    kind, *rest = name.split(".")
    if kind == "gamma":
        return kind
    shift = 0 if kind in ("V", "g") else 1  # W[0] and beta[0] belong to layer 1
    return f"{kind}{int(rest[0]) + shift}"


def _combinator(values: dict[str, np.ndarray], prefix: str) -> Any:
    own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    if len(own) == 1:
        return next(iter(own.values()))
    return [(own[f"weights.{i}"], own[f"biases.{i}"]) for i in range(len(own) // 2)]


def make_case(n_lab: int = 100, n_unl: int = 100, seed: int = 1, **changes: Any) -> Case:
    config = LadderConfig(**{"widths": WIDTHS, "noise_std": NOISE} | changes)
    model = Ladder(config, generator=torch.Generator().manual_seed(seed)).double()
    rng = np.random.default_rng(seed)
    randomise(model, rng)
    digits = datasets.load("digits")
    rows = rng.permutation(len(digits.train_x))[: n_lab + n_unl]
    x = torch.from_numpy(digits.train_x[rows] / 16.0)
    y = torch.from_numpy(digits.train_y[rows[:n_lab]].astype(np.int64))
    noise = [rng.standard_normal((n_lab + n_unl, n)) for n in config.widths]
    return Case(config, model, Batch(x[:n_lab], y, x[n_lab:]), noise)


def randomise(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Move beta, gamma and the combinators off their start, where an order error could hide behind zeros and ones."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.startswith(("W", "V")):
                value.add_(torch.from_numpy(0.4 * rng.standard_normal(tuple(value.shape))))


def assert_same_terms(case: Case, expected: Any) -> torch.Tensor:
    total, terms = case.cost()
    assert_close(total.item(), expected.cost, "cost")
    assert_close(terms.pop("cost"), expected.cost, "cost")
    assert_close(terms.pop("cost_supervised"), expected.supervised, "cost_supervised")
    assert sorted(terms) == sorted(f"cost_denoising_{layer}" for layer in expected.denoising)
    for layer, value in expected.denoising.items():
        assert_close(terms[f"cost_denoising_{layer}"], value, f"cost_denoising_{layer}")
    return total


@pytest.mark.parametrize("n_lab", [100, 50])
@pytest.mark.parametrize("combinator", ["gauss", "vanilla"])
@pytest.mark.parametrize("kind", KINDS)
def test_costs_and_every_gradient(kind: str, combinator: str, n_lab: int) -> None:
    case = make_case(n_lab, combinator=combinator, **KINDS[kind])
    expected = case.reference_step()
    total = assert_same_terms(case, expected)
    total.backward()
    gradients = {reference_name(name): value.grad for name, value in case.model.named_parameters()}
    assert gradients.keys() == expected.gradients.keys()
    for name, value in expected.gradients.items():
        assert gradients[name] is not None, name
        assert_close(gradients[name].numpy(), value, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "leaky-relu"},
        {"lateral": False},
        {"lateral": False, "combinator": "vanilla"},
        {"noise_std": (0.0,) * 5},
    ],
    ids=str,
)
def test_other_settings(changes: dict[str, Any]) -> None:
    case = make_case(50, **KINDS["full"] | changes)
    expected = case.reference_step()
    assert_same_terms(case, expected).backward()
    for name, value in case.model.named_parameters():
        assert value.grad is not None
        assert_close(value.grad.numpy(), expected.gradients[reference_name(name)], name)


@pytest.mark.parametrize("kind", ["full", "gamma"])
@pytest.mark.parametrize(
    "combinator", [name for name in (*COMBINATORS, *MLP_EXAMPLES) if name not in reference.BACKWARD]
)
def test_costs_under_the_other_combinators(combinator: str, kind: str) -> None:
    case = make_case(50, combinator=combinator, **KINDS[kind])
    assert_same_terms(case, case.reference_step(backward=False))


@pytest.mark.parametrize("combinator", ["gauss", "vanilla"])
def test_the_references_own_gradients_are_the_slopes_of_its_cost(combinator: str) -> None:
    case = make_case(8, 12, combinator=combinator, widths=(64, 7, 6, 5, 4), lambda_=(20.0, 10.0, 0.1, 0.3, 0.7))
    b = case.batch
    inputs = (b.x_labelled.numpy(), b.y.numpy() % 4, b.x_unlabelled.numpy(), case.noise)
    params = to_reference(case.model)
    gradients = reference.train_step(params, case.settings, *inputs).gradients
    rng = np.random.default_rng(0)
    for name, value in params.items():
        direction = rng.standard_normal(value.shape)
        costs = [
            reference.train_step(params | {name: value + h * direction}, case.settings, *inputs, backward=False).cost
            for h in (-1e-6, 1e-6)
        ]
        slope = (costs[1] - costs[0]) / 2e-6
        np.testing.assert_allclose((gradients[name] * direction).sum(), slope, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("n_labelled", [100, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation(kind: str, n_labelled: int) -> None:
    """Twelve steps over four epochs with a falling rate, then the test error, against the reference's own loop."""
    seed, lr, scale = 5, 0.01, [1.0, 1.0, 2 / 3, 1 / 3]  # four epochs, decay from the first completed one
    case = make_case(seed=seed, **KINDS[kind])
    digits = datasets.load("digits")
    rows = np.random.default_rng(3).permutation(len(digits.train_x))
    split = Split(labelled=rows[:n_labelled], unlabelled=rows[:1200], validation=rows[1200:])
    training = TrainingConfig(
        epochs=4, lr=lr, decay_start=0.25, labelled_batch=40, unlabelled_batch=400, dtype="float64"
    )
    spec = MemberSpec(model=case.config, training=training, split=split, seed=seed)
    x, y = torch.from_numpy(digits.train_x.copy()), torch.from_numpy(digits.train_y.astype(np.int64))
    pack = Pack(spec, Ladder, TrainingData(x=x, y=y, full_scale=16.0))
    start = {name: value.detach() for name, value in case.model.named_parameters()}
    zeros = {name: torch.zeros_like(value) for name, value in start.items()}
    slot = pack.join(spec, state=MemberState(step=0, params=start, first=zeros, second=zeros))
    reports = [pack.run(3)[slot] for _ in range(4)]

    params = to_reference(case.model)
    adam = reference.Adam(params)
    labelled = BatchStream(split.labelled, 40, seed=seed, tag=LABELLED)
    unlabelled = BatchStream(split.unlabelled, 400, seed=seed, tag=UNLABELLED)
    pixels = digits.train_x / 16.0
    n_rows = 40 + (400 if case.config.decoded_layers else 0)
    keys = noise_keys(seed, 0, 12).tolist()
    costs = []
    for step in range(12):
        lab, unl = labelled.batch(step), unlabelled.batch(step)
        flat = torch.empty(n_rows * sum(WIDTHS), dtype=torch.float64)
        fill_normals(flat, keys[step])
        cut = np.split(flat.numpy(), n_rows * np.cumsum(WIDTHS)[:-1])
        draws = [layer.reshape(n_rows, -1) for layer in cut]
        if not case.config.decoded_layers:  # the reference corrupts unlabelled rows, too, which nothing reads
            draws = [np.concatenate([layer, np.zeros((400, layer.shape[1]))]) for layer in draws]
        inputs = (pixels[lab], digits.train_y[lab].astype(np.int64), pixels[unl], draws)
        found = reference.train_step(params, case.settings, *inputs)
        adam.update(params, found.gradients, lr * scale[step // 3])
        costs.append(found.cost)

    for number, report in enumerate(reports):
        assert_close(report.terms["cost"], np.mean(costs[3 * number : 3 * number + 3]), f"cost of epoch {number + 1}")
        assert_close(report.learning_rate, lr * scale[number], "learning rate")
    module = pack.module(slot)
    for name, value in to_reference(module).items():
        assert_close(value, params[name], name)

    # An epoch has three steps, so the statistics are averages over three labelled minibatches.
    minibatches = [pixels[labelled.batch(number)] for number in range(3)]
    means, variances = reference.evaluation_statistics(params, case.settings, minibatches)
    for layer in range(1, case.config.depth + 1):
        assert_close(module.get_buffer(f"mean_{layer}").numpy(), means[layer - 1], f"mean of layer {layer}")
        assert_close(module.get_buffer(f"variance_{layer}").numpy(), variances[layer - 1], f"variance of layer {layer}")
    probabilities = reference.classify(params, case.settings, means, variances, digits.test_x / 16.0)
    found = module(torch.from_numpy(digits.test_x / 16.0))
    assert_close(found.detach().numpy(), probabilities, "probabilities")
    x, y = torch.from_numpy(digits.test_x.copy()), torch.from_numpy(digits.test_y.astype(np.int64))
    test = TrainingData(x=x, y=y, full_scale=16.0)
    assert pack.test_errors(test)[slot] == np.mean(probabilities.argmax(axis=1) != digits.test_y)
    held_out = reference.classify(params, case.settings, means, variances, pixels[split.validation]).argmax(axis=1)
    assert pack.validation_errors()[slot] == np.mean(held_out != digits.train_y[split.validation])
