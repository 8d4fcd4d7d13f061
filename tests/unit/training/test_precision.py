"""bf16: layers multiply rounded numbers, everything else is single precision, and evaluations know nothing of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from ladder_search.data.splits import make_split
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.batchnorm import normalise_groups
from ladder_search.training.compiling import compiler_found
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.program import Bfloat16Products
from ladder_search.training.settings import TrainingConfig


def test_a_layer_rounds_its_factors_and_its_result_and_nothing_else_does() -> None:
    # 1 + 2^-9 lies halfway between two bfloat16 numbers (8 bits) and goes to the even one, 1.
    x, w = torch.tensor([[1.0 + 2.0**-9, 2.0]]), torch.tensor([[1.0, 0.5], [3.0, 2.0**-8]])
    with Bfloat16Products():
        found = functional.linear(x, w)
        plain, statistics = x @ w.T, normalise_groups(found, [1])
    assert found.dtype == torch.float32
    assert found.tolist() == [[2.0, 3.0]]  # 3 + 2^-7 is rounded to 3: the spacing of bfloat16 there is 2^-6
    assert torch.equal(plain, torch.tensor([[2.0 + 2.0**-9, 3.0 + 3 * 2.0**-9 + 2.0**-7]]))
    assert all(value.dtype == torch.float32 for value in statistics)
    assert functional.linear(x, w)[0, 0].item() == 2.0 + 2.0**-9  # outside nothing is left of it


def test_convolutions_are_rounded_both_ways() -> None:
    x, w = torch.full((1, 1, 1, 1), 1.0 + 2.0**-9), torch.ones(1, 1, 1, 1)
    for convolve in (functional.conv2d, functional.conv_transpose2d):
        with Bfloat16Products():
            assert convolve(x, w).item() == 1.0 and convolve(x, w).dtype == torch.float32
        assert convolve(x, w).item() == 1.0 + 2.0**-9


def test_gradients_are_single_precision_and_go_through_the_rounded_products() -> None:
    x, w = torch.tensor([[1.0 + 2.0**-9, 2.0]]), torch.ones(1, 2, requires_grad=True)
    with Bfloat16Products():
        (gradient,) = torch.autograd.grad(functional.linear(x, w).sum(), w)
    assert gradient.dtype == torch.float32 and gradient.tolist() == [[1.0, 2.0]]


@pytest.fixture
def spec(data: TrainingData) -> MemberSpec:
    split = make_split(data.y.numpy(), n_labelled=40, n_validation=297, n_classes=10, seed=1)
    model = LadderConfig(widths=(64, 20, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1))
    training = TrainingConfig(labelled_batch=20, unlabelled_batch=30)
    return MemberSpec(model=model, training=training, split=split, seed=3)


def pack(spec: MemberSpec, data: TrainingData, precision: Any, slots: int, *, compiled: bool = False) -> Pack:
    one = replace(spec, training=replace(spec.training, precision=precision))
    made = Pack(one, Ladder, data, slots=slots, compiled=compiled)
    for number in range(slots):
        made.join(replace(one, seed=number))
    return made


@pytest.mark.parametrize("slots", [1, 2])
def test_a_pack_trains_nearly_the_same_in_bf16(slots: int, spec: MemberSpec, data: TrainingData) -> None:
    packs = [pack(spec, data, precision, slots) for precision in ("float32", "bf16", "tf32")]
    exact, rounded, tf32 = (one.run(30)[slots - 1].terms for one in packs)
    for name, value in exact.items():
        assert rounded[name] == pytest.approx(value, rel=0.02), name
    assert rounded["cost"] != exact["cost"]
    assert tf32 == exact, "on a CPU tf32 is float32"
    state = packs[1].state(0)
    assert {value.dtype for part in (state.params, state.first, state.second) for value in part.values()} == {
        torch.float32
    }


def test_an_evaluation_is_single_precision(spec: MemberSpec, data: TrainingData) -> None:
    exact, rounded = (pack(spec, data, precision, 1) for precision in ("float32", "bf16"))
    statistics = exact.statistics()[1]
    for name, value in rounded.statistics()[1].items():
        assert torch.equal(value, statistics[name])
    assert rounded.validation_errors() == exact.validation_errors()


@pytest.mark.skipif(not compiler_found(), reason="no C++ compiler, or torch in a folder with a space")
@pytest.mark.slow
@pytest.mark.timeout(400)  # a busy machine's compiler
def test_compiled_bf16_is_eager_bf16(spec: MemberSpec, data: TrainingData) -> None:
    # A compiler may keep what an eager program rounds: the two agree to the rounding of bfloat16.
    found, expected = (pack(spec, data, "bf16", 2, compiled=one).run(10)[1].terms for one in (True, False))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.01), name
