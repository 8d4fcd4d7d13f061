"""Members that stand still while others advance keep every bit; those that advance do so as in a full run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ladder_search.errors import SettingError
from ladder_search.training.pack import MemberSpec, MemberState


def broken(spec: MemberSpec) -> MemberSpec:
    """The member with weights that its settings would refuse, so that its first step diverges."""
    model = dataclasses.replace(spec.model)
    object.__setattr__(model, "lambda_", (float("nan"),) * 4)
    return dataclasses.replace(spec, model=model)


def assert_same_bits(found: MemberState, expected: MemberState) -> None:
    assert found.step == expected.step
    for part in ("params", "first", "second"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(mine[name], value), (part, name)


class TestMembersThatStandStill:
    def test_are_what_they_were_and_the_others_are_what_they_would_be(self, spec: Any, new_pack: Any) -> None:
        pack, whole, later = (new_pack([spec(number) for number in range(3)], 4) for _ in range(3))
        before = [pack.state(slot) for slot in range(3)]
        reports = pack.run(7, slots=(2, 0))
        expected = whole.run(7)
        assert list(reports) == [0, 2]
        for slot in (0, 2):
            assert_same_bits(pack.state(slot), whole.state(slot))
            assert reports[slot].terms == expected[slot].terms
            assert not torch.equal(pack.state(slot).params["W.0"], before[slot].params["W.0"])
        assert_same_bits(pack.state(1), before[1])
        # It goes on as if nothing had been: with its own batches, noise and rates.
        later.run(4)
        assert pack.run(4, slots={1})[1].step == 4
        assert_same_bits(pack.state(1), later.state(1))
        assert_same_bits(pack.state(0), whole.state(0))

    def test_stay_healthy_where_they_would_have_diverged(self, spec: Any, new_pack: Any) -> None:
        pack = new_pack([spec(0), broken(spec(1))])
        before = pack.state(1)
        assert pack.run(3, slots=[0])[0].finite
        assert_same_bits(pack.state(1), before)
        assert not pack.run(1, slots=[1])[1].finite

    def test_are_left_out_of_an_evaluation(self, spec: Any, new_pack: Any) -> None:
        pack = new_pack([spec(number) for number in range(3)])
        pack.run(20)
        every = pack.validation_errors()
        assert len(set(every.values())) > 1
        assert pack.validation_errors(slots=[1]) == {1: every[1]}
        assert pack.validation_errors(slots={2, 0}) == {0: every[0], 2: every[2]}

    @pytest.mark.parametrize(
        "ask", [lambda p, s: p.run(1, s), lambda p, s: p.validation_errors(s)], ids=["run", "error"]
    )
    def test_only_seated_members_can_be_named(self, ask: Any, spec: Any, new_pack: Any) -> None:
        pack = new_pack([spec(0)], 2)
        with pytest.raises(SettingError, match=r"slot 1 of the pack is empty; seated are \[0\]"):
            ask(pack, [0, 1])
        with pytest.raises(SettingError, match="no slot is taken or named; "):
            ask(pack, [])
