"""Members of a pack with networks of an earlier stage: constants of the program, each member's own, never changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.datasets import load
from ladder_search.errors import CheckpointError
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import ProgressiveConfig
from ladder_search.nn.protocol import SOURCES
from ladder_search.training.pack import Pack
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig, TrialSpec

WIDTHS = (64, 20, 15, 10)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def spec(seed: int = 1, *, approach: str = "progressive", statistics: str = "source", **model: Any) -> TrialSpec:
    zeros = (0.0,) * 4
    stage = SourceConfig(
        data=DataConfig(dataset="digits", labels=None, validation=297),
        model=LadderConfig(widths=WIDTHS, noise_std=zeros, lambda_=zeros, decoder="none"),
        training=TrainingConfig(epochs=2),
        statistics=statistics,  # type: ignore[arg-type]
    )
    return TrialSpec(
        family="progressive",
        data=DataConfig(dataset="digits", labels=None, validation=297),
        model=ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0, 0.1), approach=approach, **model),  # type: ignore[arg-type]
        training=TrainingConfig(epochs=4, labelled_batch=64, unlabelled_batch=64),
        sources={"digits": stage},
        seed=seed,
    )


def network(seed: int) -> Ladder:
    model = Ladder(spec().sources["digits"].model, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.get_buffer("variance_1").fill_(float(seed))
    return model


def pack_of(*seeds: int, digits: Dataset, slots: int | None = None, **changes: Any) -> Pack:
    pack = spec(**changes).pack(digits, slots=slots or len(seeds), compiled=False, device=CPU)
    for seed in seeds:
        one = spec(seed, **changes)
        pack.join(one.member(digits, sources={"digits": network(seed)}))
    return pack


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("approach", ["progressive", "fine-tuned"])
def test_members_with_sources_of_their_own_train_as_alone(digits: Dataset, approach: str) -> None:
    together = pack_of(1, 2, 3, digits=digits, approach=approach)
    for _ in range(3):
        reports, errors = together.run(10), together.validation_errors()
    for slot, seed in enumerate((1, 2, 3)):
        alone = pack_of(seed, digits=digits, approach=approach)
        for _ in range(3):
            own = alone.run(10)[0]
        agree(reports[slot].terms, own.terms)
        assert errors[slot] == pytest.approx(alone.validation_errors()[0], abs=1.1 / 297)
    assert len({report.terms["cost"] for report in reports.values()}) == 3


def test_a_source_keeps_every_bit_while_its_column_trains(digits: Dataset) -> None:
    pack = pack_of(1, 2, digits=digits)
    pack.run(12)
    for slot, seed in enumerate((1, 2)):
        state = pack.module(slot).state_dict()
        kept = {name.removeprefix("sources.0."): value for name, value in state.items() if name.startswith(SOURCES)}
        theirs = network(seed).state_dict()
        assert kept.keys() == theirs.keys()
        assert all(torch.equal(kept[name], value) for name, value in theirs.items())


def test_the_source_matters(digits: Dataset) -> None:
    one, other = (spec().pack(digits, slots=1, compiled=False, device=CPU) for _ in range(2))
    one.join(spec().member(digits, sources={"digits": network(1)}))
    other.join(spec().member(digits, sources={"digits": network(9)}))
    assert one.run(5)[0].terms["cost"] != other.run(5)[0].terms["cost"]


def test_a_member_moves_by_its_checkpoint_and_finds_its_source_again(digits: Dataset) -> None:
    here, there = pack_of(1, digits=digits), pack_of(2, digits=digits, slots=2)
    here.run(6)
    slot = there.join(spec(1).member(digits, sources={"digits": network(1)}), state=here.state(0))
    agree(there.run(6)[slot].terms, here.run(6)[0].terms)
    module, moved = here.module(0), there.module(slot)
    x = torch.rand(5, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), moved(x), rtol=1e-3, atol=1e-4)


def test_a_slot_is_cleared_of_its_source_and_refilled(digits: Dataset) -> None:
    pack = pack_of(1, 2, digits=digits)
    pack.run(3)
    pack.leave(0)
    assert pack.join(spec(3).member(digits, sources={"digits": network(3)})) == 0
    found = pack.run(8)[0]
    agree(found.terms, pack_of(3, digits=digits).run(8)[0].terms)


def test_without_its_source_a_member_is_refused(digits: Dataset) -> None:
    pack = spec().pack(digits, slots=1, compiled=False, device=CPU)
    with pytest.raises(CheckpointError, match=r"whose 'sources\.0\..*' has the shape .*, got None"):
        pack.join(spec().member(digits))
    assert pack.active == []


def test_adapted_statistics_are_those_of_the_targets_pixels(digits: Dataset) -> None:
    own = spec(statistics="target")
    member = own.member(digits, sources={"digits": network(1)})
    rows = member.split.unlabelled[:1000].reshape(10, 100)
    z = (torch.from_numpy(digits.train_x[rows].copy()).float() / 16.0) @ network(1).W[0].detach().T
    torch.testing.assert_close(member.taken_over["sources.0.mean_1"], z.mean(1).mean(0))
    torch.testing.assert_close(member.taken_over["sources.0.variance_1"], z.var(1, correction=1).mean(0))
    torch.testing.assert_close(member.taken_over["sources.0.W.0"], network(1).W[0].detach())
    assert float(network(1).get_buffer("variance_1")[0]) == 1.0  # the shared network is left as it was
    raw = spec(statistics="target", pixels="raw").member(digits, sources={"digits": network(1)})
    torch.testing.assert_close(raw.taken_over["sources.0.mean_1"], 255.0 * z.mean(1).mean(0), rtol=1e-4, atol=1e-3)
