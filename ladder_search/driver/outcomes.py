"""State of a trial on a resume, from the ledger, the record and Optuna's journal.

A kill or a full disk may leave the three at different steps. An end that one of them contains is final; of different
ends, the best one is kept. A record is ``halted`` if its trial was interrupted with the search. If only the journal
contains an end, the user has deleted a damaged record.
"""

from __future__ import annotations

from typing import Final, Literal

from ladder_search.driver.ledger import BEST_FIRST
from ladder_search.record.trial import TrialState

InLedger = Literal["absent", "open", "COMPLETE", "PRUNED", "FAIL"]
InRecord = Literal["absent", "halted", "COMPLETE", "PRUNED", "FAIL"]
InJournal = Literal["absent", "open", "COMPLETE", "PRUNED", "FAIL"]
"""``open``: suggested, running, or waiting for a resume."""

Outcome = Literal["nothing", "starts", "left-out", "goes-on", "recorded", "COMPLETE", "PRUNED", "FAIL"]
"""nothing: no such trial; starts: suggested only; left-out: its record was deleted; goes-on: from its last checkpoint;
recorded: ended as in its record, which the journal may lack; COMPLETE, PRUNED, FAIL: ended, and the journal, the record
or the run may lack it."""

REASONS: Final[dict[TrialState, str]] = {
    "COMPLETE": "trained to its budget",
    "PRUNED": "stopped early",
    "FAIL": "crashed: see its log",
}
"""Reason of an end that only Optuna's journal contains."""


def outcome_of(ledger: InLedger, record: InRecord, journal: InJournal) -> Outcome:
    if (ledger, record) == ("absent", "absent"):
        return "nothing" if journal == "absent" else "starts" if journal == "open" else "left-out"
    best = next((end for end in BEST_FIRST if end in (ledger, record, journal)), None)
    if best is None:
        return "goes-on"
    return "recorded" if ledger == "absent" and record == best else best
