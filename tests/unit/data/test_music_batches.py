"""Tables of music: every step once, states carried where a piece goes on, orders that are functions of numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.data import music_batches as batches
from ladder_search.errors import SettingError

RANDOM = np.random.default_rng(2)


def pieces_of(*lengths: int) -> list[np.ndarray]:
    return [RANDOM.integers(0, 2, (n, 88), np.uint8) for n in lengths]


def test_a_flat_corpus_begins_with_silence() -> None:
    pieces = pieces_of(4, 1, 3)
    corpus = batches.flat(pieces)
    assert not corpus.notes[batches.SILENCE].any() and corpus.notes.dtype == np.uint8
    assert corpus.first.tolist() == [1, 5, 6] and corpus.lengths.tolist() == [4, 1, 3]
    for piece, first in zip(pieces, corpus.first, strict=True):
        np.testing.assert_array_equal(corpus.notes[first : first + len(piece)], piece)


def test_windows_by_hand() -> None:
    """The case of the module's docstring."""
    found = batches.windows(np.array([5, 2, 3]), np.array([0, 1, 2]), rows=2, width=3)
    assert found.piece.tolist() == [[0, 1], [0, 2]]
    assert found.start.tolist() == [[0, 0], [3, 0]]
    assert found.length.tolist() == [[3, 2], [2, 3]]
    assert found.continues.tolist() == [[False, False], [True, False]]


def test_a_row_without_a_piece_is_idle() -> None:
    found = batches.windows(np.array([1, 4]), np.array([1, 0]), rows=3, width=2)
    assert found.piece.tolist() == [[1, 0, batches.IDLE], [1, batches.IDLE, batches.IDLE]]
    assert found.length.tolist() == [[2, 1, 0], [2, 0, 0]]
    assert found.continues.tolist() == [[False, False, False], [True, False, False]]
    got = batches.steps(batches.flat(pieces_of(1, 4)), found, 2)
    assert not got.present[0, 2].any() and not got.present[1, 1:].any()
    assert (got.inputs[1, 1:] == batches.SILENCE).all() and (got.targets[1, 1:] == batches.SILENCE).all()


def test_steps_by_hand() -> None:
    corpus = batches.flat(pieces_of(5, 2, 3))  # rows 1..5, 6..7, 8..10
    segments = batches.windows(corpus.lengths, np.array([0, 1, 2]), rows=2, width=3)
    got = batches.steps(corpus, segments, 3)
    assert got.targets.tolist() == [[[1, 2, 3], [6, 7, 0]], [[4, 5, 0], [8, 9, 10]]]
    assert got.inputs.tolist() == [[[0, 1, 2], [0, 6, 0]], [[3, 4, 0], [0, 8, 9]]]
    present = [[[True, True, True], [True, True, False]], [[True, True, False], [True, True, True]]]
    assert got.present.tolist() == got.scored.tolist() == present
    without = batches.steps(corpus, segments, 3, score_first=False)
    assert without.present.tolist() == present
    assert without.scored.tolist() == [
        [[False, True, True], [False, True, False]],
        [[True, True, False], [False, True, True]],
    ]


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (16, 100), (40, 5)])
def test_every_step_is_a_target_once_and_follows_its_own_piece(rows: int, width: int) -> None:
    pieces = pieces_of(*RANDOM.integers(1, 60, 30).tolist())
    corpus = batches.flat(pieces)
    order = batches.order_of_pass(30, seed=3, number=2)
    segments = batches.windows(corpus.lengths, order, rows=rows, width=width)
    got = batches.steps(corpus, segments, width)
    assert sorted(got.targets[got.present].tolist()) == list(range(1, len(corpus.notes)))
    # Each row, played through: what continues is the step after the last one of the window before.
    for row in range(rows):
        last = (batches.IDLE, 0)
        for window in range(len(segments.piece)):
            piece, start, length = (int(column[window, row]) for column in segments[:3])
            if segments.continues[window, row]:
                assert (piece, start) == last
            elif piece != batches.IDLE:
                assert start == 0 and (last[0] == batches.IDLE or last[1] == len(pieces[last[0]]))
            last = (piece, start + length)
            notes = corpus.notes[got.inputs[window, row, :length]]
            silence = np.zeros((1, 88), np.uint8)
            np.testing.assert_array_equal(notes, np.concatenate([silence, pieces[piece]])[start : start + length])


def test_buckets_hold_every_piece_once_and_pad_little() -> None:
    lengths = RANDOM.integers(30, 4000, 87)
    found = batches.buckets(lengths, 8, seed=1, number=0)
    assert sorted(np.concatenate(found).tolist()) == list(range(87))
    assert sorted(map(len, found)) == [7] + [8] * 10
    padded = sum(len(b) * lengths[b].max() for b in found)
    assert padded < 1.15 * lengths.sum()
    unsorted = [np.arange(87)[i : i + 8] for i in range(0, 87, 8)]
    assert sum(len(b) * lengths[b].max() for b in unsorted) > 1.5 * lengths.sum()  # what sorting saves


def test_orders_are_functions_of_seed_and_pass() -> None:
    lengths = np.array([5] * 20 + [9] * 20)

    def made(seed: int, number: int) -> list[list[int]]:
        return [batch.tolist() for batch in batches.buckets(lengths, 4, seed=seed, number=number)]

    assert made(1, 3) == made(1, 3)
    assert made(1, 3) != made(1, 4) and made(1, 3) != made(2, 3)
    # Of pieces of one length another four come together in every pass.
    assert {frozenset(b) for b in made(1, 3)} != {frozenset(b) for b in made(1, 4)}
    assert batches.order_of_pass(9, seed=1, number=0).tolist() != batches.order_of_pass(9, seed=1, number=1).tolist()


def test_whole_pieces_need_no_state() -> None:
    corpus = batches.flat(pieces_of(5, 2, 3))
    segments = batches.whole(np.array([2, 0]), corpus.lengths)
    got = batches.steps(corpus, segments, 5)
    assert got.targets.tolist() == [[8, 9, 10, 0, 0], [1, 2, 3, 4, 5]]
    assert got.inputs.tolist() == [[0, 8, 9, 0, 0], [0, 1, 2, 3, 4]]
    assert not segments.continues.any()
    with pytest.raises(SettingError, match="segments must have at most the width of their batch, 4, got 5; take"):
        batches.steps(corpus, segments, 4)


def test_what_makes_no_batches_is_refused() -> None:
    with pytest.raises(SettingError, match="need rows of at least 1, got 0; choose"):
        batches.buckets(np.array([3]), 0, seed=1, number=0)
    with pytest.raises(SettingError, match="need width of at least 1, got 0; choose"):
        batches.windows(np.array([3]), np.array([0]), rows=1, width=0)
    for lengths in ([], [3, 0]):
        with pytest.raises(SettingError, match="pieces must have at least one step each, got lengths"):
            batches.buckets(np.array(lengths, np.int64), 1, seed=1, number=0)
