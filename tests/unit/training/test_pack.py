"""A member's numbers depend on its own settings and seed alone: not on its neighbours, its slot, its pack or a move.

Agreement is to float tolerance, not bit for bit: a product of other shapes may add up in another order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.data.dataset import Dataset
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.models import find_family
from ladder_search.training import pack as pack_module
from ladder_search.training.compiling import compiler_found
from ladder_search.training.pack import IntervalReport, MemberSpec, MemberState, Pack, TrainingData

BUILD = find_family("ladder").build
INTERVAL, INTERVALS = 10, 5
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""Relative, of every cost term after 50 steps."""
DECODERS = ("full", "gamma", "none")
VALIDATION = 297

Metrics = dict[str, Any]


def measure(pack: Pack, reports: dict[int, IntervalReport], test_set: TrainingData) -> dict[int, Metrics]:
    """Every metric that a pack reports, by slot."""
    validation, test = pack.validation_errors(), pack.test_errors(test_set)
    return {
        slot: {
            "step": report.step,
            "finite": report.finite,
            "learning_rate": report.learning_rate,
            "validation_error": validation[slot],
            "test_error": test[slot],
            "terms": report.terms,
        }
        for slot, report in reports.items()
    }


def advance(pack: Pack, test_set: TrainingData, intervals: int = INTERVALS) -> list[dict[int, Metrics]]:
    return [measure(pack, pack.run(INTERVAL), test_set) for _ in range(intervals)]


@pytest.fixture(scope="module")
def alone(
    spec: Callable[..., MemberSpec], new_pack: Callable[..., Pack], test_set: TrainingData
) -> Callable[..., list[Metrics]]:
    """What member ``number`` reports over 50 steps when it trains alone."""

    @functools.cache
    def train(number: int, decoder: str, dtype: str) -> list[Metrics]:
        return [metrics[0] for metrics in advance(new_pack([spec(number, decoder, dtype)]), test_set)]

    return train


def assert_agree(found: Sequence[Metrics], expected: Sequence[Metrics], dtype: str) -> None:
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        for name in ("step", "finite", "learning_rate"):
            assert mine[name] == theirs[name], name
        # An error is a count: in single precision one example may stand so close to the border that it changes sides.
        for name, examples in (("validation_error", VALIDATION), ("test_error", 500)):
            assert abs(mine[name] - theirs[name]) * examples < (1.5 if dtype == "float32" else 0.5), name
        assert mine["terms"].keys() == theirs["terms"].keys()
        for name, value in theirs["terms"].items():
            assert mine["terms"][name] == pytest.approx(value, rel=TOLERANCE[dtype], abs=1e-12), (name, mine["step"])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("decoder", DECODERS)
class TestAgreementWithTheSameTrialAlone:
    def test_in_a_pack_of_eight(
        self, decoder: str, dtype: str, spec: Any, new_pack: Any, alone: Any, test_set: TrainingData
    ) -> None:
        found = advance(new_pack([spec(number, decoder, dtype) for number in range(8)]), test_set)
        for number in range(8):
            assert_agree([metrics[number] for metrics in found], alone(number, decoder, dtype), dtype)
        finals = {str(alone(number, decoder, dtype)[-1]["terms"]) for number in range(8)}
        assert len(finals) == 8  # or agreement would say nothing

    def test_joining_late(
        self, decoder: str, dtype: str, spec: Any, new_pack: Any, alone: Any, test_set: TrainingData
    ) -> None:
        pack = new_pack([spec(number, decoder, dtype) for number in (0, 1)], 4)
        early = advance(pack, test_set, 2)
        slot = pack.join(spec(5, decoder, dtype))
        found = advance(pack, test_set)
        assert_agree([metrics[slot] for metrics in found], alone(5, decoder, dtype), dtype)
        both = early + found
        for neighbour in (0, 1):
            own = [metrics[neighbour] for metrics in both[:INTERVALS]]
            assert_agree(own, alone(neighbour, decoder, dtype), dtype)

    def test_in_a_slot_that_another_has_left(
        self, decoder: str, dtype: str, spec: Any, new_pack: Any, alone: Any, test_set: TrainingData
    ) -> None:
        pack = new_pack([spec(number, decoder, dtype) for number in (6, 3)])
        early = advance(pack, test_set, 2)
        pack.leave(0)
        middle = advance(pack, test_set, 1)  # with an empty slot beside it
        assert pack.join(spec(2, decoder, dtype)) == 0
        found = advance(pack, test_set)
        assert_agree([metrics[0] for metrics in found], alone(2, decoder, dtype), dtype)
        both = early + middle + found
        assert_agree([metrics[1] for metrics in both[:INTERVALS]], alone(3, decoder, dtype), dtype)

    def test_moved_into_a_pack_of_another_size(
        self, decoder: str, dtype: str, spec: Any, new_pack: Any, alone: Any, test_set: TrainingData
    ) -> None:
        first = new_pack([spec(number, decoder, dtype) for number in (0, 4)], 3)
        early = advance(first, test_set, 2)
        second = new_pack([spec(number, decoder, dtype) for number in (1, 2, 3, 5)], 5)
        advance(second, test_set, 1)
        slot = second.join(spec(4, decoder, dtype), state=first.state(1))
        first.leave(1)
        advance(first, test_set, 1)  # what stays behind has no hold on what left
        found = [metrics[1] for metrics in early]
        found += [metrics[slot] for metrics in advance(second, test_set, INTERVALS - 2)]
        assert_agree(found, alone(4, decoder, dtype), dtype)


def poison(spec: MemberSpec, **changes: Any) -> MemberSpec:
    """The member with values that its settings would refuse; the signature stays what it was."""
    model, training = dataclasses.replace(spec.model), dataclasses.replace(spec.training)
    for name, value in changes.items():
        object.__setattr__(model if hasattr(model, name) else training, name, value)
    return dataclasses.replace(spec, model=model, training=training)


class TestAPoisonedNeighbour:
    @pytest.mark.parametrize(
        "changes",
        [
            {"lambda_": (float("nan"),) * 4},
            {"lambda_": (1e38,) * 4},
            {"lambda_": (1e25, 0.0, 0.0, 0.0)},  # finite costs, but a squared gradient overflows Adam's second moment
            {"lr": 1e38},
            {"lr": float("nan")},
            {"noise_std": (0.3, float("inf"), 0.3, 0.2)},
        ],
        ids=str,
    )
    def test_is_reported_and_hurts_nobody(
        self, changes: dict[str, Any], spec: Any, new_pack: Any, alone: Any, test_set: TrainingData
    ) -> None:
        pack = new_pack([spec(0), poison(spec(1), **changes), spec(2)])
        found = advance(pack, test_set)
        assert [metrics[1]["finite"] for metrics in found] == [False] * INTERVALS
        for number in (0, 2):
            assert_agree([metrics[number] for metrics in found], alone(number, "full", "float32"), "float32")

    def test_that_arrives_broken_and_is_replaced(
        self, spec: Any, new_pack: Any, alone: Any, test_set: TrainingData
    ) -> None:
        pack = new_pack([spec(0), spec(1)])
        state = pack.state(1)
        pack.leave(1)
        pack.join(
            spec(1), state=dataclasses.replace(state, params={n: v * float("inf") for n, v in state.params.items()})
        )
        early = advance(pack, test_set, 2)
        assert not early[0][1]["finite"]
        pack.leave(1)
        assert pack.join(spec(4)) == 1
        found = advance(pack, test_set)
        assert_agree([metrics[1] for metrics in found], alone(4, "full", "float32"), "float32")
        assert_agree([metrics[0] for metrics in (early + found)[:INTERVALS]], alone(0, "full", "float32"), "float32")

    def test_one_bad_step_shows_in_the_report_of_its_interval(self, spec: Any, new_pack: Any) -> None:
        pack = new_pack([spec(0), poison(spec(1), lr=float("inf"))])
        reports = pack.run(1)
        assert reports[0].finite and not reports[1].finite


@pytest.mark.skipif(not compiler_found(), reason="no C++ compiler, or torch in a folder with a space")
@pytest.mark.timeout(400)  # a busy machine's compiler
def test_compiled_and_eager_agree(spec: Any, new_pack: Any, test_set: TrainingData) -> None:
    members = [spec(number, widths=(64, 8, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1)) for number in (0, 3)]
    found, expected = (advance(new_pack(members, 3, compiled=compiled), test_set) for compiled in (True, False))
    for slot in (0, 1):
        mine, theirs = ([metrics[slot] for metrics in run] for run in (found, expected))
        assert_agree(mine, theirs, "float32")


def test_a_member_is_finite_when_all_its_numbers_are() -> None:
    inf, nan, large = float("inf"), float("nan"), 3e38
    matrix = torch.tensor([[large, large], [inf, -inf], [1.0, nan], [1.0, 2.0]])  # the first sum overflows
    assert pack_module._finite([matrix, torch.ones(4)]).tolist() == [True, False, False, True]
    assert pack_module._finite([torch.ones(4, 2, 3), torch.tensor([1.0, 2.0, inf, 4.0])]).tolist() == [
        True,
        True,
        False,
        True,
    ]
    assert pack_module._finite([torch.ones(2, 5)]).tolist() == [True, True]


def test_how_steps_are_cut_into_intervals_does_not_matter(spec: Any, new_pack: Any) -> None:
    whole, cut = (new_pack([spec(0), spec(1)]) for _ in range(2))
    together = whole.run(12)
    parts = [cut.run(steps) for steps in (5, 1, 6)]
    for slot in (0, 1):
        assert together[slot].step == parts[-1][slot].step == 12
        for name, value in whole.state(slot).params.items():
            assert torch.equal(value, cut.state(slot).params[name])
        for name, value in together[slot].terms.items():
            means = [part[slot].terms[name] for part in parts]
            assert value == pytest.approx(np.dot(means, [5, 1, 6]) / 12, rel=1e-12)


def test_two_runs_of_one_pack_are_the_same_bits(spec: Any, new_pack: Any) -> None:
    first, second = (new_pack([spec(0), spec(1)]) for _ in range(2))
    first.run(5), second.run(5)
    assert all(torch.equal(v, second.state(1).params[n]) for n, v in first.state(1).params.items())


def test_the_seed_and_every_setting_matter(spec: Any, new_pack: Any) -> None:
    costs = set()
    for changes in (
        {},
        {"seed": 99},
        {"lr": 0.004},
        {"noise_std": (0.3, 0.1, 0.1, 0.1)},
        {"lambda_": (9.0, 1.0, 0.0, 0.1)},
    ):
        costs.add(new_pack([spec(0, **changes)]).run(3)[0].terms["cost"])
    costs.add(new_pack([dataclasses.replace(spec(0), split=spec(1).split)]).run(3)[0].terms["cost"])
    assert len(costs) == 6


def test_a_report_says_what_the_interval_was(spec: Any, new_pack: Any) -> None:
    one = spec(0)  # two epochs of 33 steps, decay from the start
    assert (one.steps_per_epoch, one.total_steps) == (33, 66)
    pack = new_pack([one])
    first = pack.run(33)[0]
    second = pack.run(33)[0]
    assert (first.step, second.step) == (33, 66)
    assert first.learning_rate == 0.001
    assert second.learning_rate == pytest.approx(0.0005, rel=1e-12)
    names = ["cost", "cost_supervised", *(f"cost_denoising_{layer}" for layer in range(4))]
    assert list(first.terms) == names
    assert first.terms["cost"] == pytest.approx(sum(first.terms[name] for name in names[1:]), rel=1e-5)
    assert second.terms["cost"] < first.terms["cost"]
    assert np.isfinite(first.step_time_ms) and first.step_time_ms > 0


def test_a_state_is_a_copy(spec: Any, new_pack: Any) -> None:
    pack = new_pack([spec(0)])
    pack.run(2)
    state = pack.state(0)
    kept = {name: value.clone() for name, value in state.params.items()}
    pack.run(2)
    assert all(torch.equal(state.params[name], value) for name, value in kept.items())
    assert not torch.equal(pack.state(0).params["W.0"], kept["W.0"])
    assert state.step == 2 and all(value.device.type == "cpu" for value in state.params.values())


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_member_as_a_plain_module(
    decoder: str, spec: Any, new_pack: Any, digits: Dataset, test_set: TrainingData
) -> None:
    pack = new_pack([spec(0, decoder), spec(1, decoder)], 3)
    pack.run(30)
    module = pack.module(1)
    x, y = test_set.x, test_set.y
    with torch.no_grad():
        wrong = (module(x / digits.full_scale).argmax(-1) != y).double().mean().item()
    assert pack.test_errors(test_set)[1] == pytest.approx(wrong, abs=1.5 / len(y))
    assert wrong < 0.85  # chance is 0.9


def test_one_labelled_batch_that_is_the_whole_set_and_many(spec: Any, new_pack: Any, data: TrainingData) -> None:
    # 40 labels in batches of 40: every minibatch has the same statistics; in batches of 20 they are averaged.
    for batch in (40, 100):
        whole = spec(0, labelled_batch=batch)
        pack = new_pack([whole])
        weights = pack.state(0).params["W.0"].numpy().astype(np.float64)
        z = data.x[torch.from_numpy(whole.split.labelled)].numpy() / 16.0 @ weights.T
        _, statistics = pack.statistics()
        np.testing.assert_allclose(statistics["mean_1"][0], z.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics["variance_1"][0], z.var(axis=0, ddof=1), rtol=1e-4)


class TestMembersThatTakeTurns:
    """What a family that does not stack gives: each step is the step of a member that trains alone, bit for bit."""

    @pytest.mark.parametrize("decoder", DECODERS)
    def test_agree_with_themselves_alone(
        self, decoder: str, spec: Any, new_pack: Any, data: TrainingData, alone: Any, test_set: TrainingData
    ) -> None:
        specs = [spec(number, decoder) for number in range(3)]
        pack = Pack(specs[0], BUILD, data, slots=4, stacking="none")
        slots = [pack.join(one) for one in specs]
        found = advance(pack, test_set)
        for number, slot in enumerate(slots):
            assert [metrics[slot] for metrics in found] == alone(number, decoder, "float32")

    def test_and_one_of_them_diverges_alone(
        self, spec: Any, data: TrainingData, alone: Any, test_set: TrainingData
    ) -> None:
        pack = Pack(spec(0), BUILD, data, slots=2, stacking="none")
        bad, good = pack.join(poison(spec(0), lr=float("nan"))), pack.join(spec(1))
        found = advance(pack, test_set)
        assert not found[0][bad]["finite"]
        assert [metrics[good] for metrics in found] == alone(1, "full", "float32")


class TestWhatAPackRefuses:
    def test_no_slots(self, spec: Any, data: TrainingData) -> None:
        with pytest.raises(SettingError, match="a pack needs at least 1 slot, got 0; "):
            Pack(spec(0), BUILD, data, slots=0)

    def test_more_members_than_slots(self, spec: Any, new_pack: Any) -> None:
        with pytest.raises(SettingError, match="all 2 slots of the pack are taken; "):
            new_pack([spec(0), spec(1)]).join(spec(2))

    @pytest.mark.parametrize(
        "changes",
        [
            {"widths": (64, 21, 12, 10)},
            {"decoder": "gamma"},
            {"combinator": "vanilla"},
            {"lateral": False},
            {"activation": "leaky-relu"},
            {"dtype": "float64"},
            {"precision": "bf16"},
            {"labelled_batch": 10},
            {"unlabelled_batch": 20},
            {"validation": 97},
        ],
        ids=str,
    )
    def test_another_signature(self, changes: dict[str, Any], spec: Any, new_pack: Any) -> None:
        pack = new_pack([spec(0)], 2)
        with pytest.raises(SettingError, match="members of a pack share one signature, .*; start another pack"):
            pack.join(spec(1, **changes))
        assert pack.active == [0]

    def test_an_interval_without_steps(self, spec: Any, new_pack: Any) -> None:
        with pytest.raises(SettingError, match="an interval needs at least 1 step, got 0; "):
            new_pack([spec(0)]).run(0)

    @pytest.mark.parametrize("ask", ["state", "leave", "module"])
    def test_an_empty_slot(self, ask: str, spec: Any, new_pack: Any) -> None:
        with pytest.raises(SettingError, match=r"slot 1 of the pack is empty; seated are \[0\]"):
            getattr(new_pack([spec(0)], 2), ask)(1)

    def test_a_validation_error_without_validation_rows(self, spec: Any, new_pack: Any) -> None:
        with pytest.raises(SettingError, match="a validation error needs validation rows, the split has 0; "):
            new_pack([spec(0, validation=0)]).validation_errors()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda p: p | {"beta.0": p["beta.0"][:1]}, r"'beta.0' has the shape \(20,\), got \(1,\); "),
            (lambda p: {n: v for n, v in p.items() if n != "W.1"}, r"'W.1' has the shape \(12, 20\), got None; "),
            (lambda p: p | {"extra": p["gamma"]}, r"'extra' has the shape None, got \(10,\); "),
        ],
        ids=["short", "missing", "extra"],
    )
    @pytest.mark.parametrize("part", ["params", "first", "second"])
    def test_a_state_of_another_model(self, part: str, change: Any, says: str, spec: Any, new_pack: Any) -> None:
        pack = new_pack([spec(0)], 2)
        state = pack.state(0)
        bent: MemberState = dataclasses.replace(state, **{part: change(getattr(state, part))})
        with pytest.raises(CheckpointError, match=says):
            pack.join(spec(1), state=bent)
        assert pack.active == [0]
