import io
import re

import pytest

from ladder_search.console import Console
from ladder_search.metrics import ERROR
from ladder_search.ranking import rank, summary
from ladder_search.record.trial import TrialRecord
from ladder_search.report.leaderboard import leaderboard_markdown, print_leaderboard, summary_lines
from ladder_search.studies import find_study

NAN = float("nan")
WITH_TARGET = find_study("mnist-100-full")  # 1.06 % ± 0.37; baseline mnist-100-base
WITHOUT_TARGET = find_study("digits-100")
UNVERIFIED = find_study("mnist-100-gamma")  # 3.06 %
WITHOUT_BASELINE = find_study("mnist-50-full")


def trial(number, state="COMPLETE", error=0.02, name="", epochs=10, params=None, seconds=30.0, reason=""):
    return TrialRecord(
        key=f"t{number:04d}",
        number=number,
        name=name,
        state=state,
        reason=reason,
        params=params if params is not None else {"model/lambda_0": 100.0 + number},
        settings={},
        epochs=tuple({"epoch": epoch, "validation_error": error} for epoch in range(1, epochs + 1)),
        validation_error=error,
        seconds=seconds,
        checkpoint=None,
    )


def some():
    return [
        trial(0, name="published", error=0.015),
        trial(1, error=0.012),
        trial(2, error=0.03),
        trial(3, "PRUNED", error=0.011, epochs=3),
        trial(4, "PRUNED", error=0.2, epochs=6),
        trial(5, "FAIL", error=None, epochs=0),
        trial(6, name="supervised baseline", error=0.24, params={}),
    ]


def printed(study, records, width=80, *, top=10, encoding="utf-8"):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, write_through=True), width=width)
    print_leaderboard(console, study, records, top=top)
    return raw.getvalue().decode(encoding)


def test_complete_trials_rank_by_error_and_the_others_by_how_far_they_came():
    # 3 is better than all, but after 3 of 10 epochs
    assert [r.number for r in rank(some(), ERROR)] == [1, 0, 2, 6, 4, 3, 5]


def test_ties_rank_by_number_and_a_complete_trial_without_an_error_after_those_with_one():
    records = [trial(3), trial(1), trial(2, error=NAN), trial(0, error=None), trial(4, error=0.5)]
    assert [r.number for r in rank(records, ERROR)] == [1, 3, 4, 0, 2]


def test_rank_of_nothing():
    assert rank([], ERROR) == []


def test_summary():
    s = summary(WITH_TARGET, some())
    assert s.counts == {"COMPLETE": 4, "PRUNED": 2, "FAIL": 1}
    assert s.suggestion is not None and s.suggestion.key == "t0001"
    assert (s.published, s.baseline, s.best) == (0.015, 0.24, 0.012)
    assert s.gap_points == pytest.approx(22.8)
    assert s.gap_relative == pytest.approx(0.95)
    assert s.target is WITH_TARGET.target


def test_summary_where_the_published_configuration_is_the_best():
    s = summary(WITH_TARGET, [trial(0, name="published", error=0.01), trial(1, error=0.012)])
    assert s.best == 0.01 and s.suggestion is not None and s.suggestion.number == 1
    assert s.baseline is None and s.gap_points is None and s.gap_relative is None


def test_summary_of_nothing():
    s = summary(WITHOUT_TARGET, [])
    assert s.counts == {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0}
    assert (s.suggestion, s.published, s.baseline, s.best, s.gap_points, s.gap_relative, s.target) == (None,) * 7


def test_references_that_did_not_complete_have_no_result():
    s = summary(WITH_TARGET, [trial(0, "FAIL", name="published"), trial(1, "PRUNED", name="supervised baseline")])
    assert s.published is None and s.baseline is None


def test_a_baseline_without_errors_has_no_relative_gap():
    s = summary(WITHOUT_TARGET, [trial(0, error=0.0), trial(1, name="supervised baseline", error=0.0)])
    assert s.gap_points == 0.0 and s.gap_relative is None
    assert "equal to it, 0 % " in " ".join(
        summary_lines(WITHOUT_TARGET, [trial(0, error=0.0), trial(1, name="supervised baseline", error=0.0)])
    )


def test_sentences():
    assert summary_lines(WITH_TARGET, some()) == [
        "Best found: 1.20 % validation error (t0001), 0.30 points below the published configuration's 1.50 %.",
        "No difference between t0001 and the published configuration is tested: there are no values of two or more "
        "single label draws. `ladder-search reproduce` compares them on fresh seeds.",
        "t0001 chose lambda_0=101.",
        "Supervised baseline: 24.00 %; the best trial is 22.80 points below it, 95 % fewer errors.",
        "Target: 1.06 % ± 0.37 test error, Rasmus et al. 2015, permutation-invariant MNIST; "
        "the best validation error is 0.14 points above it.",
        "A search's validation error is not the paper's test error: `ladder-search train` compares the two.",
        "Trials: 7 ended, 4 complete, 2 stopped early (PRUNED), 1 failed (FAIL).",
    ]


def test_sentences_when_the_search_lost_to_paper_and_baseline():
    lines = summary_lines(
        UNVERIFIED,
        [trial(0, name="published", error=0.3), trial(1, error=0.4), trial(2, name="supervised baseline", error=0.2)],
    )
    assert lines[0].endswith("10.00 points above the published configuration's 30.00 %.")
    assert lines[3] == "Supervised baseline: 20.00 %; the best trial is 10.00 points above it, 50 % more errors."
    assert "3.06 % ± 1.44 (unverified) test error" in lines[4]


@pytest.mark.parametrize("width", [80, 200])
def test_nats_are_no_percentages(judged_by, width):
    params = {"training/lr": 0.002, "model/channels": 100.0}
    records = [
        trial(0, name="published", error=8.6, params=params),
        trial(1, error=8.3, params=params),
        trial(2, "PRUNED", error=12.5, params=params),
        trial(3, name="supervised baseline", error=8.9, params={}),
        trial(4, "FAIL", error=None),
    ]
    study = judged_by("nll")
    assert summary(study, records).gap_points == pytest.approx(0.6)
    lines = summary_lines(study, records)
    assert [lines[0], *lines[2:6]] == [
        "Best found: 8.300 nats per step validation NLL (t0001), 0.300 nats below the published configuration's "
        "8.600 nats per step.",
        "t0001 chose lr=0.002 channels=100.",
        "Supervised baseline: 8.900 nats per step; the best trial is 0.600 nats below it.",
        "Target: 8.450 nats per step ± 0.030 (unverified) test NLL, a paper; "
        "the best validation NLL is 0.150 nats below it.",
        "A search's validation NLL is not the paper's test NLL: `ladder-search train` compares the two.",
    ]
    text = printed(study, records, width)
    assert "12.500 nats per step" in text and re.search(r" NLL +(95 % interval +)?n +epochs", text)
    text = text.replace("95 % interval", "")
    markdown = leaderboard_markdown(study, records).replace("| 95 % interval ", "")
    assert (
        "| # | trial | name | NLL | n | epochs |" in markdown and "| 1 | t0001 |  | 8.300 nats per step |" in markdown
    )
    assert "%" not in text + markdown and "points" not in text + markdown and "error" not in text + markdown
    assert max(map(len, text.splitlines())) <= width


def test_prediction_errors_are_told_as_the_paper_does(judged_by):
    lines = summary_lines(judged_by("prediction_error"), [trial(0, error=0.0015)])
    assert lines[0].startswith("Best found: 150.0 x 1e-5 validation prediction error (t0000)")
    assert lines[3].endswith("; the best validation prediction error is 0.1 x 1e-5 below it.")


def test_sentences_of_nothing():
    assert summary_lines(WITHOUT_TARGET, []) == [
        "Best found: no suggestion ran to its end.",
        "Supervised baseline (digits-100-base): no result in this search.",
        "Target: none, no paper reports this experiment.",
        "Trials: none has ended.",
    ]
    assert "Supervised baseline: this study has none." in summary_lines(WITHOUT_BASELINE, [])


def test_only_references_completed():
    lines = summary_lines(WITHOUT_TARGET, [trial(0, name="published", error=0.05), trial(1, "FAIL")])
    assert lines[0] == "Best found: no suggestion ran to its end; the published configuration's 5.00 % stands."


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    "study", [WITH_TARGET, WITHOUT_TARGET, UNVERIFIED, WITHOUT_BASELINE], ids=lambda study: study.name
)
@pytest.mark.parametrize("records", [[], some(), some()[3:]], ids=["none", "some", "no suggestion"])
def test_no_line_is_wider_than_the_console(width, study, records):
    lines = printed(study, records, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)


def test_the_table_at_80_columns():
    params = {
        "model/lambda_0": 1000.0,
        "model/noise_std_input": 0.25,
        "training/lr": 0.002,
        "model/combinator": "gauss",
    }
    text = printed(WITH_TARGET, [trial(0, name="published", params=params, error=0.0125), *some()[1:]])
    rows = {
        line.split()[1]: line.split()
        for line in text.splitlines()
        if " t000" in line and "%" in line and "Best" not in line
    }
    assert rows["t0001"] == ["1", "t0001", "1.20", "%", "1", "10", "COMPLETE", "101", "-", "-", "-", "30", "s"]
    assert rows["t0000"][:6] == ["2", "t0000", "published", "1.25", "%", "1"]
    assert rows["t0003"][0] == "–" and "PRUNED" in rows["t0003"]
    assert "Parameters in order: lambda_0, noise_std_input, lr, combinator." in text


def test_a_wide_console_names_the_parameters():
    text = printed(WITH_TARGET, some(), 200)
    assert "lambda_0=102" in text and "Parameters in order" not in text


def test_references_are_shown_whatever_their_rank():
    text = printed(WITH_TARGET, some(), 200, top=1)
    shown = [line.split()[:2] for line in text.splitlines() if "COMPLETE" in line]
    assert shown == [["1", "t0001"], ["2", "t0000"], ["4", "t0006"]]


def test_an_ascii_console_is_served():
    text = printed(WITH_TARGET, some(), encoding="ascii")
    assert "1.06 % +/- 0.37" in text
    assert len({len(line) for line in text.splitlines() if line[0] in "+|"}) == 1, "the columns stand in line"


def test_names_that_look_like_markup_are_printed_as_they_are():
    assert "[red]x" in printed(WITH_TARGET, [trial(0, params={"model/kind": "[red]x"})], 200)


def test_markdown():
    text = leaderboard_markdown(WITH_TARGET, [*some()[:2], trial(7, error=0.5, params={"model/kind": "a|b"})], top=2)
    assert text.splitlines() == [
        "# mnist-100-full",
        "",
        WITH_TARGET.title,
        "",
        "| # | trial | name | error | 95 % interval | n | epochs | state | parameters | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 1 | t0001 |  | 1.20 % | – | 1 | 10 | COMPLETE | lambda_0=101 | 30 s |",
        "| 2 | t0000 | published | 1.50 % | – | 1 | 10 | COMPLETE | lambda_0=100 | 30 s |",
        "",
        *(f"* {line}" for line in summary_lines(WITH_TARGET, some()[:2])[:3]),
        "* Supervised baseline (mnist-100-base): no result in this search.",
        *(f"* {line}" for line in summary_lines(WITH_TARGET, some()[:2])[4:6]),
        "* Trials: 3 ended, 3 complete, 0 stopped early (PRUNED), 0 failed (FAIL).",
    ]
    assert "a\\|b" in leaderboard_markdown(WITH_TARGET, [trial(7, params={"model/kind": "a|b"})])
    assert "| # |" not in leaderboard_markdown(WITH_TARGET, [])
