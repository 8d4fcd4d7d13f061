"""Gradients in one formula are those of the definitions, alone and stacked, and programs are written with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.batchnorm import _BatchNormalise
from ladder_search.nn.closed_form import ClosedForm, being_traced, computed_once
from ladder_search.nn.combinators import _Gauss
from ladder_search.nn.denoising import _Relu
from ladder_search.nn.protocol import Batch

DRAW = torch.Generator().manual_seed(0)


def drawn(*size: int) -> Tensor:
    return torch.randn(*size, generator=DRAW, dtype=torch.float64)


CASES: dict[str, tuple[type[ClosedForm], list[Tensor]]] = {
    "batch norm, three groups": (_BatchNormalise, [3.0 + 2.0 * drawn(3, 5, 4)]),
    "batch norm, one group of two rows": (_BatchNormalise, [drawn(1, 2, 3)]),
    "batch norm, a constant unit": (_BatchNormalise, [torch.cat([drawn(1, 4, 2), torch.ones(1, 4, 1)], -1)]),
    "gauss": (_Gauss, [drawn(6, 4), drawn(6, 4), drawn(10, 4)]),
    "gauss of maps": (_Gauss, [drawn(2, 3, 3, 4), drawn(2, 3, 3, 4), drawn(10, 4)]),
    "relu": (_Relu, [drawn(7, 3)]),
}


def weighted(found: Any) -> Tensor:
    """A scalar in which every number of what is differentiable counts in a way of its own."""
    parts = found if isinstance(found, tuple) else (found,)
    return sum(
        (part * torch.linspace(-1.0, 2.0, part.numel(), dtype=part.dtype).view(part.shape)).square().sum()
        for part in parts[:3]
    )  # type: ignore[return-value]


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_definition(name: str) -> None:
    operation, inputs = CASES[name]

    def gradients(call: Callable[..., Any]) -> tuple[Tensor, ...]:
        leaves = [value.clone().requires_grad_() for value in inputs]
        return torch.autograd.grad(weighted(call(*leaves)), leaves)

    for found, wanted in zip(gradients(operation.apply), gradients(operation.forward), strict=True):
        scale = wanted.abs().max().clamp(min=1.0)
        torch.testing.assert_close(found / scale, wanted / scale, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_stacked_members_are_each_ones_own(name: str) -> None:
    operation, inputs = CASES[name]
    members = [[value * factor for value in inputs] for factor in (1.0, 0.5, -2.0)]
    stacked = [torch.stack(parts) for parts in zip(*members, strict=True)]
    of_all = tuple(range(len(inputs)))
    found = vmap(grad(lambda *x: weighted(operation.apply(*x)), argnums=of_all))(*stacked)
    for k, member in enumerate(members):
        alone = grad(lambda *x: weighted(operation.forward(*x)), argnums=of_all)(*member)
        for value, wanted in zip(found, alone, strict=True):
            scale = wanted.abs().max().clamp(min=1.0)
            torch.testing.assert_close(value[k] / scale, wanted / scale, rtol=1e-10, atol=1e-12)


def test_the_formula_is_for_programs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    formulas: list[bool] = []
    backward = _Relu.backward

    def noted(ctx: Any, d: Tensor) -> Tensor:
        formulas.append(True)
        return backward(ctx, d)

    monkeypatch.setattr(_Relu, "backward", staticmethod(noted))

    def slope(x: Tensor) -> Tensor:
        return grad(lambda y: _Relu.of(y).sum())(x)

    x = torch.tensor([-1.0, 2.0, 0.0])
    assert torch.equal(slope(x), torch.tensor([0.0, 1.0, 0.0])) and not formulas and not being_traced()
    graph = make_fx(slope)(x)
    assert formulas == [True] and "sign" in graph.code
    assert torch.equal(graph(x), slope(x))


def test_a_network_of_them_is_one_graph_to_torch_compile() -> None:
    config = LadderConfig(widths=(8, 6, 4), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1))
    network = Ladder(config, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.rand(6, 8), torch.arange(6) % 4, torch.rand(6, 8))
    inputs = (batch, torch.randn(network.noise_size(6, 6)), {n: torch.tensor(v) for n, v in config.hyper().items()})
    compiled = torch.compile(network.cost, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), network.cost(*inputs))


def test_values_that_are_computed_once_are_the_values() -> None:
    values = [torch.arange(3.0), torch.ones(3)]
    assert all(a is b for a, b in zip(computed_once(*values), values, strict=True))
    graph = make_fx(lambda a, b: computed_once(a, b))(*values)
    assert "stack" in graph.code
    assert all(torch.equal(a, b) for a, b in zip(graph(*values), values, strict=True))
