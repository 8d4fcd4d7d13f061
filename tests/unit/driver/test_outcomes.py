"""What a resume makes of every combination of ledger, record and journal that a kill or a full disk can leave."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest

from ladder_search.driver.outcomes import InJournal, InLedger, InRecord, outcome_of
from ladder_search.driver.resume import Past
from ladder_search.record.trial import STOPPED
from tests.unit.driver.test_resume import EPOCHS, Search

COMBINATIONS = list(itertools.product(get_args(InLedger), get_args(InRecord), get_args(InJournal)))
REACHED = {"COMPLETE": EPOCHS, "PRUNED": 3, "FAIL": 2, "open": 2, "halted": 2}
"""Epochs of a trial in these tests, by what is said of it."""


_TABLE = """
ledger     record    | absent     open       COMPLETE   PRUNED     FAIL       <- Optuna's journal
absent     absent    | nothing    starts     left-out   left-out   left-out
absent     halted    | goes-on    goes-on    COMPLETE   PRUNED     FAIL
absent     COMPLETE  | recorded   recorded   recorded   recorded   recorded
absent     PRUNED    | recorded   recorded   COMPLETE   recorded   recorded
absent     FAIL      | recorded   recorded   COMPLETE   PRUNED     recorded
open       absent    | goes-on    goes-on    COMPLETE   PRUNED     FAIL
open       halted    | goes-on    goes-on    COMPLETE   PRUNED     FAIL
open       COMPLETE  | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
open       PRUNED    | PRUNED     PRUNED     COMPLETE   PRUNED     PRUNED
open       FAIL      | FAIL       FAIL       COMPLETE   PRUNED     FAIL
COMPLETE   absent    | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
COMPLETE   halted    | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
COMPLETE   COMPLETE  | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
COMPLETE   PRUNED    | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
COMPLETE   FAIL      | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
PRUNED     absent    | PRUNED     PRUNED     COMPLETE   PRUNED     PRUNED
PRUNED     halted    | PRUNED     PRUNED     COMPLETE   PRUNED     PRUNED
PRUNED     COMPLETE  | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
PRUNED     PRUNED    | PRUNED     PRUNED     COMPLETE   PRUNED     PRUNED
PRUNED     FAIL      | PRUNED     PRUNED     COMPLETE   PRUNED     PRUNED
FAIL       absent    | FAIL       FAIL       COMPLETE   PRUNED     FAIL
FAIL       halted    | FAIL       FAIL       COMPLETE   PRUNED     FAIL
FAIL       COMPLETE  | COMPLETE   COMPLETE   COMPLETE   COMPLETE   COMPLETE
FAIL       PRUNED    | PRUNED     PRUNED     COMPLETE   PRUNED     PRUNED
FAIL       FAIL      | FAIL       FAIL       COMPLETE   PRUNED     FAIL
"""


def test_every_combination_has_the_outcome_of_the_table() -> None:
    header, *lines = _TABLE.strip().splitlines()
    columns = header.partition("|")[2].partition("<-")[0].split()
    expected = {
        (*row.split(), journal): outcome
        for row, _, cells in (line.partition("|") for line in lines)
        for journal, outcome in zip(columns, cells.split(), strict=True)
    }
    assert expected == {combination: outcome_of(*combination) for combination in COMBINATIONS}


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
