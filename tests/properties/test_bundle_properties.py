"""Settings survive a bundle, whatever they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("safetensors")
pytest.importorskip("yaml")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_search.bundles.bundle import BundleMetrics, read_bundle, write_bundle
from ladder_search.data.config import DataConfig
from ladder_search.models.ladder import LadderConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec

sigmas = st.floats(0.0, 10.0)
weights = st.floats(0.0, 1e7)
fractions = st.floats(0.0, 1.0)
sizes = st.integers(2, 10**9)
seeds = st.integers(0, 2**63 - 1)
texts = st.text(max_size=30)
plain = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts
)


@st.composite
def models(draw: st.DrawFn) -> LadderConfig:
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    decoder = draw(st.sampled_from(("full", "gamma", "none")))
    decoded = {"full": len(widths), "gamma": 1, "none": 0}[decoder]
    lambda_ = [0.0] * (len(widths) - decoded) + [draw(weights) for _ in range(decoded)]
    return LadderConfig(
        widths=tuple(widths),
        noise_std=tuple(draw(sigmas) for _ in widths),
        lambda_=tuple(lambda_),
        decoder=decoder,
        combinator=draw(
            st.sampled_from(("gauss", "gated-gauss", "vanilla", "rand-init", "linear", "mlp-4", "amlp-2-2"))
        ),
        combinator_std=draw(sigmas),
        lateral=draw(st.booleans()),
        activation=draw(st.sampled_from(("relu", "leaky-relu"))),
    )


trials = st.builds(
    TrialSpec,
    family=st.just("ladder"),
    data=st.builds(
        DataConfig,
        dataset=st.sampled_from(("digits", "mnist")),
        labels=st.none() | st.integers(1, 10**9),
        validation=st.integers(0, 10**9),
    ),
    model=models(),
    training=st.builds(
        TrainingConfig,
        epochs=sizes,
        lr=fractions,
        decay_start=fractions,
        labelled_batch=sizes,
        unlabelled_batch=sizes,
        dtype=st.sampled_from(("float32", "float64")),
    ),
    seed=seeds,
    label_seed=seeds,
    draws=st.integers(1, 100),
)
metrics = st.builds(
    BundleMetrics,
    trial=texts,
    state=texts,
    validation_error=st.none() | fractions,
    weights_validation_error=st.none() | fractions,
    test_error=st.none() | fractions,
    step=st.none() | sizes,
    epochs=st.lists(st.dictionaries(texts, plain, max_size=3), max_size=3).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(spec=trials, study=texts, metrics=metrics, provenance=st.dictionaries(texts, plain, max_size=4))
def test_a_bundle_gives_back_what_it_was_given(
    spec: TrialSpec, study: str, metrics: BundleMetrics, provenance: dict[str, object]
) -> None:
    module = spec.empty_module().to(torch.float32 if spec.training.dtype == "float32" else torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        given_ = {"study": study, "spec": spec, "module": module, "metrics": metrics, "provenance": provenance}
        digest = write_bundle(Path(folder) / "a", **given_)  # type: ignore[arg-type]
        found = read_bundle(Path(folder) / "a")
        assert write_bundle(Path(folder) / "b", **given_) == digest == found.digest  # type: ignore[arg-type]
    assert (found.spec, found.study, found.metrics, found.provenance) == (spec, study, metrics, provenance)
    for name, value in found.module().state_dict().items():
        assert torch.equal(value, module.state_dict()[name])
