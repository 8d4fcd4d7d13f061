"""A tested ordering in words and as a picture: every claim, its bound and its seeds, in the measure's unit."""

from __future__ import annotations

from ladder_search.ordering.claims import find_ordering
from ladder_search.ordering.judging import JudgedOrdering, Reached, judged
from ladder_search.pictures import canvas
from ladder_search.pictures.intervals import differences
from ladder_search.report.orderings import as_markdown, claim_cells, sentences, study_cells, verdict

ORDERING = find_ordering("jsb-table-3")


def found(*, epochs: int | None = None, diverged: tuple[int, ...] = ()) -> JudgedOrdering:
    reached = [
        Reached(study="jsb-rladder", values={1: 8.10, 2: 8.13, 3: 8.08} if not diverged else {1: 8.10, 2: 8.13},
                diverged=diverged),
        Reached(study="jsb-lstm", values={1: 8.50, 2: 8.52, 3: 8.49}),
        Reached(study="jsb-rnn", values={1: 8.20, 2: 8.10, 3: 8.11}),
    ]  # fmt: skip
    return judged(ORDERING, reached, epochs=epochs)


def test_cells_are_in_the_measures_unit_with_the_margin() -> None:
    whole = found()
    assert study_cells(whole, whole.reached[0]) == (
        "jsb-rladder", "3", "8.103 nats per step ± 0.025", "8.041 .. 8.166 nats per step", "–",
    )  # fmt: skip
    cells = claim_cells(whole, whole.claims[0])
    assert cells[1:4] == ("rladder < lstm − 0.200 nats", "3", "+0.400") and cells[-1] == "held"
    assert claim_cells(whole, whole.claims[3])[1:4] == ("rladder < rnn", "3", "+0.033")
    assert claim_cells(whole, whole.claims[4])[2:] == ("0", "–", "–", "–", "–", "not tested")


def test_what_is_missing_reduced_or_diverged_is_said() -> None:
    said = " ".join(sentences(found(epochs=9, diverged=(3,))))
    assert "1: the recurrent ladder is below the LSTM." in said
    assert "No result yet of jsb-rladder-small, jsb-gru, jsb-tcn: claims about them are not tested." in said
    assert "1: left out of 3 seeds: 3, where one of the two diverged." in said
    assert "Every schedule was reduced to 9 epochs" in said
    assert verdict(found()) == (
        "No verdict: 1 of 8 claims are held, 1 is not shown (4), 6 are not tested (2, 3, 5, 6, 7, 8)."
    )


def test_the_table_is_markdown() -> None:
    text = as_markdown(found())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 + 2 + 8 and {row.count("|") for row in rows[5:]} == {9}
    assert text.startswith("# jsb-table-3: test NLL over 3 seeds\n")


def test_seeds_intervals_and_bounds_are_drawn() -> None:
    whole = found()
    with canvas.style():
        picture = differences(whole)
        picture.figure.canvas.draw()
    studies, claims = picture.figure.axes
    assert [tick.get_text() for tick in studies.get_yticklabels()] == ["rladder", "lstm", "rnn"]
    assert next(tick.get_text() for tick in claims.get_yticklabels()) == "1  rladder < lstm − 0.200 nats"
    dotted = [line.get_xdata()[0] for line in claims.lines if line.get_linestyle() == ":"]
    assert sorted(dotted) == [0.0] * 6 + [0.2, 0.2]
    dots = [list(line.get_xdata()) for line in claims.lines if line.get_marker() == "o"]
    assert [round(x, 2) for x in dots[0]] == [0.40, 0.39, 0.41] and dots[4] == []
    assert next(text for *_, ax, _, _, text in picture.texts if ax is claims) == (
        "1  rladder < lstm − 0.200 nats, one seed: 0.400 nats"
    )
