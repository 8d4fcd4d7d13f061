"""Final trainings that are judged by more than an error, or keep an epoch that is not the last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.final.results import read_result, write_result
from ladder_search.final.training import EpochReport, train_final
from ladder_search.metrics import VALIDATION_ERROR
from ladder_search.training.feeding import feed_of_test_set
from ladder_search.trial import TrialSpec

SEEDS = (1001, 1002)

VIDEO: dict[str, Any] = {
    "family": "recurrent",
    "data": {"dataset": "occluded-digits-mini", "labels": None, "validation": 297},
    "model": {
        "frame": [1, 16, 16],
        "levels": ["conv:2:3:2 lstm:2:3", "conv:3:3:2 dense-lstm:6"],
        "lambda_p": 3.0,
    },
    "training": {"epochs": 1, "lr": 0.005, "labelled_batch": 100, "unlabelled_batch": 100},
}


def short_corpus() -> Dataset:
    def piece(steps: int) -> np.ndarray:
        return (np.random.default_rng(steps).random((steps, KEYS)) < 0.05).astype(np.uint8)

    parts = {"train": (19, 30, 17, 25), "valid": (24, 18), "test": (20, 21)}
    pieces = {part: tuple(piece(n) for n in lengths) for part, lengths in parts.items()}
    return as_dataset(MusicCorpus(name="jsb-chorales", **pieces, digest="d" * 64))


def test_all_that_a_network_is_judged_by_is_in_the_result(tmp_path: Path) -> None:
    found = train_final(
        TrialSpec.from_mapping(VIDEO), datasets.load("occluded-digits-mini"), seeds=SEEDS, folder=tmp_path
    )
    for outcome in found.outcomes:
        assert list(outcome.test_scores) == ["error", "prediction_error"] and outcome.best_epoch is None
        assert outcome.test_scores["error"] == outcome.test_error
    errors = [outcome.test_scores["prediction_error"] for outcome in found.outcomes]
    first, second = found.lines()
    assert "%" in first and second == (
        f"prediction error {1e5 * np.mean(errors):.1f} x 1e-5 ± {1e5 * np.std(errors, ddof=1):.1f}"
    )
    write_result(tmp_path, found)
    assert read_result(tmp_path).outcomes == found.outcomes


@pytest.mark.parametrize("interrupted", [False, True])
def test_music_keeps_the_epoch_that_its_validation_pieces_like_best(tmp_path: Path, interrupted: bool) -> None:
    corpus = short_corpus()
    spec = TrialSpec.from_mapping(
        {
            "family": "sequence",
            "data": {"dataset": "jsb-chorales", "labels": None, "validation": 2},
            "model": {"hidden": 40, "dropout": 0.0},
            "training": {"epochs": 30, "lr": 0.03, "decay_start": 1.0, "labelled_batch": 2, "window": 10},
        }
    )
    if interrupted:

        def stop(progress: EpochReport) -> None:
            if progress.epoch == 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_final(spec, corpus, seeds=SEEDS, folder=tmp_path, report=stop, checkpoint_every_s=0.0)
    found = train_final(spec, corpus, seeds=SEEDS, folder=tmp_path)
    # What is held out is the data's to say, not the configuration's.
    unsaid = replace(spec, data=replace(spec.data, validation=0))
    assert train_final(unsaid, corpus, seeds=SEEDS).outcomes == found.outcomes
    for outcome in found.outcomes:
        validation = [row[VALIDATION_ERROR] for row in outcome.epochs]
        assert outcome.best_epoch == 1 + int(np.argmin(validation)) < 30  # noise is learned by heart
        pack = spec.pack(corpus, slots=1, compiled=False, device=torch.device("cpu"))
        member = replace(spec, seed=outcome.seed, label_seed=outcome.seed).member(corpus)
        pack.join(member)
        pack.run(member.steps_per_epoch * outcome.best_epoch)
        test = feed_of_test_set(spec.member(corpus), corpus, torch.device("cpu"))
        assert outcome.test_error == pytest.approx(pack.test_errors(test)[0], rel=1e-5)
        state = found.modules[outcome.seed].state_dict()
        for name, value in pack.module(0).state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-2, atol=1e-3)
