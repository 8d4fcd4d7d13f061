"""Textured digits in two stages: what the second takes from the first, what it refuses, and its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder_search.bundles.shelf import Shelf
from ladder_search.config import as_mapping
from ladder_search.data import datasets
from ladder_search.errors import SettingError
from ladder_search.models.tagger import Tagger, TaggerConfig
from ladder_search.trial import TrialSpec

CPU = torch.device("cpu")
FIRST = TaggerConfig(
    pixels=196, widths=(20, 12), norm="bn", groups=2, iterations=2, evaluation_iterations=2, likelihood="continuous",
    initial_z=0.5, segments=2,
)  # fmt: skip
SECOND = replace(FIRST, widths=(20, 12, 11), iterations=3, classes=10, judged_by="error", approach="fine-tuned")


def two_stages(first: TaggerConfig = FIRST, second: TaggerConfig = SECOND, **changes: Any) -> TrialSpec:
    data = {"dataset": "freq20-1digits-small", "labels": 100, "validation": 297}
    source = {
        "family": "tagger",
        "data": {**data, "labels": None},
        "model": as_mapping(first),
        "training": {"epochs": 1, "labelled_batch": 50, "unlabelled_batch": 50},
    }
    return TrialSpec.from_mapping(
        {
            "family": "tagger",
            "data": data,
            "model": as_mapping(second),
            "training": {"epochs": 1, "labelled_batch": 20, "unlabelled_batch": 50},
            "sources": {"unlabelled": source},
            **changes,
        }
    )


def test_the_second_stage_starts_from_the_first_and_has_random_weights_above(tmp_path: Path) -> None:
    spec, dataset = two_stages(), datasets.load("freq20-1digits-small")
    spec.check_fits(dataset)
    sources = Shelf(tmp_path / "sources").networks(spec)
    trained = sources["unlabelled"].state_dict()
    fresh = Tagger(FIRST, generator=torch.Generator().manual_seed(1)).state_dict()
    assert not torch.equal(trained["W.1"], fresh["W.1"]), "the first stage is trained"

    member = spec.member(dataset, sources=sources)
    pack = spec.pack(dataset, slots=1, compiled=False, device=CPU)
    slot = pack.join(member)
    start = {name: value.clone() for name, value in pack.module(slot).state_dict().items()}
    taken = {name for name, value in start.items() if name in trained and torch.equal(value, trained[name])}
    assert taken == set(trained) - {"gamma"}
    assert set(start) - taken == {"gamma", "W.2", "beta.2", "V.1", "g.2.a"}
    assert start["W.2"].shape == (11, 12) and float(start["W.2"].std()) == pytest.approx(12**-0.5, rel=0.2)

    terms = pack.run(3)[slot].terms
    assert 0.0 < terms["cost_supervised"] < 1.0
    assert not torch.equal(pack.module(slot).state_dict()["W.0"], start["W.0"]), "all levels are trained further"
    # A source is trained once for all trials with its settings.
    again = Shelf(tmp_path / "sources", report=lambda epoch, epochs: pytest.fail("it was trained again"))
    assert torch.equal(again.networks(spec)["unlabelled"].state_dict()["W.1"], trained["W.1"])


def test_a_whole_network_takes_the_softmax_too() -> None:
    second = replace(FIRST, approach="fine-tuned")
    source = Tagger(FIRST, generator=torch.Generator().manual_seed(1))
    assert set(second.taken_over([source])) == set(source.state_dict())


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"widths": (20, 11)}, r"the same widths, \(20, 12\), source unlabelled has \(20, 11\)"),
        ({"norm": "ln"}, "the same norm, bn, source unlabelled has ln; set sources.unlabelled.model.norm to it"),
        ({"pixels": 784}, "the same pixels, 196, source unlabelled has 784"),
        ({"w_rate": 5.0}, "the same w_rate, 1.0, source unlabelled has 5.0"),
    ],
)
def test_a_source_with_other_levels_is_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(SettingError, match=rule):
        two_stages(first=replace(FIRST, **changes))


def test_a_second_stage_needs_one_source_of_its_family() -> None:
    with pytest.raises(SettingError, match="starts from one source, got 0; give one of sources.NAME"):
        two_stages(sources={})
    source = two_stages().as_mapping()["sources"]["unlabelled"]
    with pytest.raises(SettingError, match="a source of tagger must be of the family tagger"):
        two_stages(sources={"a": {**source, "family": "ladder", "model": {}}})
    assert not two_stages(second=replace(SECOND, approach="scratch")).stages
