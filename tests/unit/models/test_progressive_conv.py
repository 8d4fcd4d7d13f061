"""Convolutional progressive columns against plain NumPy, where laterals go, what is frozen, and refused settings."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.errors import SettingError
from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.models.ladder import LadderConfig
from ladder_search.models.progressive_conv import ProgressiveConv, ProgressiveConvConfig
from ladder_search.nn.protocol import Batch
from ladder_search.studies import STUDIES


def _load(name: str) -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "golden" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


plain = _load("numpy_conv_ladder")

IMAGE = (2, 5, 4)
LAYERS = ("convf:3:3:1", "maxpool:2:2", "convv:4:2:1", "fc:5", "fc:3")
AS_TUPLES = (("convf", 3, 3, 1), ("maxpool", 2), ("convv", 4, 2, 1), ("fc", 5), ("fc", 3))
ROWS = 6


def randomised(module: Any, seed: int) -> Any:
    draws = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(torch.randn(value.shape, generator=draws, dtype=torch.float64))
            if "variance" in name:
                value.copy_(value.abs() + 0.5)
    return module


def source(seed: int, layers: tuple[str, ...] = LAYERS, image: tuple[int, int, int] = IMAGE) -> Any:
    zeros = (0.0,) * (len(layers) + 1)
    config = ConvLadderConfig(image=image, layers=layers, noise_std=zeros, lambda_=zeros, decoder="none")
    return randomised(ConvLadder(config, generator=torch.Generator()), seed)


def column(*sources: Any, **changes: Any) -> Any:
    config = ProgressiveConvConfig(**{"image": IMAGE, "layers": LAYERS, "alpha_init": (0.5,)} | changes)
    kept = [{name: value.clone() for name, value in one.state_dict().items()} for one in sources]
    model = randomised(ProgressiveConv(config, generator=torch.Generator(), sources=sources), 9)
    for one, values in zip(model.sources, kept, strict=False):
        one.load_state_dict(values)
    return model


def images(rows: int = ROWS) -> torch.Tensor:
    return torch.rand(rows, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def cost(model: Any) -> torch.Tensor:
    batch = Batch(images(), torch.arange(ROWS) % 3, images())
    total: torch.Tensor = model.cost(batch, torch.empty(0), {"weight_decay": torch.zeros(1, dtype=torch.float64)})[0]
    return total


def values(model: Any) -> dict[str, Any]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def joined(own: dict[str, Any], key: str, features: list[Any]) -> Any:
    """Source maps (rows, channels, …) or vectors, each times its alpha, side by side."""
    alpha = own.get(f"alpha.{key}", np.ones(len(features)))
    return np.concatenate([a * h for a, h in zip(alpha, features, strict=True)], axis=1)


def by_hand(model: Any, sources: list[Any]) -> float:
    """The cross-entropy of a training step, layer by layer in NumPy."""
    own, config = values(model), model.config
    x = images().numpy().reshape(-1, *IMAGE)
    seen = []
    for one in sources:
        state, h = values(one), [x]
        for i, layer in enumerate(AS_TUPLES, 1):
            z = plain.up(layer, h[-1], state.get(f"W.{i}"))
            mean, variance = (plain.spread(state[f"{what}_{i}"], z) for what in ("mean", "variance"))
            z = plain.normalised(z, mean, variance)
            if layer[0] != "maxpool":
                z = np.maximum(z + plain.spread(state[f"beta.{i}"], z), 0)
            h.append(z)
        seen.append(h)
    h = x
    for i, layer in enumerate(AS_TUPLES, 1):
        key, z, lateral = str(i), plain.up(layer, h, own.get(f"W.{i}")), None
        enters = i > 1 and layer[0] != "maxpool" and (config.laterals == "all" or layer[0] == "fc")
        if seen and enters:
            below = joined(own, key, [features[i - 1] for features in seen])
            if config.adapter == "rusu":
                v = own[f"V.{key}"][:, :, 0, 0]
                below = np.einsum("nc...,oc->no...", below, v)
                below = np.maximum(below + plain.spread(own[f"c.{key}"], below), 0)
            lateral = plain.up(layer, below, own[f"U.{key}"])
            if config.adapter == "sum":
                lateral = np.maximum(lateral + plain.spread(own[f"c.{key}"], lateral), 0)
            else:
                z = z + lateral
        z = plain.normalised(z, *plain.moments(z))
        if layer[0] != "maxpool":
            z = z + plain.spread(own[f"beta.{i}"], z)
            z = own["gamma"] * z if i == len(AS_TUPLES) else np.maximum(z, 0)
        h = z + lateral if lateral is not None and config.adapter == "sum" else z
    p = plain.softmax(h.reshape(ROWS, -1))
    return float(-np.log(p[np.arange(ROWS), np.arange(ROWS) % 3]).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adapter": "linear", "alpha": "absent"},
        {"adapter": "sum"},
        {"laterals": "connected", "adapter_width": 2},
        {"approach": "scratch"},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2], ids="{} sources".format)
def test_a_step_is_that_of_numpy(count: int, changes: dict[str, Any]) -> None:
    sources = [source(seed) for seed in range(count)]
    model = column(*sources, **changes)
    expected = by_hand(model, [] if changes.get("approach") == "scratch" else sources)
    assert float(cost(model).detach()) == pytest.approx(expected, rel=1e-9)


def test_laterals_enter_layers_with_weights_and_v_is_one_by_one() -> None:
    model = column(source(1), source(2))
    assert set(model.U) == {"3", "4", "5"}
    assert [tuple(model.V[key].shape) for key in "345"] == [(4, 6, 1, 1), (5, 8, 1, 1), (3, 10, 1, 1)]
    assert [tuple(model.U[key].shape) for key in "345"] == [(4, 4, 2, 2), (5, 5 * 3 * 2), (3, 3)]
    only = column(source(1), laterals="connected")
    assert set(only.U) == {"4", "5"}


def test_gradients_reach_all_of_the_column_and_nothing_of_its_sources() -> None:
    model = column(source(1))
    cost(model).backward()
    for name, value in model.named_parameters():
        assert (value.grad is None) == name.startswith("sources."), name


def test_a_fine_tuned_column_starts_as_its_source() -> None:
    theirs = source(1)
    config = ProgressiveConvConfig(image=IMAGE, layers=LAYERS, alpha_init=(1.0,), approach="fine-tuned")
    model = ProgressiveConv(config, generator=torch.Generator()).double()
    given = config.taken_over([theirs])
    assert set(given) == {name for name, _ in model.named_parameters()}
    statistics = {name: value for name, value in theirs.state_dict().items() if name.startswith(("mean", "variance"))}
    model.load_state_dict({**given, **statistics})
    torch.testing.assert_close(model(images()), theirs(images()))


def test_noise_moves_what_is_above_it() -> None:
    model = column(source(1))
    calm, size = model.features(images()), model.sizes[3]
    shaken = model.features(images(), noise={(1, 3): torch.ones(ROWS, *size, dtype=torch.float64)})
    torch.testing.assert_close(calm[3], shaken[3])
    assert not torch.allclose(calm[4], shaken[4])
    by_source = model.features(images(), noise={(0, 3): torch.ones(ROWS, *size, dtype=torch.float64)})
    assert not torch.allclose(calm[4], by_source[4])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"alpha_init": (1.0, 1.0)},
            r"model\.alpha_init must have 1 entry or one for each of the 3 layers .*, got 2; ",
        ),
        ({"adapter_width": 0}, r"model\.adapter_width must be at least 1 or null, got 0; "),
        ({"layers": ("convf:3:3:1",)}, r"the last of model\.layers must leave one number per class"),
    ],
)
def test_refused_settings(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=f"^{sentence}"):
        ProgressiveConvConfig(**{"image": IMAGE, "layers": LAYERS} | changes)


def test_sources_that_do_not_serve_are_refused() -> None:
    config = ProgressiveConvConfig(image=IMAGE, layers=LAYERS)
    smaller = ("convv:3:3:1", "maxpool:2:2", "convv:4:1:1", "fc:5", "fc:3")
    with pytest.raises(SettingError, match=r"enters layer 3 from source s must have the places .* 4 x 3, it has 2 x 1"):
        config.check_sources({"s": source(1, smaller).config})
    trial = STUDIES["svhn-conv-from-gamma"].trial()
    (name, stage), *_ = trial.sources.items()
    connected = replace(stage, family="ladder", model=LadderConfig())
    with pytest.raises(SettingError, match="a source of progressive-conv must be of the family ladder-conv, sources"):
        replace(trial, sources={name: connected})
    tuned = ProgressiveConvConfig(image=IMAGE, layers=LAYERS, approach="fine-tuned")
    with pytest.raises(SettingError, match="a fine-tuned column has the layers of its one source"):
        tuned.check_sources({"s": source(1, smaller).config})
