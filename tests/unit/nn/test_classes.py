"""Costs and errors of images with several classes: by hand, and in the training of ladders."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ladder_search.data import datasets
from ladder_search.metrics import COST_SUPERVISED
from ladder_search.models import find_family
from ladder_search.models.conv_ladder import ConvLadderConfig
from ladder_search.models.ladder import LadderConfig
from ladder_search.nn.classes import cross_entropy, shares, wrong
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.nn.protocol import Batch, ModelConfig
from ladder_search.training.feeding import training_feed
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import DataConfig, TrialSpec

CPU = torch.device("cpu")
LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]))
PAIRS = torch.tensor([[1, 0, 1], [0, 1, 0]])  # the second image has two objects of one class

DENSE = LadderConfig(widths=(784, 20, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1))
CONVOLUTIONS = ConvLadderConfig(
    image=(1, 28, 28), layers=("convf:4:3:1", "maxpool:4:4", "convv:10:3:1", "globalmeanpool"), noise_std=(0.3,) * 5,
    lambda_=(0.0,) * 5, decoder="none",
)  # fmt: skip
LADDERS = [("ladder", DENSE), ("ladder-conv", CONVOLUTIONS)]


def test_a_row_of_k_classes_has_the_cross_entropy_against_their_shares() -> None:
    by_hand = -((math.log(0.5) + math.log(0.2)) / 2 + math.log(0.2)) / 2
    assert float(cross_entropy(LOGITS, PAIRS)) == pytest.approx(by_hand)
    assert shares(PAIRS, 3, torch.float64).tolist() == [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]


def test_one_class_per_row_is_the_usual_cross_entropy_and_error() -> None:
    logits, y = torch.randn(50, 7), torch.randint(7, (50,))
    hot = functional.one_hot(y, 7)
    assert torch.equal(cross_entropy(logits, y), functional.cross_entropy(logits, y))
    assert torch.allclose(cross_entropy(logits, hot), cross_entropy(logits, y))
    assert torch.equal(wrong(logits, hot), (logits.argmax(-1) != y).double())


def test_the_error_is_the_share_of_classes_that_are_not_among_the_most_probable() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    y = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 0]])
    assert wrong(probabilities, y).tolist() == [0.5, 0.0, 1.0]


@pytest.mark.parametrize(("family", "model"), LADDERS)
def test_the_cost_of_two_classes_is_the_mean_of_their_costs(family: str, model: ModelConfig) -> None:
    network = find_family(family).build(model, generator=torch.Generator().manual_seed(1))
    x, hyper = torch.rand(12, 784), {name: torch.tensor(each) for name, each in model.hyper().items()}
    y, other = torch.randint(5, (6,)), torch.randint(5, 10, (6,))
    noise = torch.randn(network.noise_size(6, 6))

    def supervised(target: torch.Tensor) -> float:
        terms = network.cost(Batch(x[:6], target, x[6:]), noise, hyper)[1].detach()
        return float(terms[network.term_names.index(COST_SUPERVISED)])

    pairs = functional.one_hot(y, 10) + functional.one_hot(other, 10)
    assert supervised(functional.one_hot(y, 10)) == pytest.approx(supervised(y), rel=1e-6)
    assert supervised(pairs) == pytest.approx((supervised(y) + supervised(other)) / 2, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize(("family", "model"), LADDERS)
def test_ladders_are_trained_and_judged_on_images_of_two_objects(
    family: str, model: ModelConfig, weight: float
) -> None:
    if weight and not model.teachable:
        pytest.skip("a network without a decoder has no teacher")
    spec = TrialSpec(
        family=family,
        data=DataConfig(dataset="freq20-2digits", labels=None, validation=100),
        model=model,
        training=TrainingConfig(epochs=1, labelled_batch=50, unlabelled_batch=50),
        teacher=TeacherConfig(weight=weight),
    )
    dataset = datasets.load("freq20-2digits")
    spec.check_fits(dataset)
    member = spec.member(dataset)
    pack = spec.pack(dataset, slots=1, compiled=False, device=CPU)
    slot = pack.join(member)
    assert pack.run(2)[0].terms["cost_supervised"] > math.log(2)  # the mean entropy of the targets is lower
    feed = training_feed(member, dataset, CPU)
    network, rows = pack.module(slot), torch.as_tensor(member.split.validation)[None]
    with torch.no_grad():
        errors = [wrong(network(x[0]), y[0]) for x, y in feed.chunks(rows, 100, torch.float32)]
    assert {len(y[0, 0]) for _, y in feed.chunks(rows, 100, torch.float32)} == {10}
    assert pack.validation_scores()[slot]["error"] == pytest.approx(float(torch.cat(errors).mean()))
