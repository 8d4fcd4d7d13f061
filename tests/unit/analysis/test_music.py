"""What is found in networks for music: against their own scores and plain NumPy, on a toy corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.analysis.music import MusicConfig, PianoRolls, choose, look, note_name
from ladder_search.analysis.result import part_of
from ladder_search.bundles.bundle import Bundle, BundleMetrics
from ladder_search.config import as_mapping, build
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.models.recurrent import RecurrentConfig
from ladder_search.models.sequence import SequenceConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec
from tests.unit.data.music_nll import markov_nll

CPU = torch.device("cpu")
LENGTHS = ((9, 30, 17), (14, 8, 21), (20, 11))
MODELS = {
    "sequence": SequenceConfig(hidden=12),
    "recurrent": RecurrentConfig(
        task="music", frame=(1, 88), levels=("conv:2:5:4 lstm:2:3", "conv:3:3:2 dense-lstm:6")
    ),
}


def corpus() -> MusicCorpus:
    random = np.random.default_rng(1)

    def piece(steps: int) -> np.ndarray:
        roll = (random.random((steps, KEYS)) < 0.01).astype(np.uint8)
        roll[np.arange(steps), (7 * np.arange(steps)) % KEYS] = 1
        return roll

    train, valid, test = (tuple(piece(n) for n in lengths) for lengths in LENGTHS)
    return MusicCorpus(name="jsb-chorales", train=train, valid=valid, test=test, digest="d" * 64)


CORPUS = corpus()
DATASET: Dataset = as_dataset(CORPUS)


def bundle_of(family: str = "sequence", *, validation: int = 3, test_error: float | None = None) -> Bundle:
    spec = TrialSpec(
        family=family,
        data=DataConfig(dataset="jsb-chorales", labels=None, validation=validation),
        model=MODELS[family],
        training=TrainingConfig(epochs=1, labelled_batch=2, lr=0.05, window=8),
    )
    pack = spec.pack(DATASET, slots=1, compiled=False, device=CPU)
    slot = pack.join(spec.member(DATASET))
    pack.run(10)
    pack.validation_errors()
    return Bundle(
        folder=Path("a/bundle"),
        study="",
        spec=spec,
        metrics=BundleMetrics(trial="t0001", state="COMPLETE", test_error=test_error),
        provenance={},
        digest="b" * 64,
        tensors={key: value.clone() for key, value in pack.module(slot).state_dict().items()},
    )


def found_in(bundle: Bundle, **settings: Any) -> PianoRolls:
    asked = MusicConfig(**settings)
    chosen, shown = choose(bundle, DATASET, part_of(bundle, test=False), asked, asked.rows)
    return look(bundle, DATASET, shown, chosen, CPU)


def probabilities(bundle: Bundle, piece: np.ndarray) -> np.ndarray:
    inputs = torch.from_numpy(np.concatenate([np.zeros((1, KEYS)), piece[:-1]])).double()
    found: np.ndarray = bundle.module().double()(inputs.unsqueeze(0))[0].numpy()
    return found


@pytest.mark.parametrize("family", MODELS)
def test_the_numbers_by_hand(family: str) -> None:
    bundle = bundle_of(family)
    found = found_in(bundle, rows=3, steps=20)
    expected = [probabilities(bundle, piece) for piece in CORPUS.valid]
    nats = [-(np.log(np.where(piece == 1, p, 1 - p))).sum(1) for p, piece in zip(expected, CORPUS.valid, strict=True)]
    counted = np.concatenate([one[1:] for one in nats])
    assert (found.pieces, found.steps) == (3, 40)
    assert found.nll == pytest.approx(counted.mean(), rel=1e-9)
    assert found.markov_nll == pytest.approx(markov_nll(CORPUS.train, CORPUS.valid), rel=1e-9)

    p = np.concatenate([one[1:] for one in expected]).ravel()
    notes = np.concatenate([piece[1:] for piece in CORPUS.valid]).ravel()
    assert sum(one.notes for one in found.calibration) == len(p) == 40 * 88
    for place, one in enumerate(found.calibration):
        inside = np.floor(p * 10) == place
        assert (one.low, one.high, one.notes) == (place / 10, (place + 1) / 10, inside.sum())
        if inside.any():
            assert one.predicted == pytest.approx(p[inside].mean()) and one.sounded == pytest.approx(
                notes[inside].mean()
            )
        else:
            assert one.predicted is one.sounded is None

    assert [one.nats for one in found.worst] == pytest.approx(sorted(counted, reverse=True)[:5])
    for one in found.worst:
        assert one.step > 1 and one.nats == pytest.approx(nats[one.piece][one.step - 1])
        row, piece = expected[one.piece][one.step - 1], CORPUS.valid[one.piece][one.step - 1]
        costs = -np.log(np.where(piece == 1, row, 1 - row))
        assert one.missed == 21 + costs.argmax() and one.probability == pytest.approx(row[costs.argmax()])
        assert one.notes == tuple(21 + np.flatnonzero(piece))

    # The longest of at most 20 steps comes first; of a longer one the first 20 are drawn.
    assert found.shown[0].number == 0 and sorted(one.number for one in found.shown) == [0, 1, 2]
    for one in found.shown:
        width = min(20, LENGTHS[1][one.number])
        assert one.length == LENGTHS[1][one.number]
        assert one.nats == pytest.approx(nats[one.number][:width])
        np.testing.assert_allclose(one.probabilities, expected[one.number][:width], atol=5.1e-5)
        assert [tuple(21 + np.flatnonzero(step)) for step in CORPUS.valid[one.number][:width]] == list(one.notes)
    assert build(PianoRolls, as_mapping(found)) == found


def test_where_no_piece_fits_the_shortest_is_cut() -> None:
    found = found_in(bundle_of(), steps=5)
    assert (found.shown[0].number, found.shown[0].length, len(found.shown[0].nats)) == (1, 8, 5)


def test_a_final_training_keeps_its_validation_pieces_and_is_shown_the_test_pieces() -> None:
    final = bundle_of(test_error=9.0)
    assert part_of(final, test=False) == part_of(final, test=True) == "test"
    found = found_in(final)
    assert (found.pieces, found.steps, found.shown[0].length) == (2, 29, 20)
    with pytest.raises(SettingError, match="the test set is for bundles of a final training"):
        part_of(bundle_of(), test=True)


def test_a_network_that_diverged_is_refused() -> None:
    bundle = bundle_of()
    for value in bundle.tensors.values():
        value.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="finite outputs"):
        found_in(bundle)


def test_more_pieces_than_there_are() -> None:
    with pytest.raises(SettingError, match=r"--rows must lie in 1..3, the validation pieces of jsb-chorales, got 4;"):
        found_in(bundle_of(), rows=4)
    for name, value, most in (("rows", 13, 12), ("steps", 401, 400)):
        with pytest.raises(SettingError, match=rf"--{name} of music must lie in 1..{most}, got {value}; give"):
            MusicConfig(**{name: value})


@pytest.mark.parametrize(("note", "name"), [(60, "C4"), (21, "A0"), (108, "C8"), (70, "A#4"), (59, "B3")])
def test_names_of_notes(note: int, name: str) -> None:
    assert note_name(note) == name
