"""The music baselines against plain NumPy ones: costs, every gradient, states and scores, to 1e-9 in float64."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.models.sequence import SequenceConfig, SequenceNetwork
from ladder_search.nn.protocol import Windows


def _load_reference() -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location("numpy_sequence", Path(__file__).with_name("numpy_sequence.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()

ROWS, WIDTH, NOTES = 3, 7, 4
KINDS = ("rnn", "gru", "lstm", "tcn")


def assert_close(found: Any, expected: Any, what: str = "") -> None:
    """To a relative 1e-9 of every entry; entries that nearly cancel are held to 1e-12 of the largest one."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    tolerance = 1e-12 * max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=tolerance, err_msg=what)


class Case:
    """One random network and one step's windows, for both implementations."""

    def __init__(self, kind: str, **changes: Any) -> None:
        sizes = {"hidden": 5, "layers": 2, "kernel": 3, "dropout": 0.4, "weight_decay": 0.03} | changes
        self.config = SequenceConfig(kind=kind, notes=NOTES, **sizes)
        rng = np.random.default_rng(1)
        self.model = SequenceNetwork(self.config, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():  # off their start, where an order error could hide behind zeros and ones
            for value in self.model.parameters():
                value.add_(torch.from_numpy(0.4 * rng.standard_normal(tuple(value.shape))))
        self.params = {name: value.detach().numpy().copy() for name, value in self.model.named_parameters()}
        c = self.config
        self.settings = reference.Settings(
            kind=kind, layers=c.layers, kernel=c.kernel, dropout=c.dropout, weight_decay=c.weight_decay
        )
        self.inputs = rng.integers(0, 2, (ROWS, WIDTH, NOTES)).astype(float)
        self.targets = rng.integers(0, 2, (ROWS, WIDTH, NOTES)).astype(float)
        self.scored = np.arange(WIDTH) < np.array([[WIDTH], [3], [5]])
        self.scored[1, 0] = False
        self.carried = {name: rng.standard_normal((ROWS, *shape)) for name, shape in self.model.carried.items()}
        dropouts = c.layers * (2 if kind == "tcn" else 1)
        self.normals = rng.standard_normal((dropouts, ROWS, WIDTH, c.hidden))

    def cost(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        tensors = map(torch.from_numpy, (self.inputs, self.targets, self.scored, self.scored))
        windows = Windows(*tensors, {name: torch.from_numpy(value) for name, value in self.carried.items()})
        noise = torch.from_numpy(self.normals.ravel())
        assert len(noise) == self.model.noise_size(ROWS * WIDTH, 0)
        hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.config.hyper().items()}
        return self.model.cost(windows, noise, hyper)


@pytest.mark.parametrize("changes", [{}, {"layers": 1, "hidden": NOTES, "dropout": 0.0}], ids=["deep", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_costs_states_and_every_gradient(kind: str, changes: dict[str, Any]) -> None:
    case = Case(kind, **changes)
    given = (case.inputs, case.targets, case.scored, case.carried, case.normals)
    cost, supervised, after = reference.train_step(case.params, case.settings, *given)
    total, terms, carried = case.cost()
    assert_close(total.item(), cost, "cost")
    named = dict(zip(case.model.term_names, terms.tolist(), strict=True))
    assert named.keys() == {"cost", "cost_supervised", "cost_decay"}
    assert_close(named["cost"], cost, "cost")
    assert_close(named["cost_supervised"], supervised, "cost_supervised")
    assert_close(named["cost_decay"], cost - supervised, "cost_decay")
    assert carried.keys() == after.keys() == case.carried.keys()
    for name, value in after.items():
        assert_close(carried[name].numpy(), value, name)

    total.backward()
    slopes = reference.gradients(case.params, case.settings, *given)
    for name, value in case.model.named_parameters():
        assert value.grad is not None, name
        assert_close(value.grad.numpy(), slopes[name], name)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_probabilities(kind: str) -> None:
    case = Case(kind)
    silence = {name: np.zeros_like(value) for name, value in case.carried.items()}
    found, _ = reference.logits(case.params, case.settings, case.inputs, silence, None)
    inputs, targets, scored = map(torch.from_numpy, (case.inputs, case.targets, case.scored))
    with torch.no_grad():
        assert_close(case.model(inputs).numpy(), reference.sigmoid(found), "probabilities")
        nats, steps = case.model.scores(inputs, targets, scored).tolist()
    assert_close(nats, reference.nats(found, case.targets, case.scored), "nats")
    assert steps == case.scored.sum() == 7 + 2 + 5
