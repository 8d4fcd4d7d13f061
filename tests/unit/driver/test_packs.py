"""Which program a configuration needs, when compiling it pays, and how packs are told of."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.driver.packs import Compiling, Programs, check_stacks, in_words, shared, stacks
from ladder_search.errors import SettingError
from ladder_search.models import FAMILIES
from ladder_search.studies import STUDIES

STUDY = STUDIES["digits-100"]
OWN = STUDY.trial()


def _programs(trials: int, slots: int = 4, mode: Any = "auto", compiler: bool = True) -> Programs:
    compiling = Compiling(mode=mode, compiler=compiler, trials=trials)
    return Programs(compiling, 1, OWN, datasets.load("digits"), slots=slots)


def _settings(**changed: Any) -> dict[str, Any]:
    return merge(OWN.as_mapping(), changed)


def test_what_fills_tensors_is_no_other_program_and_what_shapes_them_is() -> None:
    needed = _programs(64).needed
    own = needed(_settings())["signature"]
    assert (
        needed(_settings(seed=5, training={"lr": 0.001, "epochs": 7}, model={"noise_std": [0.1] * 7}))["signature"]
        == own
    )
    others = (
        _settings(model={"combinator": "vanilla"}),
        _settings(draws=2),
        _settings(training={"unlabelled_batch": 50}),
    )
    assert len({own, *(needed(one)["signature"] for one in others)}) == 4


def test_a_search_that_is_shorter_than_a_compilation_does_not_compile() -> None:
    # Four trials of 750 steps are 750 steps of a pack of four, which saves 18 ms at each: far less than a minute.
    assert _programs(4).needed(_settings())["compiled"] is False
    assert _programs(20_000).needed(_settings())["compiled"] is True
    assert _programs(4, mode="on").needed(_settings())["compiled"] is True
    assert _programs(20_000, mode="off").needed(_settings())["compiled"] is False


def test_what_lies_in_the_cache_and_how_many_cores_there_are_changes_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trials of 750 steps, two at a time: those of 22 save 57 s, those of 26 save 67 s, and compiling takes a minute.
    def answers() -> list[bool]:
        return [_programs(n, slots=1).needed(_settings())["compiled"] for n in (12, 22, 26, 48)]

    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    empty = answers()
    assert empty == [False, False, True, True]
    for name in ("known-0123456789abcdef", "program-0123456789abcdef"):
        (tmp_path / "programs" / name).mkdir(parents=True)
    assert answers() == empty
    assert not _programs(24, slots=1, compiler=False).needed(_settings())["compiled"]


def test_a_family_whose_compiled_step_is_no_faster_compiles_on_demand_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "ladder", replace(FAMILIES["ladder"], compiling=False))
    assert _programs(20_000).needed(_settings())["compiled"] is False
    assert _programs(4, mode="on").needed(_settings())["compiled"] is True


def test_a_fixed_configuration_with_a_program_of_its_own_is_judged_alone() -> None:
    baseline = _settings(model={"decoder": "none", "lambda_": [0.0] * 7})
    programs = _programs(20_000)
    alone, together = programs.needed(baseline, fixed=True), programs.needed(_settings(), fixed=True)
    assert (alone["compiled"], alone["seats"]) == (False, 1)
    assert (together["compiled"], together["seats"]) == (True, 4)


def test_without_slots_to_share_there_is_no_desk() -> None:
    class Alone:
        pass

    class Sharing:
        @staticmethod
        def open_desk(*arguments: Any, **more: Any) -> None:
            raise AssertionError("nothing to share")

    for trainable, slots in ((Alone, 4), (Sharing, 1)):
        with shared(trainable, datasets.load("digits"), slots=slots, share=(1.0, 0.0)) as sharing:
            assert sharing.desk is None
        assert sharing.accounts == []


def test_a_family_that_does_not_stack_shares_no_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = replace(FAMILIES["ladder"], stacking="none")
    monkeypatch.setitem(FAMILIES, "alone", alone)
    assert stacks("ladder") and not stacks("alone")
    for slots in ("auto", 1):
        check_stacks("alone", slots)
    check_stacks("ladder", 8)
    with pytest.raises(SettingError, match="trials of alone share no packs, got --slots 8; leave it out"):
        check_stacks("alone", 8)


def test_accounts_in_words() -> None:
    def account(**more: Any) -> dict[str, Any]:
        return {"intervals": 0, "trials": 4, "trial_intervals": 0, "trained_s": 0.0, "waited_s": 0.0, **more}

    busy = account(intervals=100, trial_intervals=300, trained_s=9.0, waited_s=1.0)
    idle = account(intervals=100, trial_intervals=100, trained_s=9.0, waited_s=1.0)
    assert in_words([busy, idle]) == ("Packs: 2 of up to 4 trials each, slots 50% occupied, idle 10% of the time.")
    assert in_words([account()]) is None and in_words([]) is None
