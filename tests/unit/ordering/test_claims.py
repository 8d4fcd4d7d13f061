"""Orderings name studies that exist, that are judged by their measure, and that are about the same examples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ladder_search.data.datasets import DATASETS
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.ordering.claims import ORDERINGS, Claim, Ordering, find_ordering


def below(ordering: Ordering) -> set[tuple[str, str]]:
    return {
        (ordering.short[claim.first], ordering.short[claim.second])
        for claim in ordering.claims
        if claim.kind == "below"
    }


@pytest.mark.parametrize("data", ["occluded-mnist", "occluded-mnist-half", "occluded-mnist-mini"])
def test_table_1_is_gold_as_the_ladder_below_each_ablation_below_temporal(data: str) -> None:
    ordering = find_ordering(f"{data}-table-1")
    ablations = ("hierarchical", "no-feedback", "no-prediction")
    assert below(ordering) == {("rladder", one) for one in ablations} | {(one, "temporal") for one in ablations}
    (alike,) = (claim for claim in ordering.claims if claim.kind == "alike")
    assert {alike.first, alike.second} == {f"{data}-rladder", f"{data}-static"}
    predictions = find_ordering(f"{data}-table-1-prediction")
    assert below(predictions) == {("rladder", "no-classes"), ("rladder", "no-feedback")}
    assert predictions.measure == "prediction_error" and predictions.claims[0].first == f"{data}-rladder"


def test_table_2_tells_that_both_improve_and_which_stays_worse() -> None:
    assert below(ORDERINGS["occluded-mnist-table-2"]) == {
        ("rladder-unlabelled", "rladder"),
        ("rladder-mt", "rladder-unlabelled"),
        ("temporal-mt", "temporal"),
        ("rladder-mt", "temporal-mt"),
    }


def test_on_music_both_ladders_are_below_all_others_and_clearly_below_the_lstm() -> None:
    found = ORDERINGS["jsb-table-3"]
    ladders, others = ("rladder", "rladder-small"), ("lstm", "gru", "tcn", "rnn")
    assert below(found) == {(ladder, other) for ladder in ladders for other in others}
    assert {claim.second: claim.bound for claim in found.claims} == {
        "jsb-lstm": 0.2, "jsb-gru": 0.0, "jsb-tcn": 0.0, "jsb-rnn": 0.0,
    }  # fmt: skip


def test_frames_and_what_they_have_shown_are_about_the_same_examples() -> None:
    examples = {name: row.examples for name, row in DATASETS.items()}
    assert examples["occluded-mnist"] == examples["occluded-mnist-seen"]
    others = ("occluded-mnist", "occluded-mnist-half", "occluded-mnist-mini", "occluded-digits", "mnist", "digits")
    assert len({examples[name] for name in others}) == len(others)


def test_names_are_shortened_by_what_all_begin_with() -> None:
    small = ORDERINGS["occluded-mnist-table-2"]
    assert list(small.short.values()) == ["rladder", "rladder-unlabelled", "rladder-mt", "temporal", "temporal-mt"]
    one = replace(small, studies=("jsb-lstm", "jsb-rladder", "jsb-rladder-small"), measure="nll", claims=())
    assert list(one.short.values()) == ["lstm", "rladder", "rladder-small"]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"studies": ("jsb-lstn", "jsb-rladder")}, UnknownNameError, "study 'jsb-lstn': did you mean 'jsb-lstm'?"),
        ({"studies": ("jsb-gru", "jsb-rladder")}, UnknownNameError, "unknown study of the ordering jsb-table-3 'jsb"),
        ({"studies": ("jsb-lstm", "nottingham-lstm")}, SettingError, "got jsb-lstm on jsb-chorales, nottingham-lstm"),
        ({"measure": "nlll"}, UnknownNameError, "unknown measure 'nlll': did you mean 'nll'?"),
        ({"measure": "error", "claims": ()}, SettingError, "by the measure error, and jsb-rladder is judged by nll"),
    ],
)  # fmt: skip
def test_what_is_no_ordering_is_one_sentence(changes: dict[str, object], error: type[Exception], sentence: str) -> None:
    claims = (Claim(first="jsb-rladder", second="jsb-lstm", text=""),)
    if changes.get("studies") == ("jsb-lstm", "nottingham-lstm"):
        claims = ()
    with pytest.raises(error, match=sentence.replace("?", r"\?")):
        replace(ORDERINGS["jsb-table-3"], **{"claims": claims, **changes})


def test_bounds_have_a_side() -> None:
    with pytest.raises(SettingError, match="margin of a claim must lie in"):
        Claim(first="a", second="b", bound=-0.1, text="")
    with pytest.raises(SettingError, match="differ by a bound above 0 at most, got 0"):
        Claim(kind="alike", first="a", second="b", text="")


def test_an_unknown_ordering_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'jsb-table-3'"):
        find_ordering("jsb-table3")
