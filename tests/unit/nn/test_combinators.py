"""Every combinator against its formula in NumPy, with each parameter another value; starts; names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ladder_search.errors import UnknownNameError
from ladder_search.nn.combinators import COMBINATORS, MLP_EXAMPLES, Vanilla, find_combinator

UNITS, ROWS = 3, 5
RNG = np.random.default_rng(0)
Z, U = RNG.normal(size=(2, ROWS, UNITS))


def build(name: str, *, units: int = UNITS, std: float = 0.025, seed: int = 1) -> torch.nn.Module:
    return find_combinator(name)(units, std, torch.Generator().manual_seed(seed)).double()


def randomised(name: str) -> tuple[torch.nn.Module, list[np.ndarray]]:
    """A combinator whose parameters are all different and their values."""
    g = build(name)
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for value in g.parameters():
            value.copy_(torch.from_numpy(rng.normal(size=tuple(value.shape))))
    return g, [value.detach().numpy() for value in g.parameters()]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gauss(a: np.ndarray) -> np.ndarray:
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a
    mu = a1 * sigmoid(a2 * U + a3) + a4 * U + a5
    v = a6 * sigmoid(a7 * U + a8) + a9 * U + a10
    return (Z - mu) * v + mu


def gated_gauss(a: np.ndarray) -> np.ndarray:
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a
    mu = a1 * sigmoid(a2 * U + a3) + a4 * U + a5
    v = sigmoid(a6 * sigmoid(a7 * U + a8) + a9 * U + a10)
    return (Z - mu) * v + mu


def vanilla(w: np.ndarray) -> np.ndarray:
    b0, w0z, w0u, w0zu, ws, b1, w1z, w1u, w1zu = w
    return b0 + w0z * Z + w0u * U + w0zu * Z * U + ws * sigmoid(b1 + w1z * Z + w1u * U + w1zu * Z * U)


def no_sig(w: np.ndarray) -> np.ndarray:
    b0, w0z, w0u, w0zu = w
    return b0 + w0z * Z + w0u * U + w0zu * Z * U


def no_mult(w: np.ndarray) -> np.ndarray:
    b0, w0z, w0u, ws, b1, w1z, w1u = w
    return b0 + w0z * Z + w0u * U + ws * sigmoid(b1 + w1z * Z + w1u * U)


def linear(w: np.ndarray) -> np.ndarray:
    b0, w0z, w0u = w
    return b0 + w0z * Z + w0u * U


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gauss": gauss,
    "gated-gauss": gated_gauss,
    "vanilla": vanilla,
    "rand-init": vanilla,
    "rev-init": vanilla,
    "no-sig": no_sig,
    "no-mult": no_mult,
    "linear": linear,
}


def test_every_row_of_the_table_has_its_formula_here() -> None:
    assert FORMULAS.keys() == COMBINATORS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_the_formula(name: str) -> None:
    g, (w,) = randomised(name)
    assert w.shape[1] == UNITS
    np.testing.assert_allclose(g(torch.from_numpy(Z), torch.from_numpy(U)).detach(), FORMULAS[name](w), rtol=1e-12)


@pytest.mark.parametrize("name", MLP_EXAMPLES)
def test_the_networks_unit_by_unit(name: str) -> None:
    g, _ = randomised(name)
    layers = [(w.detach().numpy(), b.detach().numpy()) for w, b in zip(g.weights, g.biases, strict=True)]
    found = g(torch.from_numpy(Z), torch.from_numpy(U)).detach().numpy()
    for row in range(ROWS):
        for unit in range(UNITS):
            z, u = Z[row, unit], U[row, unit]
            h = np.array([u, z, u * z] if name.startswith("amlp") else [u, z])
            for weight, bias in layers[:-1]:
                h = h @ weight + bias
                h = np.where(h > 0, h, 0.1 * h)
            (expected,) = h @ layers[-1][0] + layers[-1][1]
            np.testing.assert_allclose(found[row, unit], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mlp-4", [(2, 4), (4, 1)]),
        ("mlp-2-2", [(2, 2), (2, 2), (2, 1)]),
        ("mlp-2-2-2", [(2, 2), (2, 2), (2, 2), (2, 1)]),
        ("amlp-4", [(3, 4), (4, 1)]),
        ("amlp-2-2", [(3, 2), (2, 2), (2, 1)]),
        ("amlp-2-2-2", [(3, 2), (2, 2), (2, 2), (2, 1)]),
        ("amlp-12", [(3, 12), (12, 1)]),
    ],
)
def test_the_networks_weights_are_shared_by_the_units_of_a_layer(name: str, shapes: list[tuple[int, int]]) -> None:
    for units in (3, 50):
        g = build(name, units=units)
        assert [tuple(w.shape) for w in g.weights] == shapes
        assert [tuple(b.shape) for b in g.biases] == [(out,) for _, out in shapes]
        assert len(list(g.parameters())) == 2 * len(shapes)


def test_gauss_starts_at_zero_with_a2_and_a7_one() -> None:
    g = build("gauss")
    expected = np.zeros((10, UNITS))
    expected[[1, 6]] = 1.0
    np.testing.assert_array_equal(g.a.detach(), expected)
    assert not g(torch.from_numpy(Z), torch.from_numpy(U)).any()
    np.testing.assert_array_equal(build("gated-gauss").a.detach(), expected)


@pytest.mark.parametrize(
    ("name", "names", "ones"),
    [
        ("vanilla", Vanilla.NAMES, {"w0z", "w1z", "ws"}),
        ("rev-init", Vanilla.NAMES, {"w0u", "w1u", "ws"}),
        ("no-sig", ("b0", "w0z", "w0u", "w0zu"), {"w0z"}),
        ("no-mult", ("b0", "w0z", "w0u", "ws", "b1", "w1z", "w1u"), {"w0z", "w1z", "ws"}),
        ("linear", ("b0", "w0z", "w0u"), {"w0z"}),
    ],
)
def test_the_vanilla_kinds_start_with_ones_and_zeros(name: str, names: tuple[str, ...], ones: set[str]) -> None:
    expected = np.array([[float(row in ones)] * UNITS for row in names])
    np.testing.assert_array_equal(build(name).w.detach(), expected)


@pytest.mark.parametrize("std", [0.006, 0.05])
def test_what_starts_at_random_has_the_given_spread(std: float) -> None:
    # 9 * 2000 draws: the sample's deviation is within 2 % of the true one (4 standard errors are 2.1 %).
    w = build("rand-init", units=2000, std=std).w.detach().numpy()
    assert abs(w.mean()) < 4 * std / np.sqrt(w.size)
    assert w.std() == pytest.approx(std, rel=0.025)
    g = build("amlp-40-40", std=std)
    weights = np.concatenate([w.detach().numpy().ravel() for w in g.weights])
    assert weights.std() == pytest.approx(std, rel=4 / np.sqrt(2 * weights.size))
    assert not any(bias.any() for bias in g.biases)


def test_the_generator_alone_decides_the_start() -> None:
    for name in ("rand-init", "mlp-4", "amlp-2-2"):
        first, same, other = (list(build(name, seed=seed).parameters()) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_which_kinds_read_the_initial_spread() -> None:
    for name in (*COMBINATORS, *MLP_EXAMPLES):
        narrow, wide = (list(build(name, std=std).parameters()) for std in (0.01, 0.02))
        differs = not all(torch.equal(a, b) for a, b in zip(narrow, wide, strict=True))
        assert (name == "rand-init" or "mlp" in name) == differs, name


def test_every_parameter_of_every_kind_gets_a_gradient() -> None:
    for name in (*COMBINATORS, *MLP_EXAMPLES):
        g, _ = randomised(name)
        g(torch.from_numpy(Z), torch.from_numpy(U)).square().sum().backward()
        assert all(value.grad is not None and value.grad.all() for value in g.parameters()), name


@pytest.mark.parametrize(
    ("name", "near"),
    [("gaus", "gauss"), ("vanila", "vanilla"), ("amlp_4", "amlp-4"), ("mlp", "mlp-4"), ("mlp-0", "mlp-4")],
)
def test_an_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(
        UnknownNameError, match=f"unknown combinator '{name}': did you mean '{near}'[?] Known: "
    ) as caught:
        find_combinator(name)
    assert all(known in str(caught.value) for known in (*COMBINATORS, *MLP_EXAMPLES))
