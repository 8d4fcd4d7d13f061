"""Cells: where they start, what zeros of the first step stand for, what the decoder's do at their edges."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from ladder_search.nn.cells import DECODER_CELLS, ENCODER_CELLS, EncoderCell, leaky, product
from ladder_search.nn.levels import Cell
from ladder_search.nn.recurrence import upsampled
from ladder_search.nn.steps import Steps

ROWS, UNITS, READ = 3, 4, 5
STEPS = Steps(ROWS)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def cell(kind: str, fed: int = UNITS) -> EncoderCell:
    kernel = None if kind.startswith("dense") else (3, 3)
    return ENCODER_CELLS[kind](
        Cell(kind, UNITS, kernel), READ, 0 if kernel is None else fed, "ln", generator()
    ).double()


@pytest.mark.parametrize("kind", [kind for kind in ENCODER_CELLS if kind != "dense"])
def test_no_state_and_no_d_are_zeros(kind: str) -> None:
    one = cell(kind)
    places = (1, 1) if one.dense else (6, 5)
    nothing = torch.zeros(ROWS, *places, UNITS, dtype=torch.float64)
    z = one.inputs(normal(ROWS, *places, READ))
    expected = one.advance(one.gates(z, nothing, STEPS), (nothing,) * len(one.states))
    found = one.advance(one.gates(z, None, STEPS), ())
    torch.testing.assert_close(found, expected)
    assert found[0].shape == (ROWS, *places, UNITS)


@pytest.mark.parametrize("kind", ["lstm", "dense-lstm"])
def test_an_lstm_starts_with_its_forget_gate_open(kind: str) -> None:
    one = cell(kind)
    start = one.norm.shift if one.norm is not None else one.b
    i, f, o, g = start.detach().view(4, UNITS)
    assert f.eq(1).all() and not torch.stack([i, o, g]).any()
    with torch.no_grad():  # gates at their start: sigmoid(1) of what was remembered stays, nothing comes to it
        one.U.zero_()
    z = start.detach().expand(ROWS, 1, 1, -1) if kind.startswith("dense") else start.detach().expand(ROWS, 2, 2, -1)
    c = torch.ones(*z.shape[:-1], UNITS, dtype=torch.float64)
    _, (_, kept) = one.advance(z, (torch.zeros_like(c), c))
    torch.testing.assert_close(kept, torch.sigmoid(torch.ones_like(c)))


@pytest.mark.parametrize("kind", ["gru", "dense-gru"])
def test_a_gru_gives_a_mean_of_what_it_was_and_what_it_could_be(kind: str) -> None:
    one = cell(kind)
    places = (1, 1) if one.dense else (6, 5)
    h, z = normal(ROWS, *places, UNITS).tanh(), one.inputs(normal(ROWS, *places, READ, seed=3))
    e, (state,) = one.advance(one.gates(z, None, STEPS), (h,))
    assert torch.equal(e, state)
    closed = torch.full_like(z, -100.0)
    torch.testing.assert_close(one.advance(closed, (h,))[0], torch.full_like(h, -1.0))  # nothing kept: tanh(-100)
    closed[..., UNITS : 2 * UNITS] = 100.0
    torch.testing.assert_close(one.advance(closed, (h,))[0], h)  # all is kept


def test_what_is_fed_back_and_remembered_reaches_the_output() -> None:
    one = cell("lstm")
    z, d, state = (normal(ROWS, 6, 5, n, seed=n) for n in (READ, UNITS, UNITS))
    gates = one.gates(one.inputs(z), d, STEPS)
    assert not torch.allclose(gates, one.gates(one.inputs(z), None, STEPS))
    e, _ = one.advance(gates, (state, state))
    assert not torch.allclose(e, one.advance(gates, (torch.zeros_like(state), state))[0])


def test_the_recurrence_is_not_normalised() -> None:
    one = cell("lstm")
    z, h = one.gates(one.inputs(normal(ROWS, 6, 5, READ)), None, STEPS), normal(ROWS, 6, 5, UNITS)
    c = torch.zeros_like(h)
    expected = (z + 10 * product(h, one.U)).chunk(4, -1)
    _, (_, found) = one.advance(z, (10 * h, c))
    torch.testing.assert_close(found, torch.sigmoid(expected[0]) * torch.tanh(expected[3]))


@pytest.mark.parametrize("kind", DECODER_CELLS)
def test_decoder_cells_give_a_map_of_their_level(kind: str) -> None:
    one = DECODER_CELLS[kind](UNITS, READ, (3, 3), "ln", generator()).double()
    e, u = normal(ROWS, 6, 5, UNITS), normal(ROWS, 6, 5, READ, seed=3)
    d = one(e, u, STEPS)
    assert d.shape == e.shape
    if kind == "g1":
        assert not d.any()  # as in the ladder: mu and v are zero at the start
    if kind == "g2":
        torch.testing.assert_close(d, e / 2)
    if kind == "g3":
        with torch.no_grad():
            one.b[:UNITS] = 100.0
        torch.testing.assert_close(one(e, u, STEPS), e)


def test_initial_weights_have_the_scale_of_what_they_read() -> None:
    draws = generator()
    wide = ENCODER_CELLS["lstm"](Cell("lstm", 64, (3, 3)), 32, 16, "ln", draws)
    for weight in (wide.W, wide.D, wide.U):
        fan_in = weight[0].numel()
        assert weight.std().item() * fan_in**0.5 == pytest.approx(1.0, abs=0.02)


def test_an_enlarged_map_repeats_places_and_is_cut() -> None:
    d = torch.arange(6).view(1, 2, 3, 1)
    found = upsampled(d, (2, 3), (1, 3, 8))[0, :, :, 0]
    assert found.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2, 2], [3, 3, 3, 4, 4, 4, 5, 5]]


def test_the_rectifier_leaks_a_tenth() -> None:
    assert leaky(torch.tensor([-2.0, 3.0])).tolist() == pytest.approx([-0.2, 3.0])


def test_strided_products_halve_maps_upwards() -> None:
    sizes = [88]
    for _ in range(4):
        sizes.append(product(torch.zeros(1, 1, sizes[-1], 2), torch.zeros(3, 2, 1, 5), (1, 2)).shape[2])
    assert all(above == -(-below // 2) for below, above in pairwise(sizes))
