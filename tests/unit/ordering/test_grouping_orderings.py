"""Orderings of grouping networks: studies after an iteration, larger AMI is better, and how many seeds converged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ladder_search.errors import SettingError
from ladder_search.final.results import FinalResult, SeedResult
from ladder_search.ordering.claims import Claim, find_ordering, trained
from ladder_search.ordering.judging import Reached, judged
from ladder_search.report.orderings import sentences
from ladder_search.studies import find_study

SHAPES = find_ordering("shapes-small")


def result(name: str, scores: dict[int, dict[str, float] | None]) -> FinalResult:
    study = find_study(name)
    outcomes = (
        SeedResult(seed=seed, test_error=None if one is None else next(iter(one.values())), test_scores=one or {})
        for seed, one in scores.items()
    )
    return FinalResult(
        study=name, spec=study.trial(), target=None, outcomes=tuple(outcomes), data_digest="", settings_digest="",
        compiled=False, device="cpu", seconds=0.0,
    )  # fmt: skip


LAYER = {1: {"ami": 0.33, "ami_1": 0.26}, 2: {"ami": 0.34, "ami_1": 0.25}, 3: {"ami": 0.32, "ami_1": 0.27}}
BATCH = {1: {"ami": 0.06, "ami_1": 0.05}, 2: {"ami": 0.12, "ami_1": 0.07}, 3: None}


def test_a_training_is_judged_after_its_iterations() -> None:
    whole = {1: {"ami": 0.33, "ami_1": 0.26, "ami_3": 0.32, "ami_5": 0.33}}
    results = {"shapes-small": [result("shapes-small", whole)]}
    found = {
        name: Reached.of(name, results[trained(name)], SHAPES.measure_of(name)).values[1]
        for name in SHAPES.studies
        if trained(name) in results
    }
    assert found == {
        "shapes-small": 0.33, "shapes-small@1": 0.26, "shapes-small@3": 0.32, "shapes-small@5": 0.33,
    }  # fmt: skip
    assert [study.name for study in SHAPES.rows] == ["shapes-small", "shapes-small-bn"]


def test_claims_are_held_where_the_larger_ami_is_the_better_ones() -> None:
    reached = [
        Reached(study="shapes-small", values={1: 0.33, 2: 0.34, 3: 0.32}),
        Reached(study="shapes-small@1", values={1: 0.26, 2: 0.25, 3: 0.27}),
        Reached(study="shapes-small@5", values={1: 0.33, 2: 0.34, 3: 0.32}),
        Reached(study="shapes-small-bn", values={1: 0.06, 2: 0.08, 3: 0.07}),
    ]
    verdicts = [claim.verdict for claim in judged(SHAPES, reached).claims]
    assert verdicts == ["held", "held"]
    turned = [replace(one, values={seed: 0.4 - value for seed, value in one.values.items()}) for one in reached]
    assert [claim.verdict for claim in judged(SHAPES, turned).claims] == ["contradicted", "contradicted"]


def test_a_study_without_the_iteration_is_refused() -> None:
    claims = (Claim(first="shapes-small@5", second="shapes-small@6", text=""),)
    with pytest.raises(SettingError, match="by the measure ami_6, and shapes-small@6 is judged by ami"):
        replace(SHAPES, studies=("shapes-small@5", "shapes-small@6"), claims=claims)


def test_every_table_says_how_many_seeds_converged() -> None:
    layer, batch = result("shapes-small", LAYER), result("shapes-small-bn", BATCH)
    assert layer.converged == (1, 2, 3) and batch.converged == (2,), "an AMI of 0.1 or more, and finite"
    assert "converged in 3 of 3 seeds (AMI of at least 0.100)" in str(layer)
    assert "1 of 3 diverged (3), converged in 1 of 3 seeds (AMI of at least 0.100)" in str(batch)
    reached = [Reached.of(name, [one], "ami") for name, one in (("shapes-small", layer), ("shapes-small-bn", batch))]
    assert "Converged seeds (AMI of at least 0.100): shapes-small in 3 of 3, shapes-small-bn in 1 of 3." in sentences(
        judged(SHAPES, reached)
    )


def test_a_network_judged_by_its_error_converges_by_its_ami() -> None:
    scores = {1: {"error": 0.1, "ami": 0.5}, 2: {"error": 0.2, "ami": 0.01}}
    found = result("freq20-1mnist-tagger", scores)
    assert found.converged == (1,) and found.spec.measure.name == "error"


def test_other_families_have_no_rule() -> None:
    found = result("digits-100", {1: {"error": 0.9}})
    assert found.convergence is None and found.converged == (1,) and "converged" not in str(found)


def test_a_row_of_the_paper_without_a_study_is_quoted_beside_the_others() -> None:
    shapes = find_ordering("shapes")
    reached = [
        Reached(study="shapes-ln", values={1: 0.95, 2: 0.96}),
        Reached(study="shapes-bn", values={1: 0.55, 2: 0.65}),
    ]
    line = next(line for line in sentences(judged(shapes, reached)) if line.startswith("Not trained here"))
    assert line == (
        "Not trained here: reconstruction clustering, published 0.610 ± 0.005 (unverified) (from memory); better "
        "means: shapes-ln."
    )
    assert not SHAPES.references, "the small drawing has no published number"
