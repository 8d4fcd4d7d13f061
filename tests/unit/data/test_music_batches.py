"""Tables of music: every step once a pass, states carried where a piece goes on, streams that numbers determine."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ladder_search.data import music
from ladder_search.data import music_batches as batches
from ladder_search.errors import SettingError

RANDOM = np.random.default_rng(2)


def pieces_of(*lengths: int) -> list[np.ndarray]:
    return [RANDOM.integers(0, 2, (n, 88), np.uint8) for n in lengths]


def test_a_flat_corpus_begins_with_silence() -> None:
    pieces = pieces_of(4, 1, 3)
    corpus = music.flat(pieces)
    assert not corpus.notes[music.SILENCE].any() and corpus.notes.dtype == np.uint8
    assert corpus.first.tolist() == [1, 5, 6] and corpus.lengths.tolist() == [4, 1, 3]
    for piece, first in zip(pieces, corpus.first, strict=True):
        np.testing.assert_array_equal(corpus.notes[first : first + len(piece)], piece)


def listed(segments: batches.Segments) -> list[Any]:
    return [column.tolist() for column in segments]


def test_windows_by_hand() -> None:
    # A seed whose first two passes are in these orders: 0 and 1 begin side by side, and 2 where the shorter ends.
    assert [batches.order_of_pass(3, seed=5, number=p).tolist() for p in range(2)] == [[0, 1, 2], [1, 0, 2]]
    found = batches.WindowStream(np.array([5, 2, 3]), rows=2, width=3, seed=5).windows(0, 4)
    assert found.piece.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    assert found.start.tolist() == [[0, 0], [3, 0], [0, 0], [0, 3]]
    assert found.length.tolist() == [[3, 2], [2, 3], [2, 3], [3, 2]]
    assert found.continues.tolist() == [[False, False], [True, False], [False, False], [False, True]]


def played(lengths: np.ndarray, *, rows: int, width: int, seed: int, count: int) -> list[Any]:
    """The rule window by window: who has played his piece to its end takes the next, the first row first."""
    coming = (i for p in itertools.count() for i in batches.order_of_pass(len(lengths), seed=seed, number=p).tolist())
    piece, done = [-1] * rows, [0] * rows
    windows = []
    for _ in range(count):
        window = []
        for row in range(rows):
            continues = piece[row] >= 0 and done[row] < lengths[piece[row]]
            if not continues:
                piece[row], done[row] = next(coming), 0
            length = min(int(lengths[piece[row]]) - done[row], width)
            window.append((piece[row], done[row], length, continues))
            done[row] += length
        windows.append(window)
    return [[[entry[i] for entry in window] for window in windows] for i in range(4)]


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (16, 20), (40, 5)])
def test_windows_follow_the_rule_wherever_they_are_asked_for(rows: int, width: int) -> None:
    lengths = RANDOM.integers(1, 60, 30)
    expected = played(lengths, rows=rows, width=width, seed=3, count=400)
    stream = batches.WindowStream(lengths, rows=rows, width=width, seed=3)
    # On, within what is kept, back, far on, and from the middle of a stream that has seen nothing.
    for start, count in ((0, 5), (5, 60), (40, 1), (41, 0), (41, 2), (3, 9), (300, 100)):
        assert listed(stream.windows(start, count)) == [column[start : start + count] for column in expected]
    late = batches.WindowStream(lengths, rows=rows, width=width, seed=3).windows(399, 1)
    assert listed(late) == [column[399:] for column in expected]
    assert listed(batches.WindowStream(lengths, rows=rows, width=width, seed=4).windows(399, 1)) != listed(late)


def test_an_epoch_is_what_a_pass_takes_on_average() -> None:
    lengths = np.array([1, 7, 8, 22])  # windows of 7: 1 + 1 + 2 + 4
    assert [batches.WindowStream(lengths, rows=n, width=7, seed=1).steps_per_pass for n in (1, 3, 8, 9)] == [8, 3, 1, 1]
    stream = batches.WindowStream(lengths, rows=3, width=7, seed=1)
    begun = stream.windows(0, 3000)
    assert abs((~begun.continues).sum() - 4 * 3000 * 3 / 8) < 8  # pieces begun: 4 for every 8 windows of a row


def test_a_long_stream_is_cheap() -> None:
    lengths = RANDOM.integers(25, 130, 229)
    stream = batches.WindowStream(lengths, rows=16, width=64, seed=1)
    begin = time.process_time()
    assert stream.windows(100_000, 20).piece.shape == (20, 16)
    took = time.process_time() - begin
    assert took < 5.0, took  # 0.4 s where it was written


def test_steps_by_hand() -> None:
    corpus = music.flat(pieces_of(5, 2, 3))  # rows 1..5, 6..7, 8..10
    segments = batches.WindowStream(corpus.lengths, rows=2, width=3, seed=5).windows(0, 2)  # pieces 0, 1, 2
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
def test_every_step_is_a_target_once_a_pass_and_follows_its_own_piece(rows: int, width: int) -> None:
    pieces = pieces_of(*RANDOM.integers(1, 60, 30).tolist())
    corpus = music.flat(pieces)
    stream = batches.WindowStream(corpus.lengths, rows=rows, width=width, seed=3)
    count = 3 * stream.steps_per_pass + 60
    segments = stream.windows(0, count)
    got = batches.steps(corpus, segments, width)
    # Each row, played through: what continues is the step after the last one of the window before.
    begun: list[tuple[int, int, int, NDArray[np.int64]]] = []  # window, row and piece, and the targets in its turn
    for row in range(rows):
        last = (-1, 0)
        for window in range(count):
            piece, start, length = (int(column[window, row]) for column in segments[:3])
            targets = got.targets[window, row, :length]
            if segments.continues[window, row]:
                assert (piece, start) == last and last[1] < len(pieces[piece])
                begun[-1] = (*begun[-1][:3], np.concatenate([begun[-1][3], targets]))
            else:
                assert start == 0 and (last[0] == -1 or last[1] == len(pieces[last[0]]))
                begun.append((window, row, piece, targets))
            last = (piece, start + length)
            notes = corpus.notes[got.inputs[window, row, :length]]
            silence = np.zeros((1, 88), np.uint8)
            np.testing.assert_array_equal(notes, np.concatenate([silence, pieces[piece]])[start : start + length])
    begun.sort(key=lambda turn: turn[:2])
    for number in range(3):
        of_pass = begun[number * 30 : (number + 1) * 30]
        assert [turn[2] for turn in of_pass] == batches.order_of_pass(30, seed=3, number=number).tolist()
        assert sorted(np.concatenate([turn[3] for turn in of_pass]).tolist()) == list(range(1, len(corpus.notes)))


def test_orders_are_functions_of_seed_and_pass() -> None:
    def order(seed: int, number: int) -> list[Any]:
        return list(batches.order_of_pass(9, seed=seed, number=number))

    assert order(1, 3) == order(1, 3) and sorted(order(1, 3)) == list(range(9))
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)


def test_evaluation_batches_hold_every_piece_once_within_their_bound() -> None:
    lengths = RANDOM.integers(30, 2000, 87)
    lengths[5] = 4000
    found = batches.evaluation_batches(lengths, 3000)
    assert sorted(np.concatenate(found).tolist()) == list(range(87))
    assert found[-1].tolist() == [5]  # longer than the bound, and alone
    sizes = [len(batch) * lengths[batch].max() for batch in found]
    assert max(sizes[:-1]) <= 3000
    for batch, following in itertools.pairwise(found):  # full: the next piece would not have fitted
        assert (len(batch) + 1) * lengths[following[0]] > 3000 and lengths[batch].max() <= lengths[following].min()
    assert sum(sizes) < 1.3 * lengths.sum()
    assert [batch.tolist() for batch in batches.evaluation_batches(np.array([3, 1, 2, 1]), 100)] == [[1, 3, 2, 0]]
    assert [b.tolist() for b in batches.evaluation_batches(np.array([3, 1, 2, 1]), 4)] == [[1, 3], [2], [0]]


def test_whole_pieces_need_no_state() -> None:
    corpus = music.flat(pieces_of(5, 2, 3))
    segments = batches.whole(np.array([2, 0]), corpus.lengths)
    got = batches.steps(corpus, segments, 5)
    assert got.targets.tolist() == [[8, 9, 10, 0, 0], [1, 2, 3, 4, 5]]
    assert got.inputs.tolist() == [[0, 8, 9, 0, 0], [0, 1, 2, 3, 4]]
    assert not segments.continues.any()


def test_a_seed_that_breaks_its_rule() -> None:
    with pytest.raises(SettingError, match="a seed must be a whole number from 0"):
        batches.WindowStream(np.array([3]), rows=1, width=1, seed=-1)
