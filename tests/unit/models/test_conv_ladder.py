"""The convolutional ladder: parameters of the paper's networks, which cost trains what, variants, refused settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.nn.protocol import Batch

IMAGE = (2, 5, 4)
SMALL = ("convf:3:3:1", "maxpool:2:2", "convv:3:2:1", "globalmeanpool", "fc:3")
UNITS = (40, 3 * 7 * 6, 3 * 4 * 3, 3 * 3 * 2, 3, 3)
N_LAB, N_UNL = 8, 12

KINDS: dict[str, dict[str, Any]] = {
    "full": {"decoder": "full", "lambda_": (100.0, 10.0, 1.0, 0.5, 0.3, 0.2)},
    "bottom-only": {"decoder": "full", "lambda_": (100.0, *(0.0,) * 5)},
    "gamma": {"decoder": "gamma", "lambda_": (*(0.0,) * 5, 2.0)},
    "supervised": {"decoder": "none", "lambda_": (0.0,) * 6},
}


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes: Any) -> ConvLadder:
    """A small network with every parameter at random: at their starts, many have no gradient yet."""
    settings = {"image": IMAGE, "layers": SMALL, "noise_std": (0.3,) * 6} | KINDS["full"] | changes
    model = ConvLadder(ConvLadderConfig(**settings), generator=generator()).double()
    draws = generator(2)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=draws, dtype=torch.float64))
    return model


def batch_of(n_lab: int = N_LAB, n_unl: int = N_UNL) -> Batch:
    draws = generator(3)
    x = torch.rand(n_lab + n_unl, 40, generator=draws, dtype=torch.float64)
    return Batch(x[:n_lab], torch.randint(0, 3, (n_lab,), generator=draws), x[n_lab:])


def noise_of(model: ConvLadder) -> torch.Tensor:
    return torch.randn(model.noise_size(N_LAB, N_UNL), generator=generator(4), dtype=torch.float64)


def terms_of(
    model: ConvLadder, *, noise: torch.Tensor | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    hyper = model.config.hyper() | dict(changes or {})
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in hyper.items()}
    total, terms = model.cost(batch_of(), noise_of(model) if noise is None else noise, tensors)
    named = dict(zip(model.term_names, terms, strict=True))
    assert torch.equal(total, named["cost"])
    return named


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "layers", "weights", "filters_and_units"),
    [
        # 26*26*1000 + 1000*500 + 500*250 + 2*250*250 + 250*10; a beta for each, the pool at the top among them
        (
            (1, 28, 28),
            "convv:1000:26:1 convv:500:1:1 convv:250:1:1 convv:250:1:1 convv:250:1:1 convv:10:1:1 globalmeanpool",
            1_428_500,
            2270,
        ),
        # 25*32 + 9*32*64 + 9*64*64 + 9*64*128 + 128*10 + 10*10; pools have no beta
        (
            (1, 28, 28),
            "convf:32:5:1 maxpool:2:2 convv:64:3:1 convf:64:3:1 maxpool:2:2 convv:128:3:1 convv:10:1:1 globalmeanpool "
            "fc:10",
            131_204,
            308,
        ),
        # 27*96 + 2*9*96*96 + 9*96*192 + 3*9*192*192 + 192*192 + 192*10
        (
            (3, 32, 32),
            "convv:96:3:1 convf:96:3:1 convf:96:3:1 maxpool:2:2 convv:192:3:1 convf:192:3:1 convv:192:3:1 maxpool:2:2 "
            "convv:192:3:1 convv:192:1:1 convv:10:1:1 globalmeanpool",
            1_368_480,
            1268,
        ),
    ],
    ids=["Conv-FC", "Conv-Small", "Conv-Large"],
)
def test_parameter_counts_of_the_papers_networks(
    image: tuple[int, int, int], layers: str, weights: int, filters_and_units: int
) -> None:
    listed = tuple(layers.split())
    n = len(listed) + 1
    config = ConvLadderConfig(
        image=image, layers=listed, noise_std=(0.3,) * n, lambda_=(*(0.0,) * (n - 1), 1.0), decoder="gamma"
    )
    model = ConvLadder(config, generator=generator())
    assert sum(value.numel() for value in model.W.values()) == weights
    assert sum(value.numel() for value in model.beta.values()) == filters_and_units
    # Beside them, gamma of the ten classes, and the top's combinator: ten numbers for each class.
    assert sum(value.numel() for value in model.parameters()) == weights + filters_and_units + 10 + 100
    assert not model.V


def test_the_full_decoder_has_a_bank_of_filters_per_layer_and_combinators_by_channel() -> None:
    model = small()
    assert {name: tuple(value.shape) for name, value in model.V.items()} == {
        "0": (2, 3, 3, 3),
        "2": (3, 3, 2, 2),
        "4": (3, 3),
    }
    # Channels of layers 0..3, which lie below convolutions and pools; units of layer 4, below fc, and of the top.
    assert {name: tuple(g.a.shape) for name, g in model.g.items()} == {
        str(i): (10, n) for i, n in ((5, 3), (4, 3), (3, 3), (2, 3), (1, 3), (0, 2))
    }
    by_unit = small(layers=("convf:3:3:1", "fc:3"), noise_std=(0.3,) * 3, lambda_=(1.0,) * 3)
    assert {name: tuple(g.a.shape) for name, g in by_unit.g.items()} == {"2": (10, 3), "1": (10, 126), "0": (10, 2)}


def test_the_default_is_the_papers_conv_small_for_100_labels() -> None:
    config = ConvLadderConfig()
    assert config.image == (1, 28, 28) and config.depth == 9
    assert config.lambda_ == (*(0.0,) * 9, 1.0) and config.noise_std == (0.3,) * 10
    assert (config.decoder, config.combinator, config.activation, config.top_gamma) == ("gamma", "gauss", "relu", True)


@pytest.mark.parametrize(
    ("kind", "terms", "noisy_rows"),
    [
        ("full", [f"cost_denoising_{layer}" for layer in range(6)], 20),
        ("gamma", ["cost_denoising_5"], 20),
        ("supervised", [], 8),  # the baseline has no use for unlabelled rows
    ],
)
def test_terms_and_noise_of_a_step(kind: str, terms: list[str], noisy_rows: int) -> None:
    model = small(**KINDS[kind])
    assert model.term_names == ("cost", "cost_supervised", *terms)
    assert model.noise_size(8, 12) == noisy_rows * sum(UNITS)
    assert model.widest == 3 * 7 * 6
    found = terms_of(model)
    assert found["cost"].item() == pytest.approx(sum(found[name].item() for name in model.term_names[1:]), rel=1e-12)


@pytest.mark.parametrize(
    "layers",
    [SMALL, ("convf:3:3:2", "convv:2:2:2", "fc:4", "fc:3"), ("maxpool:2:2", "convv:3:2:1", "fc:3")],
    ids=["small", "strides", "pool first"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_of_the_products_that_run(kind: str, layers: tuple[str, ...]) -> None:
    n = len(layers) + 1
    lambda_ = {"gamma": (*(0.0,) * (n - 1), 1.0), "supervised": (0.0,) * n}.get(kind, (1.0,) * n)
    model = small(layers=layers, noise_std=(0.3,) * n, **KINDS[kind] | {"lambda_": lambda_})
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in model.config.hyper().items()}
    noise = torch.zeros(model.noise_size(5, 7), dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        model.cost(batch_of(5, 7), noise, hyper)[0].backward()
    assert model.config.flops(5, 7) == counter.get_total_flops()


def test_the_generator_alone_decides_the_start() -> None:
    before = torch.get_rng_state()
    config = small(combinator="amlp-4").config
    first, same, other = (ConvLadder(config, generator=generator(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["W.1"], other["W.1"])
    assert torch.equal(torch.get_rng_state(), before)


# --- which cost trains what -------------------------------------------------------------------------------------------

ENCODER = {"W.1", "W.3", "W.5", "beta.1", "beta.3", "beta.5", "gamma"}
TO_5 = ENCODER | {"g.5.a"}
TO_4 = TO_5 | {"V.4", "g.4.a"}
TO_3 = TO_4 | {"g.3.a"}  # a mean above it: nothing to learn on the way down
TO_2 = TO_3 | {"V.2", "g.2.a"}
TO_1 = TO_2 | {"g.1.a"}  # a pool above it
TO_0 = TO_1 | {"V.0", "g.0.a"}


def reached(kind: str) -> dict[str, set[str]]:
    below = [TO_0, TO_1, TO_2, TO_3, TO_4, TO_5]
    return {
        "full": {f"cost_denoising_{layer}": names for layer, names in enumerate(below)} | {"cost": TO_0},
        "bottom-only": {f"cost_denoising_{layer}": set() if layer else TO_0 for layer in range(6)} | {"cost": TO_0},
        "gamma": {"cost_denoising_5": TO_5, "cost": TO_5},
        "supervised": {"cost": ENCODER},
    }[kind] | {"cost_supervised": ENCODER}


@pytest.mark.parametrize("kind", KINDS)
def test_every_cost_reaches_exactly_what_it_trains(kind: str) -> None:
    model = small(**KINDS[kind])
    terms = terms_of(model)
    assert terms.keys() == reached(kind).keys()
    named = dict(model.named_parameters())
    for name, expected in reached(kind).items():
        gradients = torch.autograd.grad(terms[name], list(named.values()), retain_graph=True, allow_unused=True)
        found = {p for p, d in zip(named, gradients, strict=True) if d is not None and d.any()}
        assert found == expected, name


@pytest.mark.parametrize("combinator", ["gauss", "gated-gauss", "vanilla", "linear", "mlp-4", "amlp-2-2-2"])
# Not bottom-only: below a pool, a constant that a combinator adds is taken out again by the normalisation of u.
@pytest.mark.parametrize("kind", ["full", "gamma", "supervised"])
def test_every_parameter_gets_a_gradient(kind: str, combinator: str) -> None:
    model = small(combinator=combinator, **KINDS[kind])
    terms_of(model)["cost"].backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
        assert value.grad.any(), name


# --- variants are settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", range(6))
def test_every_layer_has_its_own_noise(layer: int) -> None:
    # Layer l's draws are the l-th stretch, and its sigma is entry l: entry 0 is the input's. Pools have noise, too.
    sigma = [0.0] * 6
    sigma[layer] = 0.5
    model = small(noise_std=tuple(sigma))
    begin = (N_LAB + N_UNL) * sum(UNITS[:layer])
    end = begin + (N_LAB + N_UNL) * UNITS[layer]
    noise = noise_of(model)
    kept = torch.zeros_like(noise)
    kept[begin:end] = noise[begin:end]
    found, same, without = terms_of(model), terms_of(model, noise=kept), terms_of(model, noise=torch.zeros_like(noise))
    assert all(torch.equal(found[name], same[name]) for name in found)
    assert not torch.equal(found["cost_supervised"], without["cost_supervised"])


def test_labelled_and_unlabelled_rows_are_normalised_apart() -> None:
    model = small(**KINDS["gamma"])
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in model.config.hyper().items()}
    noise = torch.zeros(model.noise_size(N_LAB, N_UNL), dtype=torch.float64)
    batch = batch_of()
    other = Batch(batch.x_labelled, batch.y, 3.0 * batch.x_unlabelled + 1.0)
    found, moved = (dict(zip(model.term_names, model.cost(b, noise, hyper)[1], strict=True)) for b in (batch, other))
    assert found["cost_supervised"].item() == pytest.approx(moved["cost_supervised"].item(), rel=1e-12)
    assert not torch.equal(found["cost_denoising_5"], moved["cost_denoising_5"])


def test_only_the_top_of_the_pools_has_beta_and_gamma() -> None:
    model = small(layers=(*SMALL[:3], "globalmeanpool"), noise_std=(0.3,) * 5, lambda_=(1.0,) * 5)
    assert set(model.beta) == {"1", "3", "4"}
    z = torch.randn(2, 4, 3, 3, generator=generator(), dtype=torch.float64)
    assert torch.equal(model.activate(z, 2), z)
    top = torch.randn(2, 1, 1, 3, generator=generator(), dtype=torch.float64)
    assert torch.allclose(model.activate(top, 4), model.gamma * (top + model.beta["4"]))
    without = small(layers=SMALL, top_gamma=False)
    assert without.gamma is None and "gamma" not in dict(without.named_parameters())
    assert torch.allclose(without.activate(top, 5), top + without.beta["5"])


def test_the_leaky_slope_is_0_1() -> None:
    for activation, factor in (("relu", 0.0), ("leaky-relu", 0.1)):
        model = small(activation=activation)
        z = torch.full((2, 7, 6, 3), -100.0, dtype=torch.float64)
        shifted = z + model.beta["1"]
        torch.testing.assert_close(model.activate(z, 1), factor * shifted, rtol=1e-12, atol=0.0)


def test_without_lateral_signals_the_noise_of_the_input_stays_out_of_its_estimate() -> None:
    model = small(lateral=False)
    with torch.no_grad():
        model.W["1"].zero_()  # then the input's noise gets into no layer above
    quiet, noisy = (terms_of(model, changes={"noise_std": [s, *[0.0] * 5]}) for s in (0.0, 0.5))
    assert quiet["cost_denoising_0"].item() == pytest.approx(noisy["cost_denoising_0"].item(), rel=1e-12)


def test_members_of_a_pack_may_differ_in_sigma_and_lambda_alone() -> None:
    config = small().config
    same = small(noise_std=(0.1,) * 6, lambda_=(2.0,) * 6, combinator_std=0.5).config
    assert same.signature() == config.signature()
    for changes in (
        {"lateral": False},
        {"activation": "leaky-relu"},
        {"combinator": "linear"},
        {"top_gamma": False},
        {"layers": (*SMALL[:-1], "fc:4")},
        KINDS["gamma"],
    ):
        assert small(**changes).config.signature() != config.signature()
    assert same.hyper() == {"noise_std": [0.1] * 6, "lambda_": [2.0] * 6}


def test_a_baseline_follows_the_network_of_a_changed_study() -> None:
    base = ConvLadderConfig(noise_std=(0.3, *(0.45,) * 9), lambda_=(0.0,) * 10, decoder="none")
    other = small(activation="leaky-relu", top_gamma=False).config
    found = base.on_network_of(other)
    assert (found.image, found.layers, found.activation, found.top_gamma) == (IMAGE, SMALL, "leaky-relu", False)
    assert (found.decoder, found.noise_std, found.lambda_) == ("none", (0.3, *(0.45,) * 5), (0.0,) * 6)
    assert base.on_network_of(base) == base


# --- classification ---------------------------------------------------------------------------------------------------


def test_classification_uses_the_stored_statistics_and_nothing_of_the_batch() -> None:
    model = small()
    x = batch_of().x_unlabelled
    model.load_state_dict(model.statistics(batch_of().x_labelled.unsqueeze(0)), strict=False)
    together = model(x)
    torch.testing.assert_close(together.sum(-1), torch.ones(N_UNL, dtype=torch.float64))
    for i in range(N_UNL):
        torch.testing.assert_close(model(x[i : i + 1])[0], together[i], rtol=1e-10, atol=1e-12)


# --- refused settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": ("convv:3:9:1", "fc:3")}, "a valid convolution needs a map at least as large as its 9 x 9 filters"),
        ({"image": (2, 0, 4)}, "model.image must be channels, height and width, each at least 1, got [2, 0, 4]"),
        ({"lambda_": (1.0,) * 5}, "model.lambda_ must have one entry per layer 0..5 (6 in all), got 5; give 6 numbers"),
        ({"noise_std": (0.3,) * 7}, "model.noise_std must have one entry per layer 0..5 (6 in all), got 7"),
        ({"noise_std": (0.3, 30.0, *(0.3,) * 4)}, "model.noise_std[1] must lie in [0, 10], got 30.0"),
        ({"combinator_std": -1.0}, "model.combinator_std must lie in [0, 10], got -1.0"),
        ({"decoder": "gamma"}, "with model.decoder=gamma only the top layer's weight may be above 0, got lambda_=["),
        ({"decoder": "none"}, "with model.decoder=none every weight must be 0, got lambda_=["),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=re.escape(says)) as caught:
        small(**changes)
    message = str(caught.value)
    assert message.endswith(".") and "; " in message and ". " not in message and "\n" not in message


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gauss'"):
        small(combinator="gaus")
    with pytest.raises(UnknownNameError, match="did you mean 'convf'"):
        small(layers=("comvf:3:3:1", "fc:3"))


@pytest.mark.parametrize(("pixels", "classes"), [(41, 3), (40, 10)])
def test_a_network_that_does_not_fit_its_data_is_refused(pixels: int, classes: int) -> None:
    config = small().config
    config.check_fits(40, 3, "tiny")
    with pytest.raises(
        SettingError, match=re.escape(f"hold the {pixels} numbers and model.layers end with the {classes}")
    ):
        config.check_fits(pixels, classes, "tiny")
