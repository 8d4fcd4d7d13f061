"""State of a trial on a resume, as a table over the ledger, the record and Optuna's journal.

A kill or a full disk may leave the three at different steps. An end that one of them contains is final; of different
ends, the best one is kept. A record is ``halted`` if its trial was interrupted with the search. If only the journal
contains an end, the user has deleted a damaged record.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from ladder_search.record.trial import TrialState

InLedger = Literal["absent", "open", "COMPLETE", "PRUNED", "FAIL"]
InRecord = Literal["absent", "halted", "COMPLETE", "PRUNED", "FAIL"]
InJournal = Literal["absent", "open", "COMPLETE", "PRUNED", "FAIL"]
"""``open``: suggested, running, or waiting for a resume."""

Outcome = Literal["nothing", "starts", "left-out", "goes-on", "recorded", "COMPLETE", "PRUNED", "FAIL"]
"""nothing: no such trial; starts: suggested only; left-out: its record was deleted; goes-on: from its last checkpoint;
recorded: ended as in its record, which the journal may lack; COMPLETE, PRUNED, FAIL: ended, and the journal, the record
or the run may lack it."""

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


def _parsed() -> dict[tuple[str, str, str], Outcome]:
    header, *lines = _TABLE.strip().splitlines()
    columns = header.partition("|")[2].partition("<-")[0].split()
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    for line in lines:
        row, _, cells = line.partition("|")
        ledger, record = row.split()
        for journal, outcome in zip(columns, cells.split(), strict=True):
            assert outcome in get_args(Outcome), outcome
            outcomes[ledger, record, journal] = outcome  # type: ignore[assignment]  # it has just been checked
    return outcomes


OUTCOMES: Final = _parsed()

REASONS: Final[dict[TrialState, str]] = {
    "COMPLETE": "trained to its budget",
    "PRUNED": "stopped early",
    "FAIL": "crashed: see its log",
}
"""Reason of an end that only Optuna's journal contains."""


def outcome_of(ledger: InLedger, record: InRecord, journal: InJournal) -> Outcome:
    return OUTCOMES[ledger, record, journal]
