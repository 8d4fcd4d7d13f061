"""Reproductions of a tiny study on the digits: who competes, what is kept, and what the table says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ladder_search.config import build
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import PUBLISHED, TrialRecord
from ladder_search.report.rows import cells, rule, sentences
from ladder_search.reproduction.contenders import find_contenders, seeds_of_searches
from ladder_search.reproduction.reproduction import (
    FILE,
    Reproduction,
    folder_name,
    read_reproduction,
)
from ladder_search.reproduction.table import Row, table, table_json
from ladder_search.statistics import AgainstTarget, Summary, holm, paired
from ladder_search.studies import STUDIES, Study, find_study
from ladder_search.trial import TrialSpec
from tests.unit.reproduction.racing import Begin, Told, told


def searched(root: Path, name: str, *trials: TrialSpec, study: str = "tiny", references: int = 1) -> None:
    """A search whose trials end in the order of their errors: the first is the best."""
    folder = StudyFolder(root / name)
    folder.create({"settings": {"study": study}, "store": "sqlite:///x.db"})
    for number, spec in enumerate(trials):
        folder.write_trial(
            TrialRecord(
                key=f"t{number:04d}",
                number=number,
                name=PUBLISHED if number < references else "",
                state="COMPLETE",
                reason="",
                params={},
                settings=spec.as_mapping(),
                epochs=(),
                validation_error=0.1 + number / 100,
                seconds=1.0,
                checkpoint=None,
            )
        )


def with_lr(spec: TrialSpec, lr: float, epochs: int = 4) -> TrialSpec:
    return replace(spec, training=replace(spec.training, lr=lr, epochs=epochs))


def test_the_published_configuration_alone(begin: Begin, tmp_path: Path) -> None:
    heard: Told = []
    found = begin().run(told(heard))
    assert [c.name for c in found.contenders] == ["published"] and found.complete
    assert [o.seed for o in found.contenders[0].outcomes] == [1001, 1002, 1003, 1004]
    assert [what for what, _ in heard] == ["published, seeds 1001 to 1003"] * 4 + ["published, seeds 1004 to 1004"] * 4
    assert read_reproduction(tmp_path / "out") == found
    assert (tmp_path / "out" / "published" / "seeds-1001-1003" / "seed-1002" / "weights.safetensors").is_file()
    (row,) = table([found])
    assert row.n == 4 and row.comparison is None and row.target is not None
    said = " ".join(sentences([row], [found]))
    assert "could not be confirmed" in said and "python search.py tiny" in said


def test_the_best_of_the_latest_search_compete(study: Study, spec: TrialSpec, tmp_path: Path) -> None:
    slow, fast, few = with_lr(spec, 0.001), with_lr(spec, 0.003, epochs=2), replace(spec, seed=5, label_seed=1001)
    searched(tmp_path, "a", spec, with_lr(spec, 0.004))
    searched(tmp_path, "b", spec, slow, replace(slow, seed=9), fast, few)
    searched(tmp_path, "c", spec, replace(fast, data=replace(fast.data, labels=100)))  # another experiment
    searched(tmp_path, "d", with_lr(spec, 0.0035), study="digits-50")
    found = find_contenders(study, tmp_path, 5, 4)
    assert [(c.name, c.search) for c in found] == [("published", None), ("t0001", "b"), ("t0003", "b")]
    assert [c.spec.training.epochs for c in found] == [4, 4, 4], "a search's shorter schedule is not kept"
    assert [c.spec.training.lr for c in found] == [0.002, 0.001, 0.003]
    assert found[1].validation_error == 0.11 and found[1].folder != found[2].folder
    assert len(find_contenders(study, tmp_path, 1, 4)) == 2 and len(find_contenders(study, tmp_path, 0, 4)) == 1
    assert seeds_of_searches(study, tmp_path) == {1, 5, 9, 1001}


def test_seeds_of_the_search_confirm_nothing(begin: Begin, spec: TrialSpec, tmp_path: Path) -> None:
    searched(tmp_path / "results", "first", spec, replace(with_lr(spec, 0.003), label_seed=1001, draws=2))
    assert begin(seeds=2).reproduction.seeds == (1003, 1004)


def test_who_is_clearly_worse_gets_no_more_seeds(begin: Begin, spec: TrialSpec, tmp_path: Path) -> None:
    searched(tmp_path / "results", "first", spec, with_lr(spec, 0.003), with_lr(spec, 1e-7))
    found = begin(seeds=7).run(told([]))
    assert [(c.name, len(c.outcomes)) for c in found.contenders] == [("published", 7), ("t0001", 7), ("t0002", 3)]
    assert found.contenders[2].dropped in ("worse than published", "worse than t0001") and found.complete
    rows = table([found])
    assert [row.verdict for row in rows][2] == "dropped" and rows[2].comparison == "dropped"
    assert rows[1].comparison in ("better", "no difference shown", "worse") and rows[1].difference is not None
    assert f"dropped after 3 seeds: {found.contenders[2].dropped}" in " ".join(sentences(rows, [found]))
    again = begin(seeds=7)
    assert again.run(told([], most=1)) == found, "nothing is trained again"


@pytest.mark.parametrize("broken_at", [2, 6, 11])
def test_a_reproduction_that_was_killed_goes_on(
    begin: Begin, spec: TrialSpec, tmp_path: Path, broken_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(tmp_path / "results", "first", spec, with_lr(spec, 0.003))
    heard: Told = []
    with pytest.raises(KeyboardInterrupt):
        begin().run(told(heard, most=broken_at))
    found = begin().run(told(heard))
    names = [f"{who}, seeds {seeds}" for seeds in ("1001 to 1003", "1004 to 1004") for who in ("published", "t0001")]
    for name in names:
        epochs = [progress.epoch for what, progress in heard if what == name]
        assert epochs[-1] == 4 and len(epochs) <= 4 + 4, name
    assert sum(len([1 for what, _ in heard if what == name]) > 4 for name in names) <= 1, "one block was interrupted"
    (tmp_path / "out").rename(tmp_path / "first")
    untimed = {"seconds": 0.0, "cpu_seconds": 0.0}
    assert replace(begin().run(told([])), **untimed) == replace(found, **untimed)


def test_a_time_budget_ends_it_and_the_next_call_goes_on(begin: Begin, tmp_path: Path) -> None:
    heard: Told = []
    found = begin().run(told(heard), out_of_time=lambda: len(heard) >= 5)
    assert not found.complete and len(found.contenders[0].outcomes) == 3
    assert "rerun the same command to continue" in " ".join(sentences(table([found]), [found]))
    found = begin().run(told(heard))
    assert found.complete and found.tables == ({PUBLISHED: 3}, {PUBLISHED: 4}) and found.table_number == 2


def test_more_seeds_and_later_searches_join(begin: Begin, spec: TrialSpec, tmp_path: Path) -> None:
    begin(seeds=2).run(told([]))
    searched(tmp_path / "results", "first", spec, with_lr(spec, 0.003))
    heard: Told = []
    found = begin(seeds=3).run(told(heard))
    assert {what for what, _ in heard} == {"published, seeds 1003 to 1003", "t0001, seeds 1001 to 1003"}
    other = found.contenders[1].folder
    assert found.tables == ({PUBLISHED: 2}, {PUBLISHED: 3, other: 3})
    assert "this is table 2 of the same runs as they grew; it tests at 0.833 %." in " ".join(
        sentences(table([found]), [found])
    )


def test_a_reduced_schedule_is_named_and_judges_nothing(begin: Begin, study: Study) -> None:
    assert folder_name(study, 4) == "tiny" and folder_name(study, 1) == "tiny-reduced-to-1-epochs"
    found = begin(seeds=2, epochs=1).run(told([]))
    (row,) = table([found])
    assert found.reduced and row.verdict == "reduced schedule" and row.p_target is None
    assert cells(row)[0] == "tiny, reduced to 1 epochs"


def test_a_folder_goes_on_with_the_same_reproduction_only(begin: Begin, spec: TrialSpec, tmp_path: Path) -> None:
    begin(seeds=2).run(told([]))
    for changed in ({"epochs": 3}, {"device": "cuda"}):
        with pytest.raises(StudyFolderError, match="give the same or choose another -o"):
            begin(**changed)
    searched(tmp_path / "results", "late", spec, replace(with_lr(spec, 0.003), seed=1001))
    with pytest.raises(StudyFolderError, match="goes on with the seeds that it began with"):
        begin(seeds=2)


def test_a_folder_of_something_else_is_left_alone(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(StudyFolderError, match=r"holds 'thesis\.tex'"):
        begin()
    (tmp_path / "out" / FILE).write_text("{}")
    with pytest.raises(CheckpointError, match="must be a reproduction"):
        begin()
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_damaged_reproductions(begin: Begin, tmp_path: Path) -> None:
    begin(seeds=2).run(told([]))
    path = tmp_path / "out" / FILE
    whole = path.read_text()
    for text in ("", "[]", whole[:-30], "[" * 100_000, whole.replace("race 2", "race 3"), whole.replace("tiny", "big")):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"race\.json must be a reproduction"):
            read_reproduction(tmp_path / "out")


def made(name: str, *errors: list[float | None], earlier: int = 0) -> Reproduction:
    """A reproduction of the study ``name`` whose contenders reached these errors, after as many earlier tables."""
    study = find_study(name)
    settings = study.trial().as_mapping()
    contenders = [
        {
            "name": f"t{place:04d}" if place else PUBLISHED,
            "settings": settings,
            "search": "first" if place else None,
            "outcomes": [{"seed": 1001 + i, "test_error": error} for i, error in enumerate(reached)],
        }
        for place, reached in enumerate(errors)
    ]
    return build(
        Reproduction,
        {
            "study": name,
            "epochs": study.training.epochs,
            "seeds": [1001 + i for i in range(max(map(len, errors)))],
            "device": "cpu",
            "data_digest": "d" * 64,
            "contenders": contenders,
            "tables": [{PUBLISHED: -1 - i} for i in range(earlier)],
        },
    ).with_table()


NEAR: list[float | None] = [0.0102, 0.0111, 0.0099, 0.0108, 0.0113, 0.0104, 0.0106, 0.0097, 0.0112, 0.0108]


def test_a_study_has_the_same_verdicts_whatever_else_is_on_the_command_line() -> None:
    own = made("mnist-100-full", NEAR, [error + 0.004 for error in NEAR if error is not None])
    others = [made("mnist-all-full", [0.0057, 0.0058, 0.0056], earlier=k) for k in range(8)]
    alone = table([own])
    assert [row.verdict for row in alone] == ["reproduced", "worse"]
    assert alone == table([own, *others])[:2] == table([*others, own])[-2:]
    assert json.dumps(table_json(alone)["rows"]) == json.dumps(table_json(table([own, *others]))["rows"][:2])


def test_holm_runs_over_all_tests_of_a_difference_and_over_all_against_the_margin() -> None:
    higher = [error + 0.0022 + 0.0002 * (i % 2) for i, error in enumerate(NEAR) if error is not None]
    rows = table([made("mnist-100-full", NEAR, [*higher])])
    target = find_study("mnist-100-full").target
    assert target is not None
    tests = [AgainstTarget.of(Summary.of(row.errors), target) for row in rows]
    differences = [t.p for t in tests if t] + [paired(rows[1].errors, rows[0].errors)]
    assert [rows[0].p_target, rows[1].p_target, rows[1].p_difference] == pytest.approx(holm(differences))
    assert [row.p_margin for row in rows] == pytest.approx(holm([t.p_margin for t in tests if t]))
    assert (rows[0].difference_tests, rows[0].margin_tests) == (3, 2)
    # Of one configuration two tests are made, of which one at most can err: neither is corrected.
    (row,) = table([made("mnist-100-full", NEAR)])
    assert tests[0] is not None and (row.p_target, row.p_margin) == (tests[0].p, tests[0].p_margin)


def test_tests_that_cannot_be_made_count_as_tests() -> None:
    """How many tests there are must not depend on what the runs gave."""
    good = [error - 0.002 + 0.0001 * (i % 2) for i, error in enumerate(NEAR) if error is not None]
    whole = made("mnist-100-full", NEAR, [*good], [0.0106], [0.0107, 0.0108, 0.0109])
    contenders = (*whole.contenders[:3], replace(whole.contenders[3], dropped="worse than published"))
    rows = table([replace(whole, contenders=contenders).with_table()])
    assert {(row.difference_tests, row.margin_tests) for row in rows} == {(7, 4)}
    p = paired(rows[1].errors, rows[0].errors)
    assert rows[1].p_difference == pytest.approx(7 * p), "the smallest of seven"
    assert (rows[3].p_target, rows[3].p_margin, rows[3].p_difference) == (None, None, None)


def test_rows_of_several_kinds() -> None:
    better = [error - 0.0005 + 0.0001 * (i % 2) for i, error in enumerate(NEAR) if error is not None]
    found = made("mnist-100-full", NEAR, [*better[:9], None], [0.0106])
    published, first, second = table([found])
    assert first.comparison == "better" and first.diverged == (1010,) and first.n == 9
    assert first.difference == pytest.approx(-0.000456, abs=1e-6)
    assert (second.comparison, second.verdict, second.p_difference) == ("too few seeds", "not enough seeds", 1.0)
    said = " ".join(sentences([published, first, second], [found]))
    assert "1 of 10 seeds diverged (1010)" in said
    assert cells(first)[3:5] == ("9 of 10", "1.01 % ± 0.06") and "better" in cells(first)[6]
    (unverified,) = table([made("mnist-100-bottom", NEAR)])
    assert unverified.verdict_text == "reproduced (unverified target)"
    (none,) = table([made("digits-100", [0.04, 0.05])])
    assert none.verdict == "no target" and cells(none)[1] == "none"
    (nobody,) = table([made("mnist-100-full", [None, None])])
    assert nobody.verdict == "not enough seeds" and cells(nobody)[3:6] == ("0 of 2", "–", "–")
    json.dumps(table_json([published, first, second, unverified, none, nobody]), allow_nan=False)


def test_each_table_has_the_level_of_its_look_and_says_so() -> None:
    far: list[float | None] = [0.0150, 0.0152, 0.0149, 0.0153, 0.0147, 0.0151]
    levels = {earlier: 0.05 / ((earlier + 1) * (earlier + 2)) for earlier in (0, 1, 40)}
    verdicts = {}
    for earlier, level in levels.items():
        found = made("mnist-100-full", far, earlier=earlier)
        rows = table([found])
        verdicts[earlier] = rows[0].verdict
        assert rows[0].level == table_json(rows)["rows"][0]["level"] == pytest.approx(level)
        assert f"finds a difference at {100 * level:.3g} %" in " ".join(rule(rows))
        assert found.with_table() == found and found.next_level < level
    assert verdicts == {0: "worse", 1: "not enough seeds", 40: "not enough seeds"}
    both = [made("mnist-100-full", far), made("mnist-50-full", far, earlier=1)]
    said = " ".join(rule(table(both)))
    assert "at 2.5 % (mnist-100-full) or 0.833 % (mnist-50-full), after Holm" in said
    assert "0.37 points, one published standard deviation (mnist-100-full) or 0.65 points, one" in said


def test_the_same_runs_are_judged_alike_however_often_they_are_shown() -> None:
    first = made("mnist-100-full", NEAR[:5])
    grown = replace(first, contenders=made("mnist-100-full", NEAR).contenders).with_table()
    assert (first.table_number, grown.table_number) == (1, 2)
    back = replace(grown, contenders=first.contenders).with_table()
    assert back.tables == grown.tables and table([back]) == table([replace(first, tables=grown.tables)])
    assert back.table_number == 1, "as it was"


def test_other_contenders_with_as_many_seeds_are_another_look() -> None:
    first = made("mnist-100-full", NEAR, NEAR)
    other = replace(first.contenders[1], settings={**first.contenders[1].settings, "family": "other"})
    later = replace(first, contenders=(first.contenders[0], other)).with_table()
    assert later.table_number == 2 and [*later.tables[1].values()] == [*later.tables[0].values()] == [10, 10]


def test_runs_that_a_killed_call_left_behind_are_not_judged() -> None:
    """A report may be made of them at any time: each would be a look that nothing counts."""
    found = made("mnist-100-full", NEAR, [error + 0.004 for error in NEAR if error is not None])
    for uncounted in (replace(found, tables=()), replace(found, tables=({PUBLISHED: 2},))):
        rows = table([uncounted])
        assert {row.verdict for row in rows} == {"no verdict"} and rows[1].comparison == "no verdict"
        assert all(row.level is None and row.withheld for row in rows) and rule(rows) == []
        assert "no verdict yet: these runs are in no table yet" in " ".join(sentences(rows, [uncounted]))


def test_a_file_of_format_1_is_read_and_its_looks_are_kept(begin: Begin, tmp_path: Path) -> None:
    begin(seeds=2).run(told([]))
    path = tmp_path / "out" / FILE
    kept = json.loads(path.read_text())
    del kept["overspent_tables"]
    path.write_text(json.dumps({**kept, "format": "ladder-search race 1", "tables": [[1, 1], [2]]}))
    found = read_reproduction(tmp_path / "out")
    assert found.tables == ({}, {PUBLISHED: 2}) and found.overspent_tables == 2 and found.table_number == 2
    said = " ".join(sentences(table([found]), [found]))
    assert "the first 2 of its tables were made by an earlier version, whose levels sum to more than 5 %" in said
    found = begin(seeds=3).run(told([]))
    assert (found.table_number, found.overspent_tables) == (3, 2)
    assert json.loads(path.read_text())["format"] == "ladder-search race 2"
    assert read_reproduction(tmp_path / "out") == found


@pytest.mark.parametrize("others", [(), (0.0001, 0.003), (0.004, 0.004, 0.004)])
@pytest.mark.parametrize("earlier", [0, 2])
def test_the_seeds_that_are_advised_give_a_verdict_in_the_next_table_and_fewer_do_not(
    others: tuple[float, ...], earlier: int
) -> None:
    def errors(n: int, mean: float) -> list[float | None]:
        """An even number of errors with this mean and the standard deviation 0.7 %."""
        return [mean + (-1) ** i * 0.007 * math.sqrt((n - 1) / n) for i in range(n)]

    def first(n: int, looks: int) -> Row:
        rest = [errors(6, 0.007 + shift) for shift in others]
        return table([made("mnist-100-full", errors(n, 0.007), *rest, earlier=looks)])[0]

    few = first(6, earlier)
    assert few.verdict == "not enough seeds" and few.seeds_needed is not None
    enough = few.seeds_needed + few.seeds_needed % 2
    assert (first(enough, earlier + 1).verdict, first(enough - 2, earlier + 1).verdict) == (
        "reproduced", "not enough seeds",
    )  # fmt: skip


def test_where_no_margin_was_fixed_the_table_says_why_there_is_no_verdict(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert study.target is not None
    noisy: list[float | None] = [0.25, 0.35, 0.28, 0.32, 0.30]
    for target, reason in (
        (replace(study.target, spread=None), "the paper prints no spread, and no margin was fixed beforehand"),
        (replace(study.target, spread=None, seeds=1), "the published number is a single run"),
    ):
        monkeypatch.setitem(STUDIES, "tiny", replace(study, target=target))
        rows = table([made("tiny", noisy, [0.1, 0.11, 0.12, 0.1, 0.11])])
        assert [row.verdict for row in rows] == ["no verdict"] * 2 and {row.withheld for row in rows} == {reason}
        assert rows[1].comparison == "better" and rows[0].difference_tests == 1 and rows[0].margin_tests == 0
        said = " ".join((*sentences(rows, [made("tiny", noisy)]), *rule(rows)))
        assert (
            f"no verdict on the published number: {reason}." in said
            and "published number:" not in said.split("Better")[1]
        )
    monkeypatch.setitem(STUDIES, "tiny", replace(study, target=replace(study.target, spread=None, margin=0.1)))
    rows = table([made("tiny", noisy)])
    assert rows[0].verdict == "reproduced" and "fixed beforehand: 10.00 points." in " ".join(rule(rows))
