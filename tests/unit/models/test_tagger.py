"""Tagger and RTagger: settings that are refused, what scores depend on, classes of two objects, masks and costs."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from ladder_search.errors import LadderSearchError
from ladder_search.models.rtagger import RTagger, RTaggerConfig
from ladder_search.models.tagger import Tagger, TaggerConfig
from ladder_search.nn.classes import wrong
from ladder_search.nn.grouping import Grouping, class_probabilities
from ladder_search.nn.likelihoods import Continuous
from ladder_search.nn.protocol import Batch, Windows

SMALL = TaggerConfig(pixels=9, widths=(8, 6, 4), groups=3, evaluation_iterations=4)
SQUARE = RTaggerConfig(side=(4, 4), levels=("conv:2:3:1 lstm:2:3", "dense-lstm:4"), groups=3, segments=3)


def network(config: Any = SMALL, seed: int = 1) -> Grouping:
    build = Tagger if isinstance(config, TaggerConfig) else RTagger
    made: Grouping = build(config, generator=torch.Generator().manual_seed(seed))
    return made


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (SMALL, {"groups": 0}, "model.groups must lie in [1, 64], got 0"),
        (SMALL, {"iterations": 21}, "model.iterations must lie in [1, 20], got 21"),
        (SMALL, {"noise": 0.5}, "model.noise must lie in [0.0001, 0.4999], got 0.5"),
        (SMALL, {"noise": 0.0}, "model.noise must lie in [0.0001, 0.4999], got 0.0"),
        (SMALL, {"likelihood": "continuous", "noise": -1.0}, "model.noise must lie in [0, 10], got -1.0"),
        (SMALL, {"widths": (8,)}, "model.widths must list at least 2 sizes"),
        (SMALL, {"classes": 4}, "the last of model.widths must be the number of classes and one for none, 5, got 4"),
        (SMALL, {"unlabelled": False}, "a network without classes reads unlabelled rows only"),
        (SMALL, {"judged_by": "error"}, "only a network with classes is judged by its error"),
        (SMALL, {"initial_z": 2.0}, "model.initial_z must lie in [0, 1]"),
        (SMALL, {"class_cost": -0.1}, "model.class_cost must lie in [0,"),
        (SQUARE, {"frames": 2}, "model.frames must be 1, for images, or at least 3, got 2"),
        (SQUARE, {"levels": ("dense-lstm:3", "dense:2")}, "only the top of model.levels may be fully connected"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LadderSearchError) as error:
        replace(config, **changes)
    assert words in str(error.value)


def test_a_network_that_does_not_fit_its_data_is_refused() -> None:
    for config, pixels in ((SMALL, 9), (SQUARE, 16)):
        config.check_fits(pixels, 10, "shapes")  # without classes any number fits
        with pytest.raises(
            LadderSearchError, match=f"{pixels + 1} pixels and 10 classes of shapes|{pixels + 1} pixels"
        ):
            config.check_fits(pixels + 1, 10, "shapes")
    with pytest.raises(LadderSearchError, match="10 classes"):
        replace(SMALL, classes=3).check_fits(9, 10, "shapes")


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, norm="bn"), SQUARE])
def test_no_cost_depends_on_masks(config: Any) -> None:
    """A batch of a step has no segments, and ``cost`` and ``statistics`` have no argument for them."""
    for kind in (Batch, Windows):
        assert "segments" not in {field.name for field in fields(kind)}
    model = network(config)
    for method in (model.cost, model.inferences, model.statistics, model.forward):
        assert "segments" not in inspect.signature(method).parameters
    model.zero_grad()
    x, segments = torch.rand(4, model.D).round(), torch.randint(-1, 3, (4, model.D))
    scores = model.scores(x, torch.zeros(4), segments)
    others = model.scores(x, torch.zeros(4), torch.full_like(segments, -1))
    # Only scores depend on segments: without any scored pixel the two partitions are equal.
    assert dict(zip(model.measures, (others[:-1] / 4).tolist(), strict=True))["ami"] == 1.0
    assert scores[-1] == others[-1] == 4
    assert not scores.requires_grad, "the argmax over groups has no gradient"


def test_unscored_pixels_do_not_count() -> None:
    model, x = network(), (torch.rand(4, 9) < 0.5).float()
    segments = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1, -1]).expand(4, 9)
    m = model.trace(x).m[-1].argmax(1)  # (rows, D)
    moved = segments.clone()
    moved[:, 6:] = -1
    assert torch.equal(model.scores(x, torch.zeros(4), segments), model.scores(x, torch.zeros(4), moved))
    relabelled = torch.where(segments >= 0, 1 - segments, segments)
    torch.testing.assert_close(
        model.scores(x, torch.zeros(4), relabelled), model.scores(x, torch.zeros(4), segments), rtol=1e-9, atol=1e-12
    )
    assert m.shape == (4, 9)


def test_one_group_scores_nothing() -> None:
    model, x = network(replace(SMALL, groups=1)), torch.rand(4, 9).round()
    segments = torch.tensor([0, 0, 0, 1, 1, 1, 1, -1, -1]).expand(4, 9)
    scores = dict(zip((*model.measures, "rows"), model.scores(x, torch.zeros(4), segments).tolist(), strict=True))
    assert scores["ami"] == scores["ami_arithmetic"] == 0.0


def test_evaluations_are_the_same_in_every_call_and_read_the_evaluation_iterations() -> None:
    model, x = network(), torch.rand(5, 9).round()
    assert torch.equal(model(x), model(x))
    assert model.trace(x).m.shape == (4, 5, 3, 9) and network(replace(SMALL, iterations=1)).trace(x).m.shape[0] == 4
    assert model.scored_rows == 100 and network(SQUARE).scored_rows == 100
    assert network(replace(SQUARE, statistics="stored")).scored_rows is None
    torch.testing.assert_close(model.trace(x).m.sum(2), torch.ones(4, 5, 9))


@pytest.mark.parametrize("likelihood", ["binary", "continuous"])
def test_the_noise_of_evaluations_has_its_level(likelihood: Any) -> None:
    model, x = network(replace(SMALL, likelihood=likelihood, noise=0.3)), torch.zeros(2000, 9)
    corrupted = model.trace(x).corrupted[0]
    level = corrupted.mean() if likelihood == "binary" else corrupted.std()
    assert abs(float(level) - 0.3) < 0.01


def test_errors_of_one_and_of_two_classes() -> None:
    p = torch.tensor([[0.5, 0.3, 0.1, 0.1]] * 5)
    assert wrong(p, torch.tensor([0, 1, 2, 3, 0])).tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    two = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]])  # the last: equal digits
    assert wrong(p, two).tolist() == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_class_probabilities_drop_none_and_sum_to_one() -> None:
    logits = torch.randn(3, 5, 4, dtype=torch.float64)
    p = torch.softmax(logits, -1)[..., :3].sum(0)
    torch.testing.assert_close(class_probabilities(logits), p / p.sum(-1, keepdim=True))
    extreme = torch.tensor([[[-1e4, -2e4, 1e4]]], dtype=torch.float64)  # none with probability 1
    torch.testing.assert_close(class_probabilities(extreme), torch.tensor([[1.0, 0.0]], dtype=torch.float64))


def test_widths_vary_without_the_top_of_classes() -> None:
    assert SMALL.variation() == {"widths": "8-6-4"}
    assert SMALL.varied({"widths": "20-10"}).widths == (20, 10)
    classified = replace(SMALL, classes=3)
    assert classified.variation() == {"widths": "8-6"}
    assert classified.varied({"widths": "20-10-5"}).widths == (20, 10, 5, 4)
    assert classified.varied({}) == classified


def test_operations_are_those_of_the_facts() -> None:
    """6.1 of the facts: Shapes 0.68 GFLOP per sample with 2000-1000-500, and 0.10 with 500-250-125."""
    assert TaggerConfig().flops(7, 1) == pytest.approx(0.68e9, rel=0.01)
    assert TaggerConfig(widths=(500, 250, 125)).flops(7, 1) == pytest.approx(0.1e9, rel=0.03)
    assert TaggerConfig(classes=499).flops(7, 1) == 8 * TaggerConfig().flops(0, 1)


def test_settings_of_evaluations_are_part_of_the_signature() -> None:
    """A pack evaluates all of its members with one network, whose noise and iterations must be theirs."""
    for config in (SMALL, SQUARE):
        for changes in ({"noise": 0.21}, {"evaluation_iterations": 2}, {"groups": 4}, {"segments": 2}):
            assert replace(config, **changes).signature() != config.signature()
        assert replace(config, class_cost=0.3).signature() == config.signature()


def test_states_and_feedback_persist_over_iterations() -> None:
    """With both, what a later iteration finds depends on the earlier ones' states; without any, only on z and m."""
    x = [torch.rand(2, 16) for _ in range(3)]
    m = torch.softmax(torch.randn(3, 2, 16), 0)
    found = {}
    for name, changes in {
        "both": {}, "states": {"feedback": False}, "feedback": {"stateful": False},
        "neither": {"stateful": False, "feedback": False},
    }.items():  # fmt: skip
        model = network(replace(SQUARE, **changes))
        found[name] = model.inferences(x, m)
    for name in ("states", "feedback", "neither"):
        assert not torch.equal(found["both"][-1].m, found[name][-1].m)


@pytest.mark.parametrize("rate", [1.0, 40.0])
def test_adam_changes_w_by_the_rate_times_the_learning_rate(rate: float) -> None:
    config = replace(SMALL, likelihood="continuous", noise=0.2, initial_w=-2.0, w_rate=rate)
    model = network(config)
    likelihood = model.likelihood
    assert isinstance(likelihood, Continuous)

    def w() -> float:
        v = likelihood.v().item()
        return (v - 1.0 / v) / 2.0

    assert w() == pytest.approx(-2.0, rel=1e-4)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.rand(20, 9)
    hyper = {"class_cost": torch.tensor([0.0])}
    model.cost(Batch(x[:0], torch.zeros(0).long(), x), torch.randn(model.noise_size(0, 20)), hyper)[0].backward()
    adam.step()
    assert abs(w() + 2.0) == pytest.approx(0.01 * rate, rel=1e-2)


@pytest.mark.parametrize("config", [replace(SMALL, pixels=400, widths=(60, 30)), replace(SQUARE, side=(16, 16))])
def test_estimates_of_an_untrained_network_have_the_set_mean_and_scale(config: Any) -> None:
    config = replace(config, likelihood="continuous", noise=0.2)
    x = torch.rand(50, 256 if isinstance(config, RTaggerConfig) else 400)
    plain = network(config).trace(x).z[0].detach()
    scaled = network(replace(config, initial_scale=0.25, initial_mean=0.5)).trace(x).z[0].detach()
    # The first iteration reads the same, so its estimates are those of the authors' start, scaled and shifted.
    assert torch.allclose(scaled, 0.25 * plain + 0.5, atol=1e-5)
    if isinstance(config, TaggerConfig):
        assert float(plain.std()) == pytest.approx(1.0, abs=0.05) and abs(float(plain.mean())) < 0.05
