"""Sets of moving digits: downscaling by hand, parts that share nothing, fixed sequences with a digest."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT, Dataset
from ladder_search.data.occluded import FULL, HALF, MINI, Renderer, Scene
from ladder_search.data.occluded_sets import TEST, VALIDATION, MovingSource, in_scene, step_keys, stream_key
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.training.noise import noise_keys

RANDOM = np.random.default_rng(5)


def dataset(n_train: int = 40, n_test: int = 12) -> Dataset:
    return Dataset(
        name="toy",
        train_x=RANDOM.integers(0, 256, (n_train, 784), np.uint8),
        train_y=np.arange(n_train, dtype=np.uint8) % 4,
        test_x=RANDOM.integers(0, 256, (n_test, 784), np.uint8),
        test_y=np.arange(n_test, dtype=np.uint8) % 4,
        full_scale=255.0,
        n_classes=4,
        digest="d" * 64,
    )


def test_digits_shrink_by_means_or_maxima() -> None:
    data = dataset()
    image = data.train_x[3].reshape(28, 28).astype(float)
    for scene, factor in ((FULL, 2), (HALF, 4)):
        found = in_scene("toy", data, scene)
        means = [
            [image[r : r + factor, c : c + factor].mean() / 255 for c in range(0, 28, factor)]
            for r in range(0, 28, factor)
        ]
        assert found.training_digits()[3].numpy() == pytest.approx(np.array(means), rel=1e-6)
        assert found.training_digits().dtype == torch.float32
    found = in_scene("toy", data, Scene(pooling="max"))
    assert found.training_digits()[3, 0, 0].item() == pytest.approx(image[:2, :2].max() / 255)
    assert found.test_x.shape == (12, 14, 14) and found.unit == 255


def test_the_label_split_is_the_one_of_all_data_sets() -> None:
    found = in_scene("toy", dataset(), HALF)
    split = found.split(n_labelled=8, n_validation=10, seed=2)
    assert np.bincount(found.train_y[split.labelled]).tolist() == [2, 2, 2, 2]
    assert set(split.labelled) <= set(split.unlabelled) and not set(split.unlabelled) & set(split.validation)
    assert len(split.unlabelled) == 30 and len(split.validation) == 10


def test_validation_and_test_share_no_digit_and_no_trajectory_with_training() -> None:
    data = in_scene("toy", dataset(), HALF)
    split = data.split(n_labelled=8, n_validation=10, seed=2)
    validation, test = data.validation(split), data.test()
    np.testing.assert_array_equal(validation.digits, data.train_x[split.validation])
    np.testing.assert_array_equal(validation.labels, data.train_y[split.validation])
    np.testing.assert_array_equal(test.digits, data.test_x)
    keys = {stream_key(seed, part) for seed in (0, 1, 2**63) for part in (VALIDATION, TEST)}
    assert len(keys) == 6 and all(-(2**63) <= key < 2**63 for key in keys)
    assert (validation.key, test.key) == (stream_key(1, VALIDATION), stream_key(1, TEST))


def test_fixed_sequences_do_not_depend_on_the_other_rows_or_on_chunks() -> None:
    data = in_scene("toy", dataset(), HALF)
    renderer = Renderer(HALF)
    one, other = (data.validation(data.split(n_labelled=8, n_validation=n, seed=2)) for n in (10, 20))
    shared = sorted(set(one.numbers) & set(other.numbers))
    assert shared
    frames = [
        fixed.chunk(renderer, slice(None)).frames[[fixed.numbers.tolist().index(n) for n in shared]]
        for fixed in (one, other)
    ]
    assert torch.equal(*frames)
    whole = data.test().chunk(renderer, slice(None))
    parts = [data.test().chunk(renderer, slice(i, i + 5)) for i in (0, 5, 10)]
    for name in whole._fields:
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name


def test_the_digest_is_that_of_the_frames() -> None:
    data = in_scene("toy", dataset(), HALF)
    test = data.test()
    frames = test.chunk(Renderer(HALF), slice(None)).frames
    levels = np.rint(frames.numpy().astype(float) * data.unit).astype("<u2")
    sha = hashlib.sha256(b"12 5 16\n" + levels.tobytes() + data.test_y.tobytes())
    assert test.digest(HALF) == sha.hexdigest()
    moved = dataclasses.replace(test, key=test.key + 1)
    assert moved.digest(HALF) != test.digest(HALF)


def test_steps_draw_in_streams_of_their_own() -> None:
    keys = torch.from_numpy(noise_keys(3, 0, 1000))
    found = step_keys(keys)
    assert len(set(found.tolist())) == 1000 and not set(found.tolist()) & set(keys.tolist())
    assert torch.equal(step_keys(keys[7:9]), found[7:9])


def test_the_digest_of_a_set_knows_digits_and_scene() -> None:
    data = dataset()
    found = {in_scene("toy", data, scene).digest for scene in (FULL, HALF, MINI, Scene(margin=1))}
    found.add(in_scene("toy", dataclasses.replace(data, digest="e" * 64), FULL).digest)
    assert len(found) == 5


def test_what_cannot_move_is_refused() -> None:
    with pytest.raises(
        SettingError, match=r"images of 28 x 28 pixels and a digit whose side divides 28, got 'toy' wit"
    ):
        in_scene("toy", dataset(), Scene(digit=9))
    small = dataclasses.replace(dataset(), train_x=np.zeros((40, 64), np.uint8))
    with pytest.raises(SettingError, match=r"got 'toy' with 64 numbers and 14; choose"):
        in_scene("toy", small, FULL)
    with pytest.raises(UnknownNameError, match="unknown data set 'ocluded-mnist': did you mean 'occlud"):
        datasets.load("ocluded-mnist")


ROWS = {name: row for name, row in datasets.DATASETS.items() if isinstance(row, MovingSource)}


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_every_row_of_the_table(row: MovingSource) -> None:
    assert row.description and row.digits.name in datasets.DATASETS
    assert 28 % row.moving.scene.digit == 0
    assert row.state() == datasets.state(row.digits.name)
    assert len({other.identity for other in ROWS.values()}) == len(ROWS) == 12


def test_models_see_frames_or_what_these_have_shown() -> None:
    found = in_scene("toy", dataset(), HALF)
    frames, seen = found.as_dataset(), found.as_dataset(reconstructed=True)
    assert frames.example_shape == (5, 16, 16) and seen.example_shape == (1, 7, 7)
    assert frames.digest != seen.digest and frames.train_x.dtype == np.int16
    np.testing.assert_array_equal(frames.train_x, found.train_x)


TEST_SETS = {
    "occluded-digits": "31aaa75a301e70fefbdf5fd8201fe13744258f53cdb6bc7929f91397b082ddb4",
    "occluded-digits-half": "1fbfc4da7c4e02610225358eace5d3ece9f92f519cb57459b16e3f4ddb2ddc39",
    "occluded-digits-mini": "7b57d0e9334e7697b8f4292be242e4da68523f1a8036af6fbf2b35c19f8ab163",
    "occluded-mnist": "d748823280159f1d5e5d0b73f7a5e183e4546e5c819e496a929736329924f7b7",
    "occluded-mnist-half": "fe717984e9d89b6302982773361ad7821b45c22a58f3509303c4081a6bf5b800",
    "occluded-mnist-mini": "92b43f5d4184f2fa3d883993e58458f52d8a9e43a2e2e7bc11d0e6e3f73bf757",
}


@pytest.mark.parametrize("name", TEST_SETS)
def test_the_real_test_sets_stay_what_they_are(name: str) -> None:
    """Uses the user's own cache and folder."""
    if datasets.state(name) != PRESENT:
        pytest.skip(f"{name} is not here")
    data = ROWS[name].load_digits()
    assert data.test().digest(data.scene) == TEST_SETS[name]
    counts = {"occluded-digits": (1297, 500), "occluded-mnist": (60_000, 10_000)}
    assert (len(data.train_y), len(data.test_y)) == counts["-".join(name.split("-")[:2])]


def test_the_papers_labels() -> None:
    """1,000 labelled sequences and 59,000 others."""
    if datasets.state("occluded-mnist-mini") != PRESENT:
        pytest.skip("MNIST is not here")
    split = ROWS["occluded-mnist-mini"].load_digits().split(seed=1)
    assert (len(split.labelled), len(split.unlabelled), len(split.validation)) == (1000, 60_000, 0)
