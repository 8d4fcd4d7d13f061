"""One contract for all families: what a pack, a search and an export ask of a model, on a tiny network of each."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.config import as_mapping, build
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.metrics import NLL
from ladder_search.models import FAMILIES
from ladder_search.nn.grouping import GroupingConfig
from ladder_search.nn.protocol import SOURCES as PREFIX
from ladder_search.nn.protocol import Batch, StagedConfig, Windows
from ladder_search.training.feeding import feed_of_test_set
from ladder_search.training.pack import IntervalReport, MemberSpec, Pack
from ladder_search.trial import TrialSpec
from spaces import find_space

MUSIC = tuple(name for name, family in FAMILIES.items() if family.small.measure is NLL)
"""Families that read music."""
GROUPING = tuple(name for name, family in FAMILIES.items() if isinstance(family.small, GroupingConfig))
"""Families that group pixels without labels and are judged by the true segments of images."""
TERMS = {name: ("cost",) if name in GROUPING else ("cost", "cost_supervised") for name in FAMILIES}
"""Terms of a step's cost that every network of a family has, the last of which falls."""


@functools.cache
def dataset_of(family: str) -> Dataset:
    """Digits, digits that move, shapes, or pieces of which each step has the next key down, and others by chance."""
    if family in GROUPING:
        return datasets.load("shapes-small")
    if family not in MUSIC:
        return datasets.load("occluded-digits-mini" if len(FAMILIES[family].small.example_shape) == 3 else "digits")
    random = np.random.default_rng(1)

    def piece(steps: int) -> np.ndarray:
        roll = (random.random((steps, KEYS)) < 0.01).astype(np.uint8)
        roll[np.arange(steps), (7 * np.arange(steps)) % KEYS] = 1
        return roll

    train, valid, test = (tuple(piece(n) for n in lengths) for lengths in ((9, 30, 17, 25, 12, 21), (14, 8), (20, 11)))
    return as_dataset(MusicCorpus(name="jsb-chorales", train=train, valid=valid, test=test, digest="d" * 64))


def sources_of(family: str) -> dict[str, Any]:
    """Earlier stages, where the family has any; their networks stay as they are initialised."""
    stage = FAMILIES[family].stage
    if stage is None:
        return {}
    data = {"dataset": "digits", "labels": 40, "validation": 97}
    model = as_mapping(FAMILIES[stage].small)
    return {"digits": {"family": stage, "data": data, "model": model, "training": {"epochs": 1}}}


def spec_of(family: str, *, seed: int = 1, dtype: str = "float64") -> TrialSpec:
    data = {"dataset": dataset_of(family).name, "labels": 40, "validation": 97}
    if family in MUSIC:
        data |= {"labels": None, "validation": 2}
    training = {"epochs": 2, "labelled_batch": 10, "unlabelled_batch": 20, "dtype": dtype, "window": 8}
    return TrialSpec.from_mapping(
        {
            "family": family,
            "data": data,
            "model": as_mapping(FAMILIES[family].small),
            "training": training,
            "sources": sources_of(family),
            "seed": seed,
        }
    )


def member_of(family: str, seed: int = 1) -> MemberSpec:
    spec = spec_of(family, seed=seed)
    return spec.member(dataset_of(family), sources=spec.empty_sources())


def network_of(family: str) -> Any:
    spec = spec_of(family)
    return FAMILIES[family].build(
        spec.model, generator=torch.Generator().manual_seed(1), sources=list(spec.empty_sources().values())
    )


def examples_of(family: str) -> tuple[Batch | Windows, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """A batch, what statistics are taken of, and what a network is judged by; of random numbers."""
    if family not in MUSIC:
        x = torch.rand(30, *spec_of(family).model.example_shape, dtype=torch.float64)
        batch = Batch(x[:10], torch.arange(10), x[10:])
        segments = (torch.randint(-1, 2, x.shape),) if family in GROUPING else ()
        return batch, (x[:20].view(2, 10, *x.shape[1:]),), (x, torch.arange(30) % 10, *segments)
    model = network_of(family)
    notes = (torch.rand(2, 10, 8, KEYS) < 0.1).double()
    there = torch.arange(8) < torch.randint(1, 9, (10, 1))
    carried = {name: torch.rand(10, *shape, dtype=torch.float64) for name, shape in model.carried.items()}
    windows = Windows(inputs=notes[0], targets=notes[1], present=there, scored=there, carried=carried)
    return windows, (notes, there.expand(2, 10, 8)), (notes[0], notes[1], there)


def new_pack(family: str, slots: int) -> Pack:
    return spec_of(family).pack(dataset_of(family), slots=slots, compiled=False, device=torch.device("cpu"))


def report_of(found: IntervalReport) -> dict[str, Any]:
    """All but the time that it took."""
    return {name: value for name, value in dataclasses.asdict(found).items() if name != "step_time_ms"}


def assert_agree(found: IntervalReport, expected: IntervalReport) -> None:
    mine, theirs = report_of(found), report_of(expected)
    assert mine.pop("terms") == pytest.approx(theirs.pop("terms"), rel=1e-9, abs=1e-12)
    assert mine == theirs


def test_rows_name_spaces_and_stages() -> None:
    for family in FAMILIES.values():
        assert isinstance(family.small, family.config) and find_space(family.space)
        assert (family.stage in FAMILIES) == issubclass(family.config, StagedConfig)


@pytest.mark.parametrize("family", FAMILIES)
class TestAFamily:
    def test_its_settings_come_back_from_json_and_fit_their_data(self, family: str) -> None:
        model = spec_of(family).model
        assert build(FAMILIES[family].config, json.loads(json.dumps(as_mapping(model)))) == model
        assert model.on_network_of(model) == model
        assert hash(model.signature()) == hash(spec_of(family).model.signature())
        assert all(isinstance(value, float) for values in model.hyper().values() for value in values)
        dataset = dataset_of(family)
        spec_of(family).check_fits(dataset)
        assert math.prod(model.example_shape) == dataset.numbers
        assert model.flops(10, 20) > 0

    def test_the_defaults_are_a_model(self, family: str) -> None:
        config = FAMILIES[family].config()
        assert build(FAMILIES[family].config, as_mapping(config)) == config

    def test_a_step_has_the_cost_and_the_terms_that_are_named(self, family: str) -> None:
        spec = spec_of(family)
        model = network_of(family).double()
        hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in spec.model.hyper().items()}
        rows = (10 * 8, 0) if family in MUSIC else (10, 20)
        noise = torch.randn(model.noise_size(*rows), dtype=torch.float64)
        batch, minibatches, judged = examples_of(family)
        total, terms, *carried = model.cost(batch, noise, hyper)
        assert [{name: value.shape[1:] for name, value in one.items()} for one in carried] == (
            [model.carried] if family in MUSIC else []
        )
        assert total.shape == () and terms.shape == (len(model.term_names),)
        assert model.term_names[: len(TERMS[family])] == TERMS[family] and terms[0] == total
        total.backward()
        # The combinators' start hides the weights behind them in the first step; nothing is out of reach.
        trained = {name: value for name, value in model.named_parameters() if not name.startswith(PREFIX)}
        assert all(value.grad is not None for value in trained.values())
        found = model.statistics(*minibatches)
        own = {name: value.shape for name, value in model.named_buffers() if not name.startswith(PREFIX)}
        assert {name: value.shape for name, value in found.items()} == own
        model.load_state_dict({name: value.detach() for name, value in found.items()}, strict=False)
        probabilities, scores = model(judged[0]), model.scores(*judged)
        assert scores.shape == (len(model.measures) + 1,)
        if family in MUSIC:
            assert probabilities.shape == judged[0].shape and 0.0 < probabilities.min() < probabilities.max() < 1.0
            return
        assert scores[-1] == 30
        if family in GROUPING:
            assert probabilities.shape == (30, model.K, model.D)
            torch.testing.assert_close(probabilities.sum(1), torch.ones(30, model.D, dtype=torch.float64))
            return
        assert probabilities.shape == (30, 10)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(30, dtype=torch.float64))

    def test_its_features_are_its_activations_from_the_input_to_the_logits(self, family: str) -> None:
        model = network_of(family)
        if not hasattr(model, "features"):  # no column for a progressive network
            assert family in (*MUSIC, *GROUPING, "recurrent")
            return
        x = torch.rand(5, *model.config.example_shape)
        h = model.features(x)
        assert len(h) == model.config.depth + 1
        assert torch.equal(h[0].reshape(5, -1), x) and torch.equal(torch.softmax(h[-1], dim=-1), model(x))
        assert max(value[0].numel() for value in h) <= model.widest

    def test_members_of_one_pack_agree_with_themselves_alone(self, family: str) -> None:
        together = new_pack(family, 3)
        slots = [together.join(member_of(family, seed)) for seed in (1, 2)]  # one slot stays empty
        found = together.run(12)
        errors = together.validation_errors()
        for seed, slot in zip((1, 2), slots, strict=True):
            alone = new_pack(family, 1)
            alone.join(member_of(family, seed))
            assert_agree(found[slot], alone.run(12)[0])
            # A count of errors is the same; of an NLL the sum over notes may have been taken in another order.
            assert errors[slot] == pytest.approx(alone.validation_errors()[0], rel=1e-13)
        assert found[slots[0]].terms != found[slots[1]].terms

    def test_a_member_that_moves_by_its_state_goes_on_as_if_it_had_stayed(self, family: str) -> None:
        member = member_of(family)
        stayed, first, second = (new_pack(family, 1) for _ in range(3))
        stayed.join(member)
        first.join(member)
        first.run(5)
        stayed.run(5)
        second.join(member, state=first.state(0))
        assert_agree(second.run(7)[0], stayed.run(7)[0])

    def test_a_member_learns_and_becomes_a_plain_network(self, family: str) -> None:
        spec, dataset = spec_of(family), dataset_of(family)
        pack = new_pack(family, 1)
        pack.join(member_of(family))
        first = pack.run(10)[0].terms[TERMS[family][-1]]
        last = pack.run(100)[0].terms[TERMS[family][-1]]
        assert last < first
        network, test = pack.module(0).eval(), feed_of_test_set(spec.member(dataset), dataset, torch.device("cpu"))
        sums = sum(
            network.scores(*(value[0] for value in chunk))
            for chunk in test.chunks(test.everything()[None], 100, torch.float64)
        )
        expected = dict(zip(network.measures, (sums[:-1] / sums[-1]).tolist(), strict=True))
        assert pack.test_scores(test)[0] == pytest.approx(expected)
        again = spec_of(family).empty_module().double()
        again.load_state_dict(network.state_dict())
        x = next(iter(test.chunks(test.everything()[None], 100, torch.float64)))[0][0]
        assert torch.equal(again(x), network(x))
