"""The ladder model: sizes, starts, which cost trains what, variants that are mere settings, and refused settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ladder_search.errors import LadderSearchError, SettingError, UnknownNameError
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.protocol import Batch

MNIST = (784, 1000, 500, 250, 250, 250, 10)
SMALL = (6, 5, 4, 3)
N_LAB, N_UNL = 8, 12

KINDS: dict[str, dict[str, Any]] = {
    "full": {"lambda_": (100.0, 10.0, 1.0, 0.5)},
    "bottom-only": {"lambda_": (100.0, 0.0, 0.0, 0.0)},
    "gamma": {"lambda_": (0.0, 0.0, 0.0, 2.0), "decoder": "gamma"},
    "supervised": {"lambda_": (0.0,) * 4, "decoder": "none"},
}


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes: Any) -> Ladder:
    """A small network with every parameter at random: at their starts, many have no gradient yet."""
    config = LadderConfig(**{"widths": SMALL, "noise_std": (0.3,) * 4, "lambda_": (1.0,) * 4} | changes)
    model = Ladder(config, generator=generator()).double()
    draws = generator(2)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=draws, dtype=torch.float64))
    return model


def batch_of(model: Ladder, n_lab: int = N_LAB, n_unl: int = N_UNL) -> Batch:
    draws = generator(3)
    x = torch.rand(n_lab + n_unl, model.config.widths[0], generator=draws, dtype=torch.float64)
    y = torch.randint(0, model.config.widths[-1], (n_lab,), generator=draws)
    return Batch(x[:n_lab], y, x[n_lab:])


def terms_of(
    model: Ladder, *, noise: torch.Tensor | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    hyper = model.config.hyper() | dict(changes or {})
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in hyper.items()}
    total, terms = model.cost(batch_of(model), noise_of(model) if noise is None else noise, tensors)
    named = dict(zip(model.term_names, terms, strict=True))
    assert torch.equal(total, named["cost"])
    return named


def noise_of(model: Ladder) -> torch.Tensor:
    return torch.randn(model.noise_size(N_LAB, N_UNL), generator=generator(4), dtype=torch.float64)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        # Encoder 784*1000 + 1000*500 + 500*250 + 2*250*250 + 250*10 = 1,536,500; beta 2,260; gamma 10.
        ("full", 2 * 1_536_500 + 2_260 + 10 + 10 * 3_044),  # V as large as W; ten combinator rows over 3,044 units
        ("bottom-only", 3_105_710),
        ("gamma", 1_536_500 + 2_260 + 10 + 10 * 10),
        ("supervised", 1_536_500 + 2_260 + 10),
    ],
)
def test_parameter_counts_of_mnists_networks(kind: str, count: int) -> None:
    lambda_ = {"full": (1000.0, 10.0, *(0.1,) * 5), "bottom-only": (5000.0, *(0.0,) * 6), "gamma": (*(0.0,) * 6, 0.5)}
    decoder = {"gamma": "gamma", "supervised": "none"}.get(kind, "full")
    config = LadderConfig(lambda_=lambda_.get(kind, (0.0,) * 7), decoder=decoder)
    model = Ladder(config, generator=generator())
    assert sum(value.numel() for value in model.parameters()) == count


def test_the_default_is_the_papers_network_for_100_labels() -> None:
    config = LadderConfig()
    assert config.widths == MNIST
    assert config.noise_std == (0.3,) * 7
    assert config.lambda_ == (1000.0, 10.0, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert (config.decoder, config.combinator, config.activation, config.lateral) == ("full", "gauss", "relu", True)
    assert sum(value.numel() for value in Ladder(config, generator=generator()).parameters()) == 3_105_710


@pytest.mark.parametrize(
    ("kind", "terms", "noisy_rows"),
    [
        ("full", ["cost_denoising_0", "cost_denoising_1", "cost_denoising_2", "cost_denoising_3"], 20),
        ("gamma", ["cost_denoising_3"], 20),
        ("supervised", [], 8),  # the baseline has no use for unlabelled rows
    ],
)
def test_terms_and_noise_of_a_step(kind: str, terms: list[str], noisy_rows: int) -> None:
    model = small(**KINDS[kind])
    assert model.term_names == ("cost", "cost_supervised", *terms)
    assert model.noise_size(8, 12) == noisy_rows * (6 + 5 + 4 + 3)
    found = terms_of(model)
    assert found["cost"].item() == pytest.approx(sum(found[name].item() for name in model.term_names[1:]), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [(8, 12), (5, 5)])
def test_flops_are_those_of_the_products_that_run(rows: tuple[int, int], kind: str) -> None:
    model = small(**KINDS[kind])
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in model.config.hyper().items()}
    noise = torch.zeros(model.noise_size(*rows), dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        model.cost(batch_of(model, *rows), noise, hyper)[0].backward()
    assert model.config.flops(*rows) == counter.get_total_flops()


# --- starts -----------------------------------------------------------------------------------------------------------


def test_weights_start_normal_with_variance_one_over_fan_in() -> None:
    model = Ladder(LadderConfig(), generator=generator())
    for i in range(6):
        for weight, shape in ((model.W[i], (MNIST[i + 1], MNIST[i])), (model.V[str(i)], (MNIST[i], MNIST[i + 1]))):
            assert weight.shape == shape
            scaled = weight.detach().double().numpy() * np.sqrt(shape[1])  # fan-in is what a unit sums over
            n = scaled.size
            assert abs(scaled.mean()) < 4 / np.sqrt(n)
            assert scaled.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / n))
            assert (scaled**4).mean() == pytest.approx(3.0, abs=4 * np.sqrt(96 / n))  # a uniform start would give 1.8
        assert not torch.equal(model.W[i].T, model.V[str(i)])  # untied


def test_everything_else_starts_at_zero_or_one() -> None:
    model = Ladder(LadderConfig(), generator=generator())
    assert all(not beta.any() for beta in model.beta)
    assert [len(beta) for beta in model.beta] == list(MNIST[1:])
    assert torch.equal(model.gamma, torch.ones(10))
    for name, value in model.named_buffers():
        assert torch.equal(value, torch.zeros_like(value) if name.startswith("mean") else torch.ones_like(value))


def test_the_generator_alone_decides_the_start() -> None:
    before = torch.get_rng_state()
    config = LadderConfig(widths=SMALL, noise_std=(0.3,) * 4, lambda_=(1.0,) * 4, combinator="amlp-4")
    first, same, other = (Ladder(config, generator=generator(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["W.0"], other["W.0"])
    assert torch.equal(torch.get_rng_state(), before)


# --- which cost trains what -------------------------------------------------------------------------------------------

ENCODER = {"W.0", "W.1", "W.2", "beta.0", "beta.1", "beta.2", "gamma"}
NOTHING: set[str] = set()

REACHED: dict[str, dict[str, set[str]]] = {
    "full": {
        "cost_supervised": ENCODER,
        "cost_denoising_3": ENCODER | {"g.3.a"},
        "cost_denoising_2": ENCODER | {"g.3.a", "V.2", "g.2.a"},
        "cost_denoising_1": ENCODER | {"g.3.a", "V.2", "g.2.a", "V.1", "g.1.a"},
        "cost_denoising_0": ENCODER | {"g.3.a", "V.2", "g.2.a", "V.1", "g.1.a", "V.0", "g.0.a"},
        "cost": ENCODER | {"g.3.a", "V.2", "g.2.a", "V.1", "g.1.a", "V.0", "g.0.a"},
    },
    "bottom-only": {  # the whole decoder runs and learns, for the sake of layer 0
        "cost_supervised": ENCODER,
        "cost_denoising_3": NOTHING,
        "cost_denoising_2": NOTHING,
        "cost_denoising_1": NOTHING,
        "cost_denoising_0": ENCODER | {"g.3.a", "V.2", "g.2.a", "V.1", "g.1.a", "V.0", "g.0.a"},
        "cost": ENCODER | {"g.3.a", "V.2", "g.2.a", "V.1", "g.1.a", "V.0", "g.0.a"},
    },
    "gamma": {
        "cost_supervised": ENCODER,
        "cost_denoising_3": ENCODER | {"g.3.a"},
        "cost": ENCODER | {"g.3.a"},
    },
    "supervised": {"cost_supervised": ENCODER, "cost": ENCODER},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_cost_reaches_exactly_what_it_trains(kind: str) -> None:
    model = small(**KINDS[kind])
    terms = terms_of(model)
    assert terms.keys() == REACHED[kind].keys()
    named = dict(model.named_parameters())
    for name, expected in REACHED[kind].items():
        gradients = torch.autograd.grad(terms[name], list(named.values()), retain_graph=True, allow_unused=True)
        reached = {p for p, d in zip(named, gradients, strict=True) if d is not None and d.any()}
        assert reached == expected, name


@pytest.mark.parametrize(
    "combinator", ["gauss", "gated-gauss", "vanilla", "no-sig", "no-mult", "linear", "mlp-4", "amlp-2-2-2"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str, combinator: str) -> None:
    model = small(combinator=combinator, **KINDS[kind])
    terms_of(model)["cost"].backward()
    top = dict(model.g.items()).get("3")
    last = len(getattr(top, "biases", ())) - 1  # of an MLP's biases, a constant that it adds
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
        if kind == "bottom-only" and name.endswith(f".biases.{last}") and not name.startswith("g.0."):
            # Where its layer has no cost, such a constant is taken out again by the normalisation of u below.
            assert value.grad.abs().max() < 1e-12, name
            continue
        assert value.grad.any(), name
        # Entry by entry where that can be asked: a relu unit may be silent on all rows of so small a batch, and rows of
        # a combinator's parameters are such constants, too.
        if name.startswith("g") and kind != "bottom-only":
            assert value.grad.all(), name


def test_at_the_start_the_decoder_learns_through_its_combinators() -> None:
    # z_hat = 0 everywhere: V has no gradient in the very first step, and gets one from the second on.
    model = Ladder(LadderConfig(widths=SMALL, noise_std=(0.3,) * 4, lambda_=(1.0,) * 4), generator=generator()).double()
    terms_of(model)["cost"].backward()
    assert all(not v.grad.any() for v in model.V.values())
    assert all(g.a.grad.any() for g in model.g.values())


# --- variants are settings --------------------------------------------------------------------------------------------


def test_without_noise_the_draws_do_not_matter() -> None:
    model = small(noise_std=(0.0,) * 4)
    found, other = terms_of(model), terms_of(model, noise=torch.full_like(noise_of(model), 7.0))
    assert all(torch.equal(found[name], other[name]) for name in found)


def test_first_noise_listens_to_the_inputs_draws_alone() -> None:
    model = small(noise_std=(0.3, 0.0, 0.0, 0.0))
    noise = noise_of(model)
    rest = noise.clone()
    rest[(N_LAB + N_UNL) * 6 :] = 7.0
    first = noise.clone()
    first[: (N_LAB + N_UNL) * 6] = 7.0
    found, same, other = (terms_of(model, noise=draws) for draws in (noise, rest, first))
    assert all(torch.equal(found[name], same[name]) for name in found)
    assert not any(torch.equal(found[name], other[name]) for name in found)


@pytest.mark.parametrize("layer", range(4))
def test_every_layer_has_its_own_noise(layer: int) -> None:
    # Layer l's draws are the l-th stretch, and its sigma is entry l: entry 0 is the input's.
    sigma = [0.0] * 4
    sigma[layer] = 0.5
    model = small(noise_std=tuple(sigma))
    bounds = np.cumsum([0, *((N_LAB + N_UNL) * n for n in SMALL)])
    noise = noise_of(model)
    kept = torch.zeros_like(noise)
    kept[bounds[layer] : bounds[layer + 1]] = noise[bounds[layer] : bounds[layer + 1]]
    found, same, without = terms_of(model), terms_of(model, noise=kept), terms_of(model, noise=torch.zeros_like(noise))
    assert all(torch.equal(found[name], same[name]) for name in found)
    assert not torch.equal(found["cost_supervised"], without["cost_supervised"])


def test_first_recons_costs_the_input_layer_alone() -> None:
    found = terms_of(small(**KINDS["bottom-only"]))
    assert [found[f"cost_denoising_{layer}"].item() for layer in (1, 2, 3)] == [0.0, 0.0, 0.0]
    everything = terms_of(small(**KINDS["full"]))
    assert torch.equal(found["cost_denoising_0"], everything["cost_denoising_0"])
    assert found["cost"].item() == pytest.approx(
        (found["cost_supervised"] + found["cost_denoising_0"]).item(), rel=1e-12
    )


@pytest.mark.parametrize(
    ("combinator", "rows_without_gradient"), [("vanilla", [1, 3, 6, 8]), ("linear", [1]), ("gauss", [])]
)
def test_without_lateral_signals_the_combinator_sees_u_alone(combinator: str, rows_without_gradient: list[int]) -> None:
    model = small(combinator=combinator, lateral=False)
    terms_of(model)["cost"].backward()
    for g in model.g.values():
        (value,) = g.parameters()
        silent = [row for row, gradient in enumerate(value.grad) if not gradient.any()]
        assert silent == rows_without_gradient  # the terms with z
    # With W[0] = 0 the input's noise gets into no layer above, and only a lateral signal could take it to layer 0.
    with torch.no_grad():
        model.W[0].zero_()
    quiet, noisy = (terms_of(model, changes={"noise_std": [s, 0.0, 0.0, 0.0]}) for s in (0.0, 0.5))
    assert quiet["cost_denoising_0"].item() == pytest.approx(noisy["cost_denoising_0"].item(), rel=1e-12)


def test_the_leaky_slope_is_0_1() -> None:
    for activation, factor in (("relu", 0.0), ("leaky-relu", 0.1)):
        model = small(activation=activation)
        z = torch.full((2, 5), -100.0, dtype=torch.float64)
        shifted = z + model.beta[0]
        torch.testing.assert_close(model.activate(z, 1), factor * shifted, rtol=1e-12, atol=0.0)


def test_members_of_a_pack_may_differ_in_sigma_and_lambda_alone() -> None:
    same = small(noise_std=(0.1,) * 4, lambda_=(2.0,) * 4, combinator_std=0.5).config
    assert same.signature() == small().config.signature()
    for changes in ({"lateral": False}, {"activation": "leaky-relu"}, {"combinator": "linear"}, KINDS["gamma"]):
        assert small(**changes).config.signature() != same.signature()
    assert same.hyper() == {"noise_std": [0.1] * 4, "lambda_": [2.0] * 4}


# --- classification ---------------------------------------------------------------------------------------------------


def test_classification_uses_the_stored_statistics_and_nothing_of_the_batch() -> None:
    model = small()
    x = batch_of(model).x_unlabelled
    for name, value in model.statistics(batch_of(model).x_labelled.unsqueeze(0)).items():
        model.get_buffer(name).copy_(value.detach())
    together = model(x)
    torch.testing.assert_close(together.sum(-1), torch.ones(N_UNL, dtype=torch.float64))
    for i in range(N_UNL):
        torch.testing.assert_close(model(x[i : i + 1])[0], together[i], rtol=1e-10, atol=1e-12)


# --- refused settings -------------------------------------------------------------------------------------------------

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"widths": (6,)}, "model.widths must list at least 2 positive sizes, got [6]"),
        ({"widths": ()}, "model.widths must list at least 2 positive sizes, got []"),
        ({"widths": (6, 0, 4, 3)}, "model.widths must list at least 2 positive sizes, got [6, 0, 4, 3]"),
        ({"lambda_": (1.0,) * 3}, "model.lambda_ must have one entry per layer 0..3 (4 in all), got 3; give 4 numbers"),
        ({"lambda_": (1.0,) * 5}, "model.lambda_ must have one entry per layer 0..3 (4 in all), got 5"),
        ({"noise_std": ()}, "model.noise_std must have one entry per layer 0..3 (4 in all), got 0"),
        ({"lambda_": (1.0, NAN, 1.0, 1.0)}, "model.lambda_[1] must lie in [0, 1e+07], got nan"),
        ({"lambda_": (1.0, 1.0, 1.0, -0.1)}, "model.lambda_[3] must lie in [0, 1e+07], got -0.1"),
        ({"lambda_": (INFINITE, 1.0, 1.0, 1.0)}, "model.lambda_[0] must lie in [0, 1e+07], got inf"),
        ({"noise_std": (0.3, 0.3, NAN, 0.3)}, "model.noise_std[2] must lie in [0, 10], got nan"),
        ({"noise_std": (-0.3, 0.3, 0.3, 0.3)}, "model.noise_std[0] must lie in [0, 10], got -0.3"),
        ({"noise_std": (0.3, 30.0, 0.3, 0.3)}, "model.noise_std[1] must lie in [0, 10], got 30.0"),
        ({"combinator_std": NAN}, "model.combinator_std must lie in [0, 10], got nan"),
        (
            {"decoder": "gamma", "lambda_": (0.0, 1.0, 0.0, 1.0)},
            "with model.decoder=gamma only the top layer's weight may be above 0, got lambda_=[0.0, 1.0, 0.0, 1.0]",
        ),
        (
            {"decoder": "none", "lambda_": (0.0, 0.0, 0.0, 1.0)},
            "with model.decoder=none every weight must be 0, got lambda_=[0.0, 0.0, 0.0, 1.0]",
        ),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError) as caught:
        small(**changes)
    message = str(caught.value)
    assert message.startswith(says)
    assert message.endswith(".") and "; " in message  # rule, value; remedy
    assert ". " not in message and "\n" not in message


def test_an_unknown_combinator_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown combinator 'gaussian': did you mean 'gauss'"):
        small(combinator="gaussian")
    assert issubclass(UnknownNameError, LadderSearchError)


def test_a_baseline_follows_the_network_of_a_changed_study() -> None:
    base = LadderConfig(noise_std=(0.3, *(0.5,) * 6), lambda_=(0.0,) * 7, decoder="none")
    small = LadderConfig(
        widths=(64, 20, 10),
        noise_std=(0.1,) * 3,
        lambda_=(9.0, 1.0, 0.1),
        activation="leaky-relu",
        combinator="vanilla",
    )
    found = base.on_network_of(small)
    assert (found.widths, found.activation, found.decoder) == ((64, 20, 10), "leaky-relu", "none")
    assert found.noise_std == (0.3, 0.5, 0.5)
    assert found.lambda_ == (0.0, 0.0, 0.0)
    full = LadderConfig().on_network_of(LadderConfig(widths=(4, 3, 2, 2), noise_std=(0.1,) * 4, lambda_=(1.0,) * 4))
    assert full.lambda_ == (1000.0, 10.0, 0.1, 0.1)
    assert base.on_network_of(base) == base
