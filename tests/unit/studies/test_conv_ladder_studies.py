"""Every convolutional row against the table as it was typed from the paper's sources."""

from __future__ import annotations

import pytest

from ladder_search.studies import STUDIES, grouping, grouping_digits

OF_GROUPING = {study.name for study in (*grouping.STUDIES, *grouping_digits.STUDIES)}
"""Studies of papers on grouping, also those of their baselines."""
FC = "convv:1000:26:1 convv:500:1:1 convv:250:1:1 convv:250:1:1 convv:250:1:1 convv:10:1:1 globalmeanpool"
SMALL = "convf:32:5:1 maxpool:2:2 convv:64:3:1 convf:64:3:1 maxpool:2:2 convv:128:3:1 convv:10:1:1 globalmeanpool fc:10"
LARGE = (
    "convv:96:3:1 convf:96:3:1 convf:96:3:1 maxpool:2:2 convv:192:3:1 convf:192:3:1 convv:192:3:1 maxpool:2:2 "
    "convv:192:3:1 convv:192:1:1 convv:10:1:1 globalmeanpool"
)

# name: layers, decoder, lambda_0..lambda_L, local noise, epochs, decay start,
#       error, standard deviation, error confirmed, deviation confirmed
ROWS = {
    "mnist-100-conv-fc": (
        (FC, "full", (1000, 10, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), 0.3, 150, 0.67),
        (0.0099, 0.0015, False, False),
    ),
    "mnist-100-conv-small-gamma": (
        (SMALL, "gamma", (0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 0.3, 150, 0.67),
        (0.0089, 0.0050, True, False),
    ),
    "mnist-100-conv-small-supervised": (
        (SMALL, "none", (0,) * 10, 0.45, 20, 0.5),
        (0.0643, 0.0084, True, False),
    ),
    "cifar10-4000-conv-large-gamma": (
        (LARGE, "gamma", (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4), 0.3, 70, 0.86),
        (0.2040, 0.0047, True, True),
    ),
    "cifar10-4000-conv-large-supervised": (
        (LARGE, "none", (0,) * 13, 0.3, 20, 0.5),
        (0.2333, 0.0061, False, False),
    ),
}


def test_the_convolutional_rows_are_those_of_the_table() -> None:
    own = {name: study for name, study in STUDIES.items() if name not in OF_GROUPING}
    published = {name for name, study in own.items() if study.family == "ladder-conv" and study.target is not None}
    assert published == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_as_published(name: str) -> None:
    (layers, decoder, lambda_, local, epochs, decay_start), (error, deviation, verified, deviation_verified) = ROWS[
        name
    ]
    study = STUDIES[name]
    model, training, target = study.model, study.training, study.target
    assert (study.name, study.family) == (name, "ladder-conv")
    assert " ".join(model.layers) == layers
    assert (model.decoder, model.lambda_) == (decoder, lambda_)
    assert model.noise_std == (0.3, *(local,) * len(model.layers))  # the input's noise is 0.3 in every row
    assert (model.combinator, model.lateral) == ("gauss", True)
    cifar = name.startswith("cifar10")
    assert (model.activation, model.top_gamma) == (("leaky-relu", False) if cifar else ("relu", True))
    assert model.image == ((3, 32, 32) if cifar else (1, 28, 28))
    expected = ("cifar10", 4000, 10_000, "gcn-zca") if cifar else ("mnist", 100, 10_000, "none")
    assert (study.data.dataset, study.data.labels, study.data.validation, study.data.preprocessing) == expected
    assert (training.lr, training.epochs, training.decay_start) == (0.002, epochs, decay_start)
    assert (training.labelled_batch, training.unlabelled_batch) == (100, 100)
    assert target is not None
    assert target.error == pytest.approx(error, abs=1e-12) and target.spread == pytest.approx(deviation, abs=1e-12)
    assert (target.spread_kind, target.seeds) == ("standard deviation", 10)
    assert (target.verified, target.spread_verified) == (verified, deviation_verified)


def test_the_small_studies_are_ours_and_promise_nothing() -> None:
    for name in ("digits-100-conv-small-gamma", "digits-100-conv-small-supervised"):
        assert STUDIES[name].target is None
        assert STUDIES[name].model.network.sizes[-1] == (10, 1, 1)


# GFLOP of a step of 100+100 rows in the table, with the clean path on unlabelled rows alone, and rows in its encoder;
# it counts the gradient of the first layer's input, which is never taken: 2 * multiplications of one row and rows.
FLOPS = {
    "mnist-100-conv-fc": (30.9, 26 * 26 * 1000 * 9, 300),
    "mnist-100-conv-small-gamma": (29.8, 25 * 32 * 32 * 32, 300),
    "mnist-100-conv-small-supervised": (9.9, 25 * 32 * 32 * 32, 100),
    "cifar10-4000-conv-large-gamma": (728, 27 * 96 * 30 * 30, 300),
    "cifar10-4000-conv-large-supervised": (243, 27 * 96 * 30 * 30, 100),
}


@pytest.mark.parametrize("name", FLOPS)
def test_a_step_has_as_many_products_as_in_the_table(name: str) -> None:
    gigaflops, first, rows = FLOPS[name]
    found = STUDIES[name].model.flops(100, 100) / 1e9
    assert found + 2e-9 * first * rows == pytest.approx(gigaflops, rel=0.01)
