"""Sets of moving digits: downscaling by hand, parts that share nothing, fixed sequences with a digest."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.arrays import quiet
from ladder_search.data.dataset import PRESENT, Dataset, Moving
from ladder_search.data.occluded import FULL, HALF, MINI, Renderer, Scene
from ladder_search.data.occluded_sets import FIXED_SEED, TEST, VALIDATION, MovingSource, in_scene, step_keys, stream_key
from ladder_search.errors import UnknownNameError
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


def scene_set(scene: Scene, *, reconstructed: bool = False, data: Dataset | None = None) -> Dataset:
    return in_scene("toy", data or dataset(), Moving(scene=scene, reconstructed=reconstructed))


def test_digits_shrink_by_means_or_maxima() -> None:
    data = dataset()
    image = data.train_x[3].reshape(28, 28).astype(float)
    for scene, factor in ((FULL, 2), (HALF, 4)):
        found = scene_set(scene, data=data)
        means = [
            [image[r : r + factor, c : c + factor].mean() / 255 for c in range(0, 28, factor)]
            for r in range(0, 28, factor)
        ]
        assert found.train_x[3] / found.full_scale == pytest.approx(np.array(means), rel=1e-6)
    found = scene_set(Scene(pooling="max"), data=data)
    assert found.train_x[3, 0, 0] / found.full_scale == pytest.approx(image[:2, :2].max() / 255)
    assert found.test_x.shape == (12, 14, 14) and found.full_scale == 255 and found.test_x.dtype == np.int16


def test_validation_and_test_share_no_trajectory_with_each_other() -> None:
    keys = {stream_key(seed, part) for seed in (0, 1, 2**63) for part in (VALIDATION, TEST)}
    assert len(keys) == 6 and all(-(2**63) <= key < 2**63 for key in keys)


def digest_of_test_set(data: Dataset) -> str:
    """The sha256 over shape, frames in whole grey levels (uint16, little-endian) and labels of all test sequences."""
    assert data.moving is not None
    scene, n, key = data.moving.scene, len(data.test_y), stream_key(FIXED_SEED, TEST)
    renderer, sha = Renderer(scene), hashlib.sha256(f"{n} {scene.frames} {scene.side}\n".encode())
    for rows in torch.arange(n).split(1000):
        digits = torch.from_numpy(data.test_x[rows].astype(np.int32))
        sha.update(renderer.frames(digits, renderer.positions(key, rows)).numpy().astype("<u2").data)
    sha.update(data.test_y.data)
    return sha.hexdigest()


def test_steps_draw_in_streams_of_their_own() -> None:
    keys = torch.from_numpy(noise_keys(3, 0, 1000))
    found = step_keys(keys)
    assert len(set(found.tolist())) == 1000 and not set(found.tolist()) & set(keys.tolist())
    assert torch.equal(step_keys(keys[7:9]), found[7:9])


def test_the_digest_of_a_set_knows_digits_and_scene() -> None:
    data = dataset()
    found = {scene_set(scene, data=data).digest for scene in (FULL, HALF, MINI, Scene(margin=1))}
    found.add(scene_set(FULL, data=dataclasses.replace(data, digest="e" * 64)).digest)
    assert len(found) == 5


def test_an_unknown_set_suggests_the_nearest() -> None:
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
    frames, seen = scene_set(HALF), scene_set(HALF, reconstructed=True)
    assert frames.example_shape == (5, 16, 16) and seen.example_shape == (1, 7, 7)
    assert frames.digest != seen.digest


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
    data = ROWS[name].load(quiet)
    assert digest_of_test_set(data) == TEST_SETS[name]
    counts = {"occluded-digits": (1297, 500), "occluded-mnist": (60_000, 10_000)}
    assert (len(data.train_y), len(data.test_y)) == counts["-".join(name.split("-")[:2])]
