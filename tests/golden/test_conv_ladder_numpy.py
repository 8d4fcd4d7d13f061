"""The torch conv ladder against a plain NumPy one: costs, every gradient and evaluation, to 1e-9 in float64."""

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

from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.nn.protocol import Batch


def _load_reference() -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location("numpy_conv_ladder", Path(__file__).with_name("numpy_conv_ladder.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()

IMAGE = (2, 5, 4)  # channels, height and width all different: a transposed axis shows
# Tiny relatives of the paper's three networks, and one with a stride and a map that is fully connected.
NETWORKS: dict[str, tuple[str, ...]] = {
    "conv-small": ("convf:3:3:1", "maxpool:2:2", "convv:3:2:1", "convf:2:2:1", "convv:3:1:1", "globalmeanpool", "fc:3"),
    "conv-large": ("convv:3:2:1", "convf:2:3:1", "maxpool:2:2", "convv:3:1:1", "globalmeanpool"),
    "strides": ("convf:3:3:2", "convv:2:2:2", "fc:4", "fc:3"),
    "pool first": ("maxpool:2:2", "convv:3:2:1", "fc:3"),
}
KINDS = ("full", "gamma", "none")
N_LAB, N_UNL, CLASSES = 6, 5, 3


def assert_close(found: Any, expected: Any, what: str = "") -> None:
    """To a relative 1e-9 of every entry; entries that nearly cancel are held to 1e-12 of the largest one.

    The mean of what was normalised and then pooled is zero but for rounding: below 1e-3 all is held to 1e-15.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    tolerance = 1e-12 * max(float(np.abs(expected).max()), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=tolerance, err_msg=what)


@dataclass
class Case:
    """One random network and one step's inputs, for both implementations."""

    config: ConvLadderConfig
    model: ConvLadder
    x: np.ndarray  # (rows, channels, height, width), labelled rows first
    y: np.ndarray
    noise: list[np.ndarray]  # per layer, (rows, channels, height, width)

    @property
    def settings(self) -> Any:
        c = self.config
        read = (text.split(":") for text in c.layers)
        layers = [(kind, *map(int, numbers[:1] if kind == "maxpool" else numbers)) for kind, *numbers in read]
        return reference.Settings(
            image=c.image,
            layers=tuple(layers),
            noise_std=c.noise_std,
            lambda_=c.lambda_,
            decoder=c.decoder,
            lateral=c.lateral,
            slope=0.1 if c.activation == "leaky-relu" else 0.0,
        )

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.x[:N_LAB], self.y, self.x[N_LAB:], self.noise

    def cost(self) -> tuple[torch.Tensor, dict[str, float]]:
        rows = None if self.config.decoded_layers else N_LAB  # the baseline has no unlabelled rows
        laid = [draws[:rows].transpose(0, 2, 3, 1).ravel() for draws in self.noise]
        noise = torch.from_numpy(np.concatenate(laid))
        assert len(noise) == self.model.noise_size(N_LAB, N_UNL)
        flat = torch.from_numpy(self.x.reshape(len(self.x), -1))
        batch = Batch(flat[:N_LAB], torch.from_numpy(self.y), flat[N_LAB:])
        hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.config.hyper().items()}
        total, terms = self.model.cost(batch, noise, hyper)
        return total, dict(zip(self.model.term_names, terms.tolist(), strict=True))


def reference_name(name: str) -> str:
    kind, *rest = name.split(".")
    return kind if kind == "gamma" else f"{kind}{rest[0]}"


def to_reference(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Parameters of the torch model under the reference's names."""
    return {reference_name(name): value.detach().numpy().copy() for name, value in model.named_parameters()}


def make_case(network: str, decoder: str, seed: int = 1, **changes: Any) -> Case:
    layers = NETWORKS[network]
    depth, rng = len(layers), np.random.default_rng(seed)
    lambda_ = {"full": rng.uniform(0.5, 5.0, depth + 1), "gamma": [0.0] * depth + [2.0], "none": [0.0] * (depth + 1)}
    settings: dict[str, Any] = {
        "image": IMAGE,
        "layers": layers,
        "noise_std": tuple(rng.uniform(0.1, 0.5, depth + 1)),  # all different: a sigma at the wrong layer shows
        "lambda_": tuple(lambda_[decoder]),
        "decoder": decoder,
    }
    config = ConvLadderConfig(**settings | changes)
    model = ConvLadder(config, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():  # off their start, where an order error could hide behind zeros and ones
        for name, value in model.named_parameters():
            if not name.startswith(("W", "V")):
                value.add_(torch.from_numpy(0.4 * rng.standard_normal(tuple(value.shape))))
    noise = [rng.standard_normal((N_LAB + N_UNL, *size)) for size in config.network.sizes]
    x = rng.uniform(size=(N_LAB + N_UNL, *config.image))
    return Case(config, model, x, rng.integers(0, CLASSES, N_LAB), noise)


@pytest.mark.parametrize(
    ("network", "decoder", "changes"),
    [
        *((network, decoder, {}) for network in NETWORKS for decoder in KINDS),
        ("conv-small", "full", {"activation": "leaky-relu"}),
        ("conv-large", "full", {"lateral": False}),
        ("conv-large", "gamma", {"top_gamma": False, "activation": "leaky-relu"}),
        ("strides", "full", {"image": (1, 7, 7)}),
    ],
    ids=str,
)
def test_costs_and_every_gradient(network: str, decoder: str, changes: dict[str, Any]) -> None:
    case = make_case(network, decoder, **changes)
    params = to_reference(case.model)
    expected = reference.train_step(params, case.settings, *case.inputs)
    total, terms = case.cost()
    assert_close(total.item(), expected.cost, "cost")
    assert_close(terms.pop("cost"), expected.cost, "cost")
    assert_close(terms.pop("cost_supervised"), expected.supervised, "cost_supervised")
    assert sorted(terms) == sorted(f"cost_denoising_{layer}" for layer in expected.denoising)
    for layer, value in expected.denoising.items():
        assert_close(terms[f"cost_denoising_{layer}"], value, f"cost_denoising_{layer}")

    total.backward()
    slopes = reference.gradients(params, case.settings, *case.inputs)
    found = {reference_name(name): value.grad for name, value in case.model.named_parameters()}
    assert found.keys() == slopes.keys()
    for name, value in slopes.items():
        assert found[name] is not None, name
        assert_close(found[name].numpy(), value, name)


@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation(network: str) -> None:
    case = make_case(network, "gamma")
    rng = np.random.default_rng(7)
    minibatches = rng.uniform(size=(3, 8, *IMAGE))
    params = to_reference(case.model)
    means, variances = reference.evaluation_statistics(params, case.settings, minibatches)
    found = case.model.statistics(torch.from_numpy(minibatches.reshape(3, 8, -1)))
    assert found.keys() == {name for name, _ in case.model.named_buffers()}
    for layer in range(1, case.config.depth + 1):
        assert_close(found[f"mean_{layer}"].detach().numpy(), means[layer - 1], f"mean of layer {layer}")
        assert_close(found[f"variance_{layer}"].detach().numpy(), variances[layer - 1], f"variance of layer {layer}")

    case.model.load_state_dict(found, strict=False)
    x = rng.uniform(size=(4, *IMAGE))
    expected = reference.activations(params, case.settings, means, variances, x)
    features = case.model.features(torch.from_numpy(x.reshape(4, -1)))
    assert len(features) == len(expected) == case.config.depth + 1
    for layer, (mine, theirs) in enumerate(zip(features, expected, strict=True)):
        shape = (4, *case.config.network.sizes[layer]) if layer < case.config.depth else (4, CLASSES)
        assert_close(mine.detach().numpy(), theirs.reshape(shape), f"layer {layer}")
    probabilities = case.model(torch.from_numpy(x.reshape(4, -1))).detach().numpy()
    assert_close(probabilities, reference.softmax(expected[-1]), "probabilities")
