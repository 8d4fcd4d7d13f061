"""What a resume makes of every combination of ledger, record and journal that a kill or a full disk can leave."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest

from ladder_search.driver.ledger import BEST_FIRST
from ladder_search.driver.outcomes import OUTCOMES, InJournal, InLedger, InRecord, outcome_of
from ladder_search.driver.resume import Past
from ladder_search.record.trial import STOPPED
from tests.unit.driver.test_resume import EPOCHS, Search

COMBINATIONS = list(itertools.product(get_args(InLedger), get_args(InRecord), get_args(InJournal)))
REACHED = {"COMPLETE": EPOCHS, "PRUNED": 3, "FAIL": 2, "open": 2, "halted": 2}
"""Epochs of a trial in these tests, by what is said of it."""


def test_every_combination_has_one_outcome() -> None:
    assert sorted(OUTCOMES) == sorted(COMBINATIONS)


@pytest.mark.parametrize(("ledger", "record", "journal"), COMBINATIONS)
def test_an_end_stays_and_the_best_one_wins(ledger: InLedger, record: InRecord, journal: InJournal) -> None:
    """The rule behind the table, said once more in another way."""
    ends = [end for end in BEST_FIRST if end in (ledger, record, journal)]
    outcome = outcome_of(ledger, record, journal)
    if (ledger, record) == ("absent", "absent"):
        assert outcome == {"absent": "nothing", "open": "starts"}.get(journal, "left-out")
    elif not ends:
        assert outcome == "goes-on"
    elif ledger == "absent" and record == ends[0]:
        assert outcome == "recorded"
    else:
        assert outcome == ends[0]


def _left(search: Search, ledger: InLedger, record: InRecord, journal: InJournal) -> None:
    """Bring a search to that state; each of the three knows as many epochs as its word needs, and no more."""
    before = search.folder.journal.read_bytes()
    search.suggested()
    if journal == "absent":
        search.folder.journal.write_bytes(before)
    elif journal != "open":
        last = REACHED[journal]
        search.journal.report("t0000", 0.5 / last, last)
        search.journal.end("t0000", journal, 0.5 / last)
    if ledger != "absent":
        epochs = range(1, REACHED[ledger] + 1)
        search.reported(*epochs, end=None if ledger == "open" else (ledger, f"{ledger} in the ledger"), optuna=False)
    if record == "halted":
        search.recorded("PRUNED", REACHED[record], STOPPED)
    elif record != "absent":
        search.recorded(record, REACHED[record], f"{record} in the record")
    search.saved(EPOCHS if "COMPLETE" in (ledger, record, journal) else 2)


def _becomes(past: Past) -> str:
    """What a resume has made of the only trial."""
    groups = {"goes-on": past.unfinished, "recorded": past.records, "ended": past.ended}
    return next((name for name, trials in groups.items() if trials), "nothing")


@pytest.mark.parametrize(("ledger", "record", "journal"), COMBINATIONS)
def test_a_resume_does_as_the_table_says_and_says_it_to_all_three(
    ledger: InLedger, record: InRecord, journal: InJournal, tmp_path: Path
) -> None:
    search = Search(tmp_path)
    _left(search, ledger, record, journal)
    outcome = outcome_of(ledger, record, journal)
    for _ in range(2):  # the second life is killed before it does anything
        past = search.resumed()
        match outcome:
            case "nothing" | "left-out":
                assert past == Past(suggested=0 if outcome == "nothing" else 1)
            case "starts" | "goes-on":
                (unfinished,) = past.unfinished
                assert unfinished.epoch == (0 if outcome == "starts" else 2) and unfinished.trial == search.trial
                assert search.optuna.state.name in ("RUNNING", "WAITING")
            case "recorded":
                (known,) = past.records
                assert (known.state, known.reason) == (record, f"{record} in the record")
                assert search.optuna.state.name in (record, journal)
            case _:
                (ended,) = past.ended
                log = search.ledger["t0000"]
                assert ended.checkpoint is not None and log.end is not None and log.end[0] == outcome
                assert log.rows[REACHED[outcome]]["validation_error"] == 0.5 / REACHED[outcome]
                # Optuna does not change an end that its journal holds.
                assert search.optuna.state.name in (outcome, journal)
        expected = {"starts": "goes-on", "left-out": "nothing", "COMPLETE": "ended", "PRUNED": "ended", "FAIL": "ended"}
        assert _becomes(past) == expected.get(outcome, outcome)
        assert bool(past.halted) == (outcome == "goes-on" and record == "halted")
