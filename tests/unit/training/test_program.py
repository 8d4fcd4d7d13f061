"""One step of K members against torch.optim.Adam on each member alone, with a model that is no ladder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ladder_search.nn.network import Network
from ladder_search.nn.protocol import Batch
from ladder_search.training.feeds import TrainingData
from ladder_search.training.noise import fill_normals
from ladder_search.training.program import make_step
from ladder_search.training.schedules import adam_scale

pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler

PIXELS = torch.randint(0, 17, (40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CLASSES = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(1))

FEED = TrainingData(x=PIXELS, y=CLASSES, full_scale=16.0)


class Toy(Network):
    """A model in the sense of ``nn.protocol``: parameters of 0, 1 and 2 axes, one of them without any use."""

    term_names = ("cost", "weight")
    widest = 4

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))
        self.scale = nn.Parameter(torch.randn((), generator=generator))
        self.unused = nn.Parameter(torch.randn(2, generator=generator))

    def statistics(self, *minibatches: Any, **named: Any) -> dict[str, Tensor]:
        raise NotImplementedError("a step reads no statistics")

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return labelled * 3

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        x = batch.x_labelled + hyper["sigma"][0] * noise.view(-1, 3)
        supervised = nn.functional.cross_entropy(x @ self.matrix.T + self.bias, batch.y)
        weight = (self.scale * batch.x_unlabelled @ self.matrix.T).square().mean()
        total = supervised + hyper["sigma"][1] * weight
        return total, torch.stack([total, weight])


def stacked(members: list[Toy]) -> dict[str, Tensor]:
    values = [dict(member.named_parameters()) for member in members]
    return {name: torch.stack([value[name].detach() for value in values]) for name in values[0]}


def make_members(count: int) -> list[Toy]:
    return [Toy(torch.Generator().manual_seed(seed)).double() for seed in range(count)]


def inputs(members: int, step: int) -> dict[str, Any]:
    """Everything of a step that differs between members, by member and step."""
    generator = torch.Generator().manual_seed(100 + step)
    return {
        "hyper": {"sigma": torch.tensor([[0.1 * (k + 1), 0.5 + k] for k in range(members)], dtype=torch.float64)},
        "rates": [0.01 * (k + 1) / (1 + step // 7) for k in range(members)],
        "labelled": torch.randint(0, 40, (members, 6), generator=generator),
        "unlabelled": torch.randint(0, 40, (members, 9), generator=generator),
        "keys": torch.arange(members) + 1000 * step,
    }


def noise_of(key: Tensor) -> Tensor:
    out = torch.empty(18, dtype=torch.float64)
    fill_normals(out, int(key))
    return out


def train(
    members: list[Toy], steps: int, *, compiled: bool = False, limit: float | None = None
) -> tuple[dict[str, Tensor], list[Tensor]]:
    params = stacked(members)
    first, second = ({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2))
    step = make_step(members[0], FEED, noise_size=18, compiled=compiled, clipping=limit is not None)
    terms = []
    for i in range(steps):
        one = inputs(len(members), i)
        scales = torch.tensor([adam_scale(i + 1, rate) for rate in one["rates"]], dtype=torch.float64)
        rows = (one["labelled"], one["unlabelled"])
        found = step(
            params,
            first,
            second,
            one["hyper"],
            {},
            {},
            scales[:, 0],
            scales[:, 1],
            torch.zeros(len(members)),
            torch.full((len(members),), limit or 1.0, dtype=torch.float64),
            one["keys"],
            *rows,
            PIXELS,
            CLASSES,
        )
        terms.append(found.clone())
    return params, terms


def train_alone(member: Toy, k: int, members: int, steps: int, limit: float | None = None) -> list[Tensor]:
    optimiser = torch.optim.Adam(member.parameters(), lr=1.0)
    terms = []
    for i in range(steps):
        one = inputs(members, i)
        x = PIXELS.double() / 16.0
        lab, unl = one["labelled"][k], one["unlabelled"][k]
        optimiser.param_groups[0]["lr"] = one["rates"][k]
        total, found = member.cost(
            Batch(x[lab], CLASSES[lab], x[unl]), noise_of(one["keys"][k]), {"sigma": one["hyper"]["sigma"][k]}
        )
        optimiser.zero_grad()
        total.backward()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(member.parameters(), limit)
        optimiser.step()
        terms.append(found.detach())
    return terms


@pytest.mark.parametrize("path", ["plain gradient", "functional gradient"])
@pytest.mark.parametrize("count", [1, 3])
def test_twenty_steps_are_those_of_torchs_adam(count: int, path: str) -> None:
    # The functional gradient is what gets compiled; here it runs as it is.
    params, terms = train(make_members(count), 20, compiled=path == "functional gradient")
    for k, member in enumerate(make_members(count)):
        alone = train_alone(member, k, count, 20)
        for name, value in member.named_parameters():
            torch.testing.assert_close(params[name][k], value.detach(), rtol=1e-12, atol=1e-13)
        for found, expected in zip(terms, alone, strict=True):
            torch.testing.assert_close(found[k], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("count", [1, 3])
def test_a_long_gradient_is_shortened_member_by_member(count: int) -> None:
    free, _ = train(make_members(count), 20)
    params, terms = train(make_members(count), 20, limit=0.3)
    assert any(not torch.equal(params[name], free[name]) for name in params)
    for k, member in enumerate(make_members(count)):
        expected = train_alone(member, k, count, 20, limit=0.3)
        torch.testing.assert_close(torch.stack([one[k] for one in terms]), torch.stack(expected), rtol=1e-5, atol=1e-8)


def test_a_rate_of_zero_moves_nothing() -> None:
    members = make_members(2)
    before, params = stacked(members), stacked(members)
    first, second = ({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2))
    one = inputs(2, 0)
    rate, root = torch.tensor([0.0, 0.1], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    rows = (one["labelled"], one["unlabelled"])
    step = make_step(members[0], FEED, noise_size=18, compiled=False)
    step(params, first, second, one["hyper"], {}, {}, rate, root, root * 0, root, one["keys"], *rows, PIXELS, CLASSES)
    assert torch.equal(params["matrix"][0], before["matrix"][0])
    assert not torch.equal(params["matrix"][1], before["matrix"][1])


def test_pixels_are_brought_to_0_1_and_nothing_else() -> None:
    class Spy(Toy):
        term_names = ("labelled", "unlabelled")

        def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            total = (self.bias.sum() * batch.x_labelled).sum()
            return total, torch.stack([batch.x_labelled.sum(), batch.x_unlabelled.sum()]) + 0.0 * total

    _, terms = train([Spy(torch.Generator()).double()], 1)
    one = inputs(1, 0)
    for found, rows in zip(terms[0][0], (one["labelled"][0], one["unlabelled"][0]), strict=True):
        assert found.item() == pytest.approx(PIXELS[rows].sum().item() / 16.0, rel=1e-12)
