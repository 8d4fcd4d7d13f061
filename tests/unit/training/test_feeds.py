"""Moving digits and music on their way into a pack: a function of (seed, step), alike eager, compiled and in packs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.data.occluded import Renderer
from ladder_search.data.occluded_sets import FIXED_SEED, TEST, VALIDATION, stream_key
from ladder_search.errors import SettingError
from ladder_search.training.feeding import feed_of_test_set, training_feed
from ladder_search.trial import TrialSpec

pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler

CPU = torch.device("cpu")
VIDEO: dict[str, Any] = {
    "family": "recurrent",
    "data": {"dataset": "occluded-digits-half", "labels": None, "validation": 97},
    "model": {
        "frame": [1, 16, 16],
        "levels": ["conv:2:3:2 none", "conv:3:3:2 dense-lstm:6"],
        "decoder": False,
        "noise_std": 0.1,
    },
    "training": {"epochs": 2, "labelled_batch": 12, "unlabelled_batch": 12},
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("occluded-digits-half")


def video(**changes: Any) -> TrialSpec:
    return TrialSpec.from_mapping(merge(VIDEO, changes))


class TestMovingDigits:
    def test_a_step_shows_the_batchs_digits_on_ways_of_its_own(self, digits: Dataset) -> None:
        spec = video()
        feed, member = training_feed(spec.member(digits), digits, CPU), spec.member(digits)
        labelled, unlabelled = (torch.from_numpy(table[:2]) for table in feed.stream(member).tables(0, 2))
        assert labelled.shape == (2, 12) and unlabelled.shape == (2, 0)  # nobody trains on unlabelled frames
        keys = torch.tensor([11, 12])
        x, y, none = feed.gather(feed.x, feed.y, (labelled, unlabelled), keys, torch.float64)
        assert x.shape == (2, 12, 5, 16, 16) and none.shape[1] == 0
        assert torch.equal(y, feed.y[labelled])
        again = feed.gather(feed.x, feed.y, (labelled[1:], unlabelled[1:]), keys[1:], torch.float64)[0]
        assert torch.equal(again[0], x[1])  # whoever else is in the pack
        other = feed.gather(feed.x, feed.y, (labelled[1:], unlabelled[1:]), keys[:1], torch.float64)[0]
        assert not torch.equal(other[0], x[1])
        # Every frame's ink is that of its digit where no bar is, so none has more.
        ink = feed.x[labelled].flatten(2).sum(2) / feed.full_scale
        assert (x.flatten(3).sum(3) <= ink.unsqueeze(2) + 1e-9).all() and x.max() <= 1.0

    def test_unlabelled_rows_move_otherwise_than_labelled_ones(self, digits: Dataset) -> None:
        feed = training_feed(video().member(digits), digits, CPU)
        rows = torch.zeros((1, 4), dtype=torch.int64)
        x, _, unlabelled = feed.gather(feed.x, feed.y, (rows, rows), torch.tensor([3]), torch.float64)
        shown = torch.cat([x, unlabelled], 1)[0].flatten(1)
        assert len(shown.unique(dim=0)) == 8  # one digit on eight ways

    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_evaluations_are_on_fixed_ways(self, digits: Dataset, part: str) -> None:
        spec = video()
        feed = (
            training_feed(spec.member(digits), digits, CPU)
            if part == "validation"
            else feed_of_test_set(spec.member(digits), digits, CPU)
        )
        rows = torch.tensor([[4, 9, 2]])
        (x, y), *rest = feed.chunks(rows, 100, torch.float32)
        key = stream_key(FIXED_SEED, VALIDATION if part == "validation" else TEST)
        scene = Renderer(digits.moving.scene)  # type: ignore[union-attr]
        expected = scene.frames(feed.x[rows[0]].float() / feed.full_scale, scene.positions(key, rows[0]))
        torch.testing.assert_close(x[0], expected)
        assert not rest and torch.equal(y, feed.y[rows])
        (alone, _), *_ = feed.chunks(rows[:, 1:2], 100, torch.float32)
        assert torch.equal(alone[0, 0], x[0, 1])

    def test_what_the_frames_have_shown(self) -> None:
        seen = datasets.load("occluded-digits-half-seen")
        spec = video(
            data={"dataset": "occluded-digits-half-seen"},
            model={"frame": [1, 7, 7], "frames": 1, "levels": ["conv:2:3:2 dense:6"]},
        )
        feed = training_feed(spec.member(seen), seen, CPU)
        (x, _), *_ = feed.chunks(torch.arange(50)[None], 100, torch.float32)
        whole = feed.x[:50].float() / feed.full_scale
        assert x.shape == (1, 50, 1, 7, 7)
        shown = x[0, :, 0]
        assert ((shown == whole) | (shown == 0)).all() and 0.9 < shown.sum() / whole.sum() < 1.0

    def test_only_images_that_stand_still_are_whitened(self, digits: Dataset) -> None:
        with pytest.raises(SettingError, match="whitens images that stand still, got occluded-digits-half; leave it"):
            video(data={"preprocessing": "gcn-zca"}).check_fits(digits)

    def test_a_compiled_program_draws_the_same_ways(self, digits: Dataset) -> None:
        """Multiples of a large number overflow, which a compiler of C++ may take for impossible: so they are tables."""
        found = []
        spec = video(model={"levels": ["conv:2:3:2 dense-lstm:4"]})  # what is looked at is what comes into a network
        for compiled in (False, True):
            pack = spec.pack(digits, slots=1, compiled=compiled, device=CPU)
            pack.join(spec.member(digits))
            found.append([pack.run(1)[0].terms["cost"] for _ in range(5)])
        assert found[1] == pytest.approx(found[0], rel=1e-5)


def piece(steps: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, KEYS)) < 0.05).astype(np.uint8)


@pytest.fixture(scope="module")
def corpus() -> Dataset:
    lengths = {"train": (9, 30, 17, 25), "valid": (14, 8), "test": (20, 11, 5)}
    parts = {part: tuple(piece(n, n) for n in found) for part, found in lengths.items()}
    return as_dataset(MusicCorpus(name="jsb-chorales", **parts, digest="d" * 64))


def music(**changes: Any) -> TrialSpec:
    base = {
        "family": "sequence",
        "data": {"dataset": "jsb-chorales", "labels": None, "validation": 2},
        "model": {"hidden": 5, "dropout": 0.0},
        "training": {"epochs": 2, "labelled_batch": 3, "window": 7, "dtype": "float64"},
    }
    return TrialSpec.from_mapping(merge(base, changes))


class TestMusic:
    def test_windows_play_every_training_piece_from_its_start_and_carry_on(self, corpus: Dataset) -> None:
        spec = music()
        feed, member = training_feed(spec.member(corpus), corpus, CPU), spec.member(corpus)
        assert member.steps_per_epoch == -(-(2 + 5 + 3 + 4) // 3) and feed.rows(member) == (21, 0)
        inputs, targets, continues = feed.stream(member).tables(0, 40)
        assert inputs.shape == targets.shape == (40, 3, 7) and continues.shape == (40, 3)
        pieces = corpus.pieces
        assert pieces is not None
        starts, ends = pieces.first[:4], pieces.first[:4] + pieces.lengths[:4]
        for row in range(3):
            played: list[int] = []
            for window in range(40):
                now = targets[window, row][targets[window, row] > 0]
                if continues[window, row]:
                    assert now[0] == played[-1] + 1
                else:
                    assert now[0] in starts and (not played or played[-1] + 1 in ends)
                    assert inputs[window, row, 0] == 0
                assert (inputs[window, row, 1 : len(now)] == now[:-1]).all()
                played += now.tolist()
        assert set(targets.ravel()) - {0} == set(range(1, int(ends[-1])))

    @pytest.mark.parametrize("kind", ["gru", "tcn"])
    def test_a_batch_may_be_a_window_of_one_piece(self, corpus: Dataset, kind: str) -> None:
        spec = music(model={"kind": kind}, training={"labelled_batch": 1})
        member, pack = spec.member(corpus), spec.pack(corpus, slots=1, compiled=False, device=CPU)
        assert member.steps_per_epoch == 2 + 5 + 3 + 4
        pack.join(member)
        first = pack.run(14)[0].terms["cost"]
        assert 0.0 < pack.run(42)[0].terms["cost"] < first

    def test_a_state_begins_with_zeros_where_a_piece_does(self, corpus: Dataset) -> None:
        feed = training_feed(music().member(corpus), corpus, CPU)
        rows = [torch.zeros((1, 3, 7), dtype=torch.int64)] * 2
        continues = torch.tensor([[1, 0, 1]])
        gathered = feed.gather(feed.x, feed.y, (*rows, continues), torch.tensor([1]), torch.float64)
        left = torch.full((3, 5), torch.inf).double()
        left[::2] = 1.0
        batch: Any = feed.batch([value[0] for value in gathered], {"h": left})
        assert batch.carried["h"].tolist() == [[1.0] * 5, [0.0] * 5, [1.0] * 5]
        assert not batch.present.any()

    def test_evaluations_play_whole_pieces_without_their_first_steps(self, corpus: Dataset) -> None:
        spec = music()
        for feed, lengths in (
            (training_feed(spec.member(corpus), corpus, CPU), (14, 8)),
            (feed_of_test_set(spec.member(corpus), corpus, CPU), (20, 11, 5)),
        ):
            chunks = list(feed.chunks(feed.everything()[None], 25, torch.float64))
            assert sum(int(scored.sum()) for _, _, scored in chunks) == sum(lengths) - len(lengths)
            for inputs, targets, scored in chunks:
                assert scored.shape[1] * scored.shape[2] <= 25 or scored.shape[1] == 1
                assert torch.equal(inputs[:, :, 1:][scored[:, :, 1:]], targets[:, :, :-1][scored[:, :, 1:]])

    def test_the_score_is_pooled_over_steps(self, corpus: Dataset) -> None:
        spec = music()
        pack = spec.pack(corpus, slots=2, compiled=False, device=CPU)
        slot = pack.join(spec.member(corpus))
        pack.run(3)
        network, nats, steps = pack.module(slot), 0.0, 0
        for n in (14, 8):
            roll = torch.from_numpy(piece(n, n)).double()
            inputs = torch.cat([torch.zeros(1, KEYS).double(), roll[:-1]])
            p = network(inputs[None])[0][1:]
            nats -= float((roll[1:] * p.log() + (1 - roll[1:]) * (1 - p).log()).sum().detach())
            steps += n - 1
        assert pack.validation_scores()[slot] == {"nll": pytest.approx(nats / steps, rel=1e-9)}

    def test_a_member_goes_on_from_the_state_that_it_carries(self, corpus: Dataset) -> None:
        spec = music()
        stayed, first, second = (spec.pack(corpus, slots=1, compiled=False, device=CPU) for _ in range(3))
        for pack in (stayed, first):
            pack.join(spec.member(corpus))
            pack.run(4)
        state = first.state(0)
        assert any(value.any() for value in state.carried.values())
        second.join(spec.member(corpus), state=state)
        assert second.run(3)[0].terms == pytest.approx(stayed.run(3)[0].terms, rel=1e-12)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"labels": 10}, "jsb-chorales has no labels and 2 validation pieces of its own, got data.labels=10"),
            ({"validation": 1}, "got data.labels=None, data.validation=1 and data.folds=0; set them to null, 2 and 0"),
        ],
    )
    def test_parts_are_the_corpus_own(self, corpus: Dataset, data: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingError, match=message):
            music(data=data).member(corpus)
