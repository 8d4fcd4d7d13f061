"""Data on a device: whitened as they are trained on, prepared once for two threads, and in what is exported."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.studies import STUDIES
from ladder_search.training import feeding
from ladder_search.training.feeding import feed_of_test_set, training_feed
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

BASE = STUDIES["digits-100"].trial().as_mapping()
CPU = torch.device("cpu")


def prepared(dataset: Dataset, fitted_on: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows after contrast normalisation and whitening, in NumPy."""

    def contrast(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        return 55.0 * centred / np.linalg.norm(centred, axis=1, keepdims=True)

    seen = contrast(dataset.train_x[fitted_on].astype(float))
    values, vectors = np.linalg.eigh(np.cov(seen, rowvar=False, bias=True) + 0.1 * np.eye(64))
    return (contrast(rows.astype(float)) - seen.mean(axis=0)) @ (vectors / np.sqrt(values)) @ vectors.T


def test_whitening_is_fitted_on_what_is_trained_on_and_applied_to_everything() -> None:
    dataset = datasets.load("digits")
    spec = TrialSpec.from_mapping(merge(BASE, {"data": {"preprocessing": "gcn-zca", "validation": 297}}))
    split = spec.member(dataset).split
    data, test = training_feed(spec.member(dataset), dataset, CPU), feed_of_test_set(spec.member(dataset), dataset, CPU)
    assert data.full_scale == 1.0 and data.x.dtype == test.x.dtype == torch.float32
    for found, rows in ((data.x, dataset.train_x), (test.x, dataset.test_x)):
        expected = prepared(dataset, split.unlabelled, rows)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(test.y, torch.from_numpy(dataset.test_y.astype(np.int64)))
    # Another split holds out other images, nothing held out is the same for every split, and pixels are pixels.
    other, everything = replace(spec, label_seed=2), replace(spec, data=replace(spec.data, validation=0))
    assert not torch.equal(training_feed(other.member(dataset), dataset, CPU).x, data.x)
    assert other.member(dataset).signature() != spec.member(dataset).signature()
    assert everything.member(dataset).signature() == replace(everything, label_seed=2).member(dataset).signature()
    plain = replace(spec, data=replace(spec.data, preprocessing="none"))
    assert training_feed(plain.member(dataset), dataset, CPU).x.dtype == torch.uint8
    assert plain.member(dataset).signature() == TrialSpec.from_mapping(BASE).member(dataset).signature()


def whitened_pack() -> tuple[TrialSpec, Dataset, Pack]:
    """Return settings with whitening, the digits, and a pack with one member of these settings."""
    dataset = datasets.load("digits")
    model = {"widths": [64, 30, 10], "noise_std": [0.3] * 3, "lambda_": [0.0] * 3, "decoder": "none"}
    spec = TrialSpec.from_mapping(merge(BASE, {"data": {"preprocessing": "gcn-zca"}, "model": model}))
    pack = spec.pack(dataset, slots=1, compiled=False, device=CPU)
    pack.join(spec.member(dataset))
    return spec, dataset, pack


def test_a_pack_trains_on_whitened_images_and_is_tested_on_them() -> None:
    spec, dataset, pack = whitened_pack()
    pack.run(60)
    errors = pack.validation_errors()[0], pack.test_errors(feed_of_test_set(spec.member(dataset), dataset, CPU))[0]
    assert max(errors) < 0.6  # 0.9 is guessing
    assert (
        pack.test_errors(feed_of_test_set(TrialSpec.from_mapping(BASE).member(dataset), dataset, CPU))[0] != errors[1]
    )


def test_what_is_exported_takes_pixels_and_whitens_them_itself() -> None:
    spec, dataset, pack = whitened_pack()
    pack.run(20)
    x = feed_of_test_set(spec.member(dataset), dataset, CPU).x
    expected = pack.module(0)(x)
    module = spec.exported(pack.module(0), dataset, CPU)
    torch.testing.assert_close(module(torch.from_numpy(dataset.test_x / 16.0).float()), expected, rtol=1e-3, atol=1e-4)
    again = spec.empty_module()
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x), module(x))
    plain = TrialSpec.from_mapping(BASE)
    network = plain.empty_network()
    assert plain.exported(network, dataset, CPU) is network


def test_two_threads_that_train_on_two_data_sets_each_have_their_own_and_prepare_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host fetches sources in a thread of its own while another thread trains."""
    dataset, own = datasets.load("digits"), STUDIES["digits-100"].trial()
    specs = (own, replace(own, training=replace(own.training, unlabelled_batch=50)))
    prepared: list[Any] = []
    wrong: list[int] = []
    first = [training_feed(spec.member(dataset), dataset, CPU) for spec in specs]
    make = feeding._feed

    def counted(*arguments: Any) -> Any:
        prepared.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(feeding, "_feed", counted)

    def take(which: int) -> None:
        for _ in range(50):
            if training_feed(specs[which].member(dataset), dataset, CPU) is not first[which]:
                wrong.append(which)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(take, which) for which in (0, 1)]:
                done.result(60)
    finally:
        sys.setswitchinterval(before)
    assert (prepared, wrong) == ([], [])
