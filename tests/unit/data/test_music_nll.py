"""The likelihood of music against NumPy's logarithms, and the published figures of the two marginal models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ladder_search.data import music
from ladder_search.data.dataset import PRESENT
from tests.unit.data import music_nll

RANDOM = np.random.default_rng(1)


def test_a_step_sums_its_notes() -> None:
    logits, notes = RANDOM.normal(size=(2, 5, 88)), RANDOM.integers(0, 2, (2, 5, 88), np.uint8)
    p = 1 / (1 + np.exp(-logits))
    expected = -np.log(np.where(notes, p, 1 - p)).sum(-1)
    found = music_nll.step_nats(torch.from_numpy(logits), torch.from_numpy(notes))
    assert found.numpy() == pytest.approx(expected, rel=1e-12)
    nothing = music_nll.step_nats(torch.zeros(3, 88), torch.from_numpy(notes[0, :3]))
    assert nothing.tolist() == pytest.approx([88 * math.log(2)] * 3, rel=1e-6)


def test_pieces_are_pooled_by_steps_not_by_pieces() -> None:
    certain = torch.full((1, 88), 40.0)
    pieces = [
        (torch.zeros(3, 88), torch.ones(3, 88)),  # three steps of 88 ln 2
        (certain, torch.ones(1, 88)),  # one step that costs nothing
    ]
    assert music_nll.pooled_nll(pieces) == pytest.approx(0.75 * 88 * math.log(2), rel=1e-6)


def test_only_scored_steps_count() -> None:
    logits = torch.zeros(2, 3, 88)
    logits[0, 1] = 1e4  # certain, and wrong, where nobody looks
    mask = torch.tensor([[True, False, False], [True, True, True]])
    total, count = music_nll.scored(logits, torch.zeros(2, 3, 88, dtype=torch.uint8), mask)
    assert total.item() == pytest.approx(4 * 88 * math.log(2), rel=1e-6) and count.item() == 4
    assert total.dtype == torch.float64


def test_the_two_models_by_hand() -> None:
    """One note of interest, 1 1 0 in one piece and 0 1 in the other; all others are silent."""
    first, second = np.zeros((3, 88), np.uint8), np.zeros((2, 88), np.uint8)
    first[:2, 7] = 1
    second[1, 7] = 1
    p = torch.sigmoid(music_nll.unigram([first, second]))
    assert p[7].item() == pytest.approx(3.5 / 6) and p[8].item() == pytest.approx(0.5 / 6)
    q = torch.sigmoid(music_nll.markov([first, second]))
    # After a 1: one 1 and one 0. After a 0: one 1. The end of one piece is not before the start of the next.
    assert q[:, 7].tolist() == pytest.approx([1.5 / 2, 1.5 / 3])
    assert q[:, 8].tolist() == pytest.approx([0.5 / 4, 0.5 / 1])
    # The second piece has one step to score: a 1 after a 0, and 87 notes that stay silent.
    expected = -(math.log(0.75) + 87 * math.log(1 - 0.5 / 4))
    assert music_nll.markov_nll([first, second], [second]) == pytest.approx(expected)


FIGURES = {
    # notes' frequencies, +0.5: per step, and the mean of the pieces' means, which is not the convention; Markov model
    "piano-midi": (11.046, 11.385, 8.263),
    "nottingham": (10.252, 10.116, 5.153),
    "musedata": (11.510, 10.554, 8.559),
    "jsb-chorales": (11.060, 11.003, 10.490),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_published_figures(name: str) -> None:
    """Uses the user's own cache and folder. The classic "note 1-gram" row is 11.05, 10.25, 11.51, 11.06."""
    row = next(row for row in music.MUSIC if row.name == name)
    if row.state() != PRESENT:
        pytest.skip(f"{name} is not here")
    corpus = row.corpus()
    frequencies, mean_of_means, markov = FIGURES[name]
    assert round(music_nll.unigram_nll(corpus.train, corpus.test), 3) == frequencies
    means = [music_nll.unigram_nll(corpus.train, [piece]) for piece in corpus.test]
    assert round(float(np.mean(means)), 3) == mean_of_means
    # How those figures were smoothed is not said: a count of 0.5 or 1 in every cell moves them by up to 0.002.
    found = music_nll.markov_nll(corpus.train, corpus.test)
    assert found == pytest.approx(markov, abs=0.002)
    assert found == pytest.approx(markov_by_numpy(corpus), abs=1e-9)


def markov_by_numpy(corpus: music.MusicCorpus) -> float:
    counts = np.zeros((2, 2, 88))
    for piece in corpus.train:
        for before in (0, 1):
            for now in (0, 1):
                counts[before, now] += ((piece[:-1] == before) & (piece[1:] == now)).sum(0)
    q = (counts[:, 1] + 0.5) / (counts.sum(1) + 1)
    total = 0.0
    for piece in corpus.test:
        p = np.where(piece[:-1] == 1, q[1], q[0])
        total -= np.log(np.where(piece[1:] == 1, p, 1 - p)).sum()
    return total / sum(len(piece) - 1 for piece in corpus.test)
