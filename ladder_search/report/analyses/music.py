"""The analysis of networks for music: predictions of each next step."""

from __future__ import annotations

from ladder_search.analysis.music import MusicConfig, PianoRolls, WorstStep, choose, look, note_name
from ladder_search.analysis.result import Analysis
from ladder_search.console.tables import Table
from ladder_search.metrics import NLL
from ladder_search.pictures.piano_roll import piano_roll
from ladder_search.report.analyses.family import FamilyAnalysis
from ladder_search.wording import NOTHING, percent, value


def _table(rolls: PianoRolls) -> Table:
    rows = [
        (
            f"{one.low:.1f} to {one.high:.1f}",
            f"{one.notes}",
            NOTHING if one.predicted is None else percent(one.predicted, 1),
            NOTHING if one.sounded is None else percent(one.sounded, 1),
        )
        for one in rolls.calibration
    ]
    return Table(header=("probability", "notes", "expected", "sounded"), rows=rows, left=("probability",))


def _sentences(analysis: Analysis) -> list[str]:
    rolls: PianoRolls = analysis.found
    return [
        f"{NLL.title}: {NLL.text(rolls.nll)} over {rolls.steps} steps of {rolls.pieces} pieces, their first steps left "
        f"out; by each note's own last value it is {NLL.number(rolls.markov_nll)}.",
        f"The costliest steps: {'; '.join(map(_step_in_words, rolls.worst))}.",
    ]


def _step_in_words(one: WorstStep) -> str:
    notes = " ".join(map(note_name, one.notes)) or "silence"
    how = "sounded at" if one.missed in one.notes else "was silent at"
    return (
        f"step {one.step} of piece {one.piece}, {value(one.nats)} nats ({notes}; {note_name(one.missed)} {how} a "
        f"probability of {value(one.probability)})"
    )


def _values(found: PianoRolls) -> dict[str, dict[int, float]]:
    worst = {number: one.nats for number, one in enumerate(found.worst)}
    return {"nll": {0: found.nll}, "markov_nll": {0: found.markov_nll}, "worst_nats": worst}


MUSIC = FamilyAnalysis(
    settings=MusicConfig,
    found=PianoRolls,
    choose=choose,
    run=look,
    items="pieces",
    table=_table,
    sentences=_sentences,
    draw=lambda heading, found: {f"piano-roll-{piece.number}": piano_roll(heading, piece) for piece in found.shown},
    values=_values,
)
