"""What becomes of a trial when its search is resumed: a table over the ledger, the record and Optuna's journal.

A kill or a full disk leaves these three one or more steps apart. Every combination has one outcome. An end that any of
them holds stays; of different ends, the best one stays. A record written when the search was interrupted is ``halted``:
its trial has not ended. If only the journal holds an end, the damaged record was deleted, as the error message says.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from ladder_search.record.trial import TrialState

InLedger = Literal["absent", "open", "COMPLETE", "PRUNED", "FAIL"]
InRecord = Literal["absent", "halted", "COMPLETE", "PRUNED", "FAIL"]
InJournal = Literal["absent", "open", "COMPLETE", "PRUNED", "FAIL"]
"""``open``: suggested, running, or waiting for a resume."""

Outcome = Literal["nothing", "starts", "left-out", "goes-on", "recorded", "COMPLETE", "PRUNED", "FAIL"]
"""nothing: there is no such trial; starts: it was suggested only; left-out: its record was deleted; goes-on: from its
last checkpoint; recorded: it has ended as its record says, and the journal may lack that; COMPLETE, PRUNED and FAIL: it
has ended so, and the journal, the record or the run in the tracking store may lack that."""

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
"""(ledger, record, journal) -> what becomes of the trial."""

REASONS: Final[dict[TrialState, str]] = {
    "COMPLETE": "trained to its budget",
    "PRUNED": "stopped early",
    "FAIL": "crashed: see its log",
}
"""Why a trial ended, where Optuna's journal alone holds its end."""


def outcome_of(ledger: InLedger, record: InRecord, journal: InJournal) -> Outcome:
    """Return what becomes of a trial of which the three say this."""
    return OUTCOMES[ledger, record, journal]
