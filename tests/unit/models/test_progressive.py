"""Progressive columns against plain NumPy, what trains and what is frozen, variants, and refused settings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ladder_search.errors import SettingError
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig
from ladder_search.nn.images import LUMINANCE, grey_of
from ladder_search.nn.protocol import Batch

WIDTHS = (6, 5, 4, 3)
ROWS = 8

Numbers = NDArray[np.float64]


def _random(module: torch.nn.Module, seed: int) -> Any:
    """Every number of a module at random, variances positive."""
    draws = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(torch.randn(value.shape, generator=draws, dtype=torch.float64))
            if "variance" in name:
                value.copy_(value.abs() + 0.5)
    return module


def source(seed: int = 1, widths: tuple[int, ...] = WIDTHS) -> Ladder:
    zeros = (0.0,) * len(widths)
    config = LadderConfig(widths=widths, noise_std=zeros, lambda_=zeros, decoder="none")
    return _random(Ladder(config, generator=torch.Generator()), seed)  # type: ignore[no-any-return]


def column(*sources: Ladder, seed: int = 7, **changes: Any) -> Progressive:
    config = ProgressiveConfig(**{"widths": WIDTHS, "alpha_init": (1.0, 0.5)} | changes)
    kept = [{name: value.clone() for name, value in one.state_dict().items()} for one in sources]
    model = _random(Progressive(config, generator=torch.Generator(), sources=sources), seed)
    for one, values in zip(model.sources, kept, strict=False):
        one.load_state_dict(values)
    return model  # type: ignore[no-any-return]


def pixels(rows: int = ROWS, size: int = WIDTHS[0]) -> torch.Tensor:
    return torch.rand(rows, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def batch(rows: int = ROWS) -> Batch:
    x = pixels(rows)
    return Batch(x, torch.arange(rows) % WIDTHS[-1], x)


def cost(model: Progressive, decay: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    hyper = {"weight_decay": torch.tensor([decay], dtype=torch.float64)}
    return model.cost(batch(), torch.empty(0), hyper)


def values(model: torch.nn.Module) -> dict[str, Numbers]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def by_hand_source(state: dict[str, Numbers], x: Numbers) -> list[Numbers]:
    """The clean path of a ladder's encoder, normalised by its stored statistics."""
    h, depth = [x], len(WIDTHS) - 1
    for layer in range(1, depth + 1):
        z = (h[-1] @ state[f"W.{layer - 1}"].T - state[f"mean_{layer}"]) / np.sqrt(state[f"variance_{layer}"] + 1e-10)
        z = z + state[f"beta.{layer - 1}"]
        h.append(state["gamma"] * z if layer == depth else np.maximum(z, 0))
    return h


def by_hand(model: Progressive, x: Numbers, sources: list[dict[str, Numbers]]) -> Numbers:
    """Logits of a training step: Rusu's equation 2 with batch norm around the sum, in NumPy."""
    own, config = values(model), model.config
    seen = [by_hand_source(state, x) for state in sources]
    h = x
    for layer in range(1, config.depth + 1):
        z, key = h @ own[f"W.{layer - 1}"].T, str(layer)
        lateral = np.zeros_like(z)
        if layer > 1 and seen:
            alpha = own.get(f"alpha.{key}", np.ones(len(seen)))
            joined = np.concatenate([a * features[layer - 1] for a, features in zip(alpha, seen, strict=True)], axis=1)
            if config.adapter == "rusu":
                joined = np.maximum(joined @ own[f"V.{key}"].T + own[f"c.{key}"], 0)
            lateral = joined @ own[f"U.{key}"].T
            if config.adapter == "sum":
                lateral = np.maximum(lateral + own[f"c.{key}"], 0)
            else:
                z = z + lateral
        if config.batch_norm:
            z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-10)
        z = z + own[f"beta.{layer - 1}"]
        if layer == config.depth:
            z = own["gamma"] * z if config.batch_norm else z
        if layer < config.depth or config.head == "relu":
            z = np.maximum(z, 0)
        h = z + lateral if layer > 1 and seen and config.adapter == "sum" else z
    return h


def cross_entropy(logits: Numbers, y: NDArray[np.int64]) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adapter": "linear"},
        {"adapter": "sum"},
        {"alpha": "absent"},
        {"alpha": "fixed"},
        {"adapter_width": 9},
        {"batch_norm": False, "head": "relu", "adapter": "sum"},
        {"approach": "scratch"},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2], ids="{} sources".format)
def test_a_step_is_that_of_numpy(count: int, changes: dict[str, Any]) -> None:
    sources = [source(seed) for seed in range(count)]
    model = column(*sources, **changes)
    of_sources = [] if changes.get("approach") == "scratch" else [values(one) for one in sources]
    logits = by_hand(model, pixels().numpy(), of_sources)
    total, terms = (value.detach() for value in cost(model))
    expected = cross_entropy(logits, batch().y.numpy())
    assert float(total) == pytest.approx(expected, rel=1e-9)
    assert float(terms[1]) == pytest.approx(expected, rel=1e-9) and float(terms[2]) == 0.0


def test_evaluation_uses_stored_statistics_and_averages_them_over_minibatches() -> None:
    model = column(source())
    x = torch.stack([pixels(), 1.0 - pixels()])
    found = model.statistics(x)
    first = torch.stack([part @ model.W[0].T for part in x]).detach().numpy()
    np.testing.assert_allclose(found["mean_1"].detach(), first.mean(1).mean(0), rtol=1e-9)
    np.testing.assert_allclose(found["variance_1"].detach(), first.var(1, ddof=1).mean(0), rtol=1e-9)
    model.load_state_dict(found, strict=False)
    z = (pixels() @ model.W[0].T - found["mean_1"]) / torch.sqrt(found["variance_1"] + 1e-10) + model.beta[0]
    torch.testing.assert_close(model.features(pixels())[1], torch.relu(z))
    assert model(pixels()).sum(1).tolist() == pytest.approx([1.0] * ROWS)
    assert column(source(), batch_norm=False).statistics(x) == {}


def test_gradients_reach_all_of_the_column_and_nothing_of_its_sources() -> None:
    model = column(source(), source(2))
    total, _ = cost(model, 0.1)
    total.backward()
    for name, value in model.named_parameters():
        if name.startswith("sources."):
            assert value.grad is None and not value.requires_grad
        else:
            assert value.grad is not None and value.grad.abs().max() > 0, name


def test_a_fixed_alpha_is_used_and_gets_no_gradient() -> None:
    model = column(source(), alpha="fixed")
    cost(model)[0].backward()
    assert all(value.grad is None or not value.grad.any() for value in model.alpha.values())
    before = float(cost(model)[0].detach())
    with torch.no_grad():
        model.alpha["2"].zero_()
    assert float(cost(model)[0].detach()) != before


def test_alpha_starts_where_it_is_told_and_layer_1_has_no_lateral() -> None:
    config = ProgressiveConfig(widths=WIDTHS, alpha_init=(0.1, 0.01))
    model = Progressive(config, generator=torch.Generator().manual_seed(1), sources=[source(), source(2)])
    assert {key: value.tolist() for key, value in model.alpha.items()} == {
        "2": pytest.approx([0.1, 0.1]),
        "3": pytest.approx([0.01, 0.01]),
    }
    assert set(model.U) == set(model.V) == {"2", "3"}
    assert tuple(model.V["3"].shape) == (3, 8) and tuple(model.U["3"].shape) == (3, 3)


def test_a_column_deeper_than_its_source_is_fed_by_the_sources_logits_too() -> None:
    deeper = ProgressiveConfig(widths=(6, 6, 5, 4, 3), alpha_init=(1.0,) * 3)
    model = Progressive(deeper, generator=torch.Generator(), sources=[source()])
    assert {key: value.shape[1] for key, value in model.V.items()} == {"2": 5, "3": 4, "4": 3}


def test_double_softmax_has_the_floor_of_probabilities_taken_for_logits() -> None:
    config = ProgressiveConfig(widths=(6, 10), approach="scratch", head="double-softmax")
    model = Progressive(config, generator=torch.Generator()).double()
    with torch.no_grad():
        model.W[0].zero_()
        model.beta[0].zero_()[0] = 1e3
    rows = Batch(pixels(), torch.zeros(ROWS, dtype=torch.int64), pixels())
    total, _ = model.cost(rows, torch.empty(0), {"weight_decay": torch.zeros(1, dtype=torch.float64)})
    assert float(total.detach()) == pytest.approx(math.log(math.e + 9) - 1, abs=1e-9)  # 1.461


def test_raw_pixels_are_255_times_as_large_for_every_column() -> None:
    model, raw = column(source()), column(source(), pixels="raw")
    with torch.no_grad():
        raw.W[0].div_(255.0)
        raw.sources[0].W[0].div_(255.0)  # type: ignore[union-attr, index]
    torch.testing.assert_close(cost(raw)[0], cost(model)[0])


def test_weight_decay_is_half_the_squares_of_all_weights_and_of_no_shift() -> None:
    model = column(source())
    squares = sum(
        float((value**2).sum()) for name, value in values(model).items() if name.split(".")[0] in ("W", "V", "U")
    )
    terms = cost(model, 0.01)[1].detach()
    assert float(terms[2]) == pytest.approx(0.005 * squares)
    assert float(terms[0]) == pytest.approx(float(terms[1]) + float(terms[2]))


def test_a_fine_tuned_column_starts_as_its_source() -> None:
    theirs = source()
    config = ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0, 1.0), approach="fine-tuned")
    model = Progressive(config, generator=torch.Generator()).double()
    given = config.taken_over([theirs])
    assert set(given) == {name for name, _ in model.named_parameters()}
    model.load_state_dict({**given, **{n: v for n, v in theirs.state_dict().items() if n[0] in "mv"}})
    torch.testing.assert_close(model(pixels()), theirs(pixels()))


def test_initial_weights_have_the_variance_that_they_are_named_for() -> None:
    for initial, expected in (("he", 2 / 400), ("fan-in", 1 / 400), ("xavier", 2 / 700)):
        config = ProgressiveConfig(widths=(400, 300), approach="scratch", initial=initial)  # type: ignore[arg-type]
        model = Progressive(config, generator=torch.Generator().manual_seed(1))
        assert float(model.W[0].detach().var()) == pytest.approx(expected, rel=0.02)


def test_the_papers_sizes_have_their_parameters() -> None:
    config = ProgressiveConfig()
    zeros = (0.0,) * 7
    ladder = Ladder(LadderConfig(noise_std=zeros, lambda_=zeros, decoder="none"), generator=torch.Generator())
    model = Progressive(config, generator=torch.Generator(), sources=[ladder])
    own = {n: v.numel() for n, v in model.named_parameters() if not n.startswith("sources.")}
    weights = sum(size for name, size in own.items() if name[0] in "WVU")
    # 1,536,500 of the column; n_(i-1) n_i + n_i^2 of each of five adapters.
    adapters = (500_000 + 250_000) + (125_000 + 62_500) + 2 * (62_500 + 62_500) + (2_500 + 100)
    assert weights == 1_536_500 + adapters
    assert sum(own.values()) == weights + 2 * (500 + 250 + 250 + 250 + 10) + 1000 + 10 + 5  # beta, c; gamma; alpha


def test_luminance_at_28_pixels_is_bilinear() -> None:
    x = np.random.default_rng(0).random((2, 3, 32, 32))
    grey = np.einsum("c,nchw->nhw", LUMINANCE, x)
    at = (np.arange(28) + 0.5) * 32 / 28 - 0.5  # centres of pixels
    low = np.floor(at).astype(int)
    share = at - low
    high = np.minimum(low + 1, 31)
    rows = grey[:, low] * (1 - share)[:, None] + grey[:, high] * share[:, None]
    expected = rows[:, :, low] * (1 - share) + rows[:, :, high] * share
    found = grey_of(torch.from_numpy(x.reshape(2, -1)))
    np.testing.assert_allclose(found.numpy(), expected.reshape(2, -1), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widths": (6,)}, r"model\.widths must list at least 2 positive sizes, got \[6\]; give .*\."),
        ({"alpha_init": (1.0, 1.0, 1.0)}, r"model\.alpha_init must have 1 entry or one for each of .*, got 3; .*"),
        ({"alpha_init": (1.0, 1e3)}, r"model\.alpha_init must lie in \[-100, 100\], got 1000\.0; choose .*"),
        ({"adapter_width": 0}, r"model\.adapter_width must be at least 1 or null, got 0; give a positive number\."),
        ({"weight_decay": -1.0}, r"model\.weight_decay must lie in \[0, 1\], got -1\.0; choose .*"),
        ({"approach": "fine-tuned", "batch_norm": False}, r"a fine-tuned column continues .* leave it true\."),
    ],
)  # fmt: skip
def test_refused_settings(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=f"^{sentence}$"):
        ProgressiveConfig(**{"widths": WIDTHS, "alpha_init": (1.0, 1.0)} | changes)


def test_sources_that_do_not_serve_are_refused() -> None:
    config = ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0, 1.0))
    other = source(widths=(7, 5, 3)).config
    with pytest.raises(SettingError, match=r"a progressive column needs a source, got none; give sources\.NAME"):
        config.check_sources({})
    with pytest.raises(SettingError, match="source mnist must read the 6 pixels that the target gets.* begin with 7"):
        config.check_sources({"mnist": other})
    tuned = ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0, 1.0), approach="fine-tuned")
    with pytest.raises(SettingError, match=r"a fine-tuned column has the sizes of its one source, \[6, 5, 4, 3\]"):
        tuned.check_sources({"mnist": other})


def test_a_column_in_colour_beside_a_source_in_grey() -> None:
    grey = source(widths=(784, 5, 4, 3))
    config = ProgressiveConfig(widths=(3072, 5, 4, 3), colour=True)
    config.check_sources({"mnist": grey.config})
    config.check_fits(3072, 3, "svhn-rgb")
    model = Progressive(config, generator=torch.Generator(), sources=[grey]).double()
    x = pixels(4, 3072)
    for seen, expected in zip(model.source_features(x)[0], grey.features(grey_of(x)), strict=True):
        torch.testing.assert_close(seen, expected)
    assert model(x).shape == (4, 3)
    with pytest.raises(
        SettingError, match=r"^model\.colour=true is for images of 3 x 32 x 32 = 3072 pixels, mnist has 784"
    ):
        ProgressiveConfig(widths=(784, 5, 3), colour=True).check_fits(784, 3, "mnist")


def test_a_column_does_not_go_on_from_another_nonlinearity() -> None:
    config = ProgressiveConfig(widths=WIDTHS, approach="fine-tuned")
    leaky = replace(source().config, activation="leaky-relu")
    with pytest.raises(SettingError, match=r"^a fine-tuned column has rectifiers and its source's .* is leaky-relu; "):
        config.check_sources({"mnist": leaky})
