"""Thaker's rows as the facts have them, their standing, and the controls beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from ladder_search.models.progressive import ProgressiveConfig
from ladder_search.studies import STUDIES, Study
from ladder_search.studies.progressive import wider

TARGETS = {
    "svhn-from-ladder": 77.7,
    "svhn-from-random-published": 77.7,
    "svhn-raw-no-alpha": 7.0,
    "svhn-scratch-published": 35.0,
    "svhn-conv-from-gamma": 50.0,
    "svhn-conv-from-supervised-100": 50.0,
    "svhn-alexnet": 30.43,
}
"""Accuracies in per cent; no other row of the family has a published number."""


def rows() -> list[Study]:
    return [study for study in STUDIES.values() if study.family.startswith("progressive")]


def test_published_numbers_are_the_reports_and_say_what_they_are_worth() -> None:
    found = {study.name: study.target for study in rows() if study.target is not None}
    assert found.keys() == TARGETS.keys()
    for name, target in found.items():
        assert 100 * (1 - target.error) == pytest.approx(TARGETS[name])
        assert (target.seeds, target.spread) == (1, None) and "one run" in str(target)
    assert str(found["svhn-from-ladder"]) == "22.30 % (one run; its source's weights were never used)"


@pytest.mark.parametrize("prefix", ["svhn", "meter-digits", "usps", "house-numbers"])
def test_every_target_has_the_four_approaches_and_the_controls(prefix: str) -> None:
    main = "progressive-digits" if prefix == "house-numbers" else f"{prefix}-from-ladder"
    ladder, scratch = STUDIES[main], STUDIES[f"{prefix}-scratch"]
    supervised, tuned, random = (
        STUDIES[f"{prefix}-{name}"] for name in ("from-supervised", "fine-tuned", "from-random")
    )
    (semi,), (full,), (none,) = (list(study.sources.values()) for study in (ladder, supervised, random))
    assert (semi.data.labels, semi.model.decoder, semi.model.lambda_[0]) == (100, "full", 1000.0)
    assert (full.data.labels, full.model.decoder) == (None, "none")
    assert none.weights == "random" and semi.weights == full.weights == "trained"
    assert semi.stop_at == full.stop_at  # equal accuracy, or none is asked of either
    assert ladder.model == supervised.model == random.model
    assert tuned.sources == ladder.sources and tuned.model.approach == "fine-tuned"
    assert scratch.model == replace(ladder.model, approach="scratch") and not scratch.sources
    assert len({study.training for study in (ladder, scratch, supervised, tuned, random)}) == 1
    published = STUDIES[f"{prefix}-scratch-published"].model
    assert (published.head, published.pixels, published.batch_norm) == ("double-softmax", "raw", False)


def test_the_wider_column_has_as_many_weights_as_column_and_adapters() -> None:
    widths = ProgressiveConfig().widths
    adapters = sum(n_in * n_out + n_out * n_out for n_in, n_out in pairwise(widths[1:]))
    wanted = sum(a * b for a, b in pairwise(widths)) + adapters
    assert sum(a * b for a, b in pairwise(wider(widths))) == pytest.approx(wanted, rel=0.001)
    assert STUDIES["svhn-wider"].model.widths == wider(widths) == (784, 1453, 727, 363, 363, 363, 10)


def test_networks_and_sources_of_all_rows_can_be_built() -> None:
    for study in rows():
        spec = study.trial()
        sources = spec.empty_sources()
        assert set(sources) == (set(study.sources) if study.model.staged else set())
        assert set(spec.empty_network().state_dict())


def test_the_alexnet_ends_in_250_by_1_by_1() -> None:
    sizes = STUDIES["svhn-alexnet"].model.network.sizes
    assert sizes[7] == (250, 1, 1) and STUDIES["svhn-alexnet"].model.lateral_layers == (8, 9, 10)
