"""The direction of a measure at every place that compares values.

The errors of the studies are made a measure of which more is better, ``RISING``. Values v of an error and 1 - v of the
rising measure must then lead to the same ranks, decisions, verdicts and pictures.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import TrialScheduler

from ladder_search.bundles import top
from ladder_search.console import Console
from ladder_search.data.dataset import Dataset
from ladder_search.driver.journal import Journal
from ladder_search.driver.parent_run import search_tags
from ladder_search.driver.progress import Progress
from ladder_search.driver.samplers import SAMPLERS
from ladder_search.driver.schedulers import PatientASHA, PatientPBT
from ladder_search.driver.searcher import OptunaSearcher
from ladder_search.final.training import train_final
from ladder_search.metrics import AMI, AMI_ARITHMETIC, ERROR, MEASURES, NLL, Measure
from ladder_search.ordering.claims import Claim, Ordering
from ladder_search.ordering.judging import JudgedOrdering, Reached, judged
from ladder_search.pictures import canvas
from ladder_search.pictures.curves import learning_curves
from ladder_search.pictures.intervals import differences as differences_picture
from ladder_search.pictures.learning import learning_bands
from ladder_search.pictures.parallel import parallel_coordinates
from ladder_search.pictures.parameters import importance, slices
from ladder_search.pictures.trials import Trials
from ladder_search.ranking import rank, summary
from ladder_search.record.trial import PUBLISHED, TrialRecord, TrialState, best_trials
from ladder_search.report import orderings
from ladder_search.report.leaderboard import leaderboard, summary_lines
from ladder_search.reproduction import contenders
from ladder_search.reproduction.contenders import Contender, Outcome
from ladder_search.reproduction.learning import Learning, differences, marks
from ladder_search.reproduction.reproduction import Reproduction
from ladder_search.reproduction.table import Row, table
from ladder_search.statistics import AgainstTarget, Summary
from ladder_search.studies import StopConfig, Target, find_study
from ladder_search.trial import TrialSpec
from trainables import host

RISING = replace(ERROR, rises=True)
DIRECTIONS = [ERROR, RISING]
DIGITS = find_study("digits-100")


@pytest.fixture(params=DIRECTIONS, ids=["falls", "rises"])
def measure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """The measure of all studies of errors."""
    chosen: Measure = request.param
    monkeypatch.setitem(MEASURES, "error", chosen)
    return chosen


def value(measure: Measure, error: float) -> float:
    """The value that is as good as ``error``."""
    return 1.0 - error if measure.rises else error


def trial(
    measure: Measure, number: int, error: float | None, state: TrialState = "COMPLETE", **changes: Any
) -> TrialRecord:
    own = None if error is None else value(measure, error)
    record = TrialRecord(
        key=f"t{number:04d}",
        number=number,
        name="",
        state=state,
        reason="",
        params={"training/lr": 0.001 * (number + 1), "model/noise": 0.1 + 0.1 * (number % 3)},
        settings={},
        epochs=({"epoch": 1, "step": 10, "validation_error": own},),
        validation_error=own,
        seconds=1.0,
        checkpoint=None,
    )
    return replace(record, **changes)


def records(measure: Measure) -> list[TrialRecord]:
    return [
        trial(measure, 0, 0.2, name=PUBLISHED),
        trial(measure, 1, 0.4, name="supervised baseline"),
        trial(measure, 2, 0.3),
        trial(measure, 3, 0.05, "PRUNED"),
        trial(measure, 4, 0.1),
        trial(measure, 5, None, "FAIL"),
        trial(measure, 6, 0.1),
    ]


# --- the measure ------------------------------------------------------------------------------------------------------


def test_a_measure_by_hand() -> None:
    assert (ERROR.loss(0.25), RISING.loss(0.25)) == (0.25, -0.25)
    assert (ERROR.gain(0.25, 0.75), RISING.gain(0.25, 0.75)) == (0.5, -0.5)
    assert ERROR.best([3.0, 1.0, 2.0], float) == 1.0 and RISING.best([3.0, 1.0, 2.0], float) == 3.0
    assert ERROR.best([], float) is None is RISING.best([], float)
    assert (ERROR.worst, RISING.worst) == (math.inf, -math.inf)
    assert (ERROR.direction, ERROR.mode, RISING.direction, RISING.mode) == ("minimize", "min", "maximize", "max")
    sides = [(m.beyond(worse=True), m.beyond(worse=False)) for m in DIRECTIONS]
    assert sides == [("above", "below"), ("below", "above")]


def test_only_the_adjusted_mutual_information_rises() -> None:
    assert {m.name for m in MEASURES.values() if m.rises} == {name for name in MEASURES if name.startswith("ami")}
    assert MEASURES[AMI.name].rises and MEASURES[AMI_ARITHMETIC.name].rises
    assert (AMI.text(0.9704), AMI.rounded(0.5), AMI.apart(0.02), AMI.label) == ("0.970", "0.5", "0.020 AMI", "AMI")
    assert NLL.label == "NLL, nats per step" and NLL.text(1.0) == "1.000 nats per step"


# --- ranks and reports ------------------------------------------------------------------------------------------------


def test_ranks(measure: Measure) -> None:
    assert [r.number for r in rank(records(measure), measure)] == [4, 6, 0, 2, 1, 3, 5]
    assert [r.number for r in best_trials(records(measure), measure)] == [4, 6, 0, 2, 1]


def test_the_summary_and_the_leaderboard(measure: Measure) -> None:
    found = summary(DIGITS, records(measure))
    assert found.suggestion is not None and found.suggestion.number == 4
    assert found.best == pytest.approx(value(measure, 0.1))
    assert found.gap_points == pytest.approx(30.0)
    assert found.gap_relative == pytest.approx(0.3 / value(measure, 0.4))
    worse = summary(DIGITS, [trial(measure, 0, 0.2, name=PUBLISHED), trial(measure, 2, 0.3)])
    assert worse.best == pytest.approx(value(measure, 0.2))
    assert [row[1] for row in leaderboard(DIGITS, records(measure)).rows][:3] == ["t0004", "t0006", "t0000"]
    side = "above" if measure.rises else "below"
    assert f"(t0004), 10.00 points {side} the published configuration's" in summary_lines(DIGITS, records(measure))[0]


def test_the_best_so_far(measure: Measure) -> None:
    progress = Progress(DIGITS, 7, 1, Console())
    progress.resumed(records(measure))
    assert f"best so far {measure.text(value(measure, 0.1))} (t0004)" in progress.summary()


def test_the_export_of_the_best(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DIGITS.trial().as_mapping()
    made = [replace(r, settings={**settings, "seed": r.number}) for r in records(measure)]
    folder: Any = SimpleNamespace(read_trials=lambda: made)
    exported = top._distinct(folder, {"settings": {}})
    assert [record.number for record in exported] == [4, 6, 0, 2, 1]
    folder.read_trials = lambda: made[5:6]
    assert list(top._distinct(folder, {"settings": {}})) == []


def test_the_contenders_of_a_reproduction(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [DIGITS.trial().changed({"training": {"lr": r.params["training/lr"]}}) for r in records(measure)]
    made = [replace(r, settings=s.as_mapping()) for r, s in zip(records(measure), settings, strict=True)]
    folder = SimpleNamespace(read_trials=lambda: made, path=Path("search"))
    monkeypatch.setattr(contenders, "searches_of", lambda root, name: [folder])
    found = contenders.find_contenders(DIGITS, Path("root"), 2, DIGITS.training.epochs)
    assert [one.name for one in found] == [PUBLISHED, "t0004", "t0006"]


# --- a search ---------------------------------------------------------------------------------------------------------


def ray_trial(key: str, **config: Any) -> Any:
    class Hashable(SimpleNamespace):
        __hash__ = object.__hash__  # type: ignore[assignment]  # Ray keeps trials in dicts

    return Hashable(trial_id=key, config={"key": key, "protected": False, "name": "", "start": None} | config)


def result(measure: Measure, epoch: int, error: float) -> dict[str, Any]:
    return {"epoch": epoch, "step": 100 * epoch, "validation_error": value(measure, error)}


def test_rungs_stop_the_worse_trials_and_the_failure_rule_the_bad_ones(measure: Measure) -> None:
    stop = StopConfig(first_rung_steps=100, failure_error=value(measure, 0.75), failure_steps=300)
    reasons: dict[str, str] = {}
    scheduler = PatientASHA(rungs=[1, 2], stop=stop, reasons=reasons, measure=measure)
    scheduler.recall("t0000", {1: value(measure, 0.3), 2: None})
    decisions = [
        scheduler.on_trial_result(None, ray_trial(f"t{number}"), result(measure, 1, error))
        for number, error in enumerate((0.2, 0.4, 0.25, 0.1, math.nan, 0.5))
    ]
    stopped = [decision == TrialScheduler.STOP for decision in decisions]
    assert stopped == [False, True, False, False, False, True]
    assert scheduler.on_trial_result(None, ray_trial("bad"), result(measure, 3, 0.8)) == TrialScheduler.STOP
    assert scheduler.on_trial_result(None, ray_trial("good"), result(measure, 3, 0.1)) == TrialScheduler.CONTINUE
    level = f"error {'below 25 %' if measure.rises else 'above 75 %'} after 300 updates"
    assert reasons["bad"] == level


def test_a_population_copies_its_better_half(measure: Measure) -> None:
    random.seed(1)
    space: Any = {"training/lr": optuna.distributions.FloatDistribution(1e-4, 1e-1)}
    scheduler = PatientPBT(interval=10, mode=measure.mode, distributions=space, resolve=lambda params: {})
    trials = [ray_trial(f"t{number}", params={}) for number in range(4)]
    for one in trials:
        checkpoints = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=3))
        one.is_finished, one.run_metadata = lambda: False, SimpleNamespace(checkpoint_manager=checkpoints)
        one.experiment_tag, one.status, one.evaluated_params = one.trial_id, "RUNNING", {}
        scheduler.on_trial_add(SimpleNamespace(search_alg=None), one)
        number = int(one.trial_id[1:])
        scheduler._save_trial_state(scheduler._trial_state[one], 10, result(measure, 10, 0.1 * (number + 1)), one)
    worse, better = scheduler._quantiles()
    assert [one.trial_id for one in better] == ["t0"] and [one.trial_id for one in worse] == ["t3"]


def test_optunas_study_and_rays_searcher_have_the_direction(measure: Measure, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, "s", new=True, direction=measure.direction).close()
    again = Journal(path, "s", new=False)  # a resumed search takes the direction from the file
    assert again.mode == measure.mode
    directions = {study.direction.name.lower() for study in (again.study, again.references)}
    assert directions == {measure.direction}
    assert (
        optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path)))).direction.name.lower()
        == measure.direction
    )
    searcher = OptunaSearcher(
        again, lambda number: SAMPLERS["random"](number), lambda asked: {}, [], epochs=1, common={},
        needed=lambda settings, *, fixed: {}, reasons={},
    )  # fmt: skip
    assert (searcher.metric, searcher.mode) == ("validation_error", measure.mode)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["tpe", "cma-es"])
def test_samplers_suggest_the_same_for_mirrored_values(sampler: str) -> None:
    def suggestions(measure: Measure) -> list[float]:
        study = optuna.create_study(direction=measure.direction)
        drawn = []
        for number in range(24):
            study.sampler = SAMPLERS[sampler](number)
            asked = study.ask()
            x, y = asked.suggest_float("x", 0.0, 1.0), asked.suggest_float("y", 0.0, 1.0)
            study.tell(asked, measure.loss((x - 0.3) ** 2 + (y - 0.6) ** 2))
            drawn += [x, y]
        return drawn

    assert suggestions(ERROR) == pytest.approx(suggestions(RISING), abs=1e-12)


def test_the_search_passes_the_direction_on(measure: Measure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a search makes from its study: journal, scheduler of a population, tags."""
    from ladder_search.driver import run

    made: dict[str, Any] = {}
    monkeypatch.setattr(run, "Journal", lambda *_, **options: made.update(options))
    monkeypatch.setattr(run.schedulers, "PatientPBT", lambda **options: made.update(options))
    search: Any = SimpleNamespace(
        _folder=SimpleNamespace(journal=tmp_path / "journal", path=tmp_path), _search="s", _study=DIGITS, _id="1",
        _settings=SimpleNamespace(scheduler="pbt"), _copies=1, _generation=5, _ladder=None,
        _space=SimpleNamespace(distributions={}),
    )  # fmt: skip
    run.Run._begin_journal(search)
    run.Run._scheduler(search, SimpleNamespace())  # type: ignore[arg-type]
    assert (made["direction"], made["mode"]) == (measure.direction, measure.mode)
    tags = search_tags(DIGITS, "s", "1", "")
    assert (tags["measure"], tags["direction"]) == ("error", measure.direction)


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_trial_is_judged_by_its_best_epoch(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "error", replace(measure, name="toy"))  # a row has its error under another name
    spec = DIGITS.trial()
    best = host._read_best(None, measure)
    guest = host._Guest(spec=spec, slots=[0], steps_per_epoch=1, epoch=0, in_turn=False, complete=[], best=best)
    rows = [guest.with_best({"validation_error": value(measure, error)}) for error in (0.5, 0.2, 0.3, 0.1, 0.4)]
    judged_by = [row["validation_error"] for row in rows]
    assert judged_by == pytest.approx([value(measure, error) for error in (0.5, 0.2, 0.2, 0.1, 0.1)])
    assert math.isnan(guest.with_best({"validation_error": math.nan})["validation_error"])
    assert guest.best == pytest.approx(value(measure, 0.1))


def test_final_training_keeps_the_best_epoch(
    measure: Measure, spec: TrialSpec, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With validation examples of its own, a data set decides which epoch's weights are kept."""
    from ladder_search.training.pack import Pack

    errors = iter([0.5, 0.2, 0.3, 0.4])
    monkeypatch.setattr(Dataset, "held_out", property(lambda self: 100))
    monkeypatch.setattr(Pack, "validation_errors", lambda self, slots: {slots[0]: value(measure, next(errors))})
    short = replace(spec, training=replace(spec.training, epochs=4))
    (outcome,) = train_final(short, dataset, seeds=[1001], device=torch.device("cpu"), compiled=False).outcomes
    assert outcome.best_epoch == 2


# --- comparisons ------------------------------------------------------------------------------------------------------

NEAR = [0.102, 0.111, 0.099, 0.108, 0.113, 0.104, 0.106, 0.097, 0.112, 0.108]


def verdict(measure: Measure, shift: float) -> str:
    target = Target(error=value(measure, 0.106), spread=0.007, source="a paper", verified=True, spread_verified=True)
    against = AgainstTarget.of(Summary.of([value(measure, error + shift) for error in NEAR]), target)
    assert against is not None
    return against.verdict(p=against.p, p_margin=against.p_margin, level=0.05)


def test_verdicts_on_a_published_number(measure: Measure) -> None:
    found = [verdict(measure, shift) for shift in (-0.02, 0.0, 0.0055, 0.03)]
    assert found == ["better", "reproduced", "not enough seeds", "worse"]


def reproduction(measure: Measure, **shifts: float) -> Reproduction:
    runs = {PUBLISHED: 0.0, **shifts}
    settings = DIGITS.trial().as_mapping()
    return Reproduction(
        study="digits-100",
        epochs=DIGITS.training.epochs,
        seeds=tuple(range(len(NEAR))),
        device="cpu",
        data_digest="",
        contenders=tuple(
            Contender(
                name=name,
                settings={**settings, "seed": number},
                outcomes=tuple(
                    Outcome(seed=seed, test_error=value(measure, error + shift + 0.0003 * (seed % 3) * bool(shift)))
                    for seed, error in enumerate(NEAR)
                ),
            )
            for number, (name, shift) in enumerate(runs.items())
        ),
    ).with_table()


def test_a_reproductions_table_and_its_race(measure: Measure) -> None:
    made = reproduction(measure, t0001=-0.02, t0002=0.02)
    rows: list[Row] = table([made])
    assert [row.comparison for row in rows] == [None, "better", "worse"]
    sign = -1 if measure.rises else 1
    assert [row.difference for row in rows[1:]] == pytest.approx([-0.0197 * sign, 0.0203 * sign], abs=2e-4)
    assert [one.dropped for one in made.after_look(1, 10).contenders] == ["", "", f"worse than {PUBLISHED}"]


def test_learning_curves_of_studies(measure: Measure) -> None:
    """Curves of an error are drawn as accuracies, those of another measure as they are."""
    rising = {"slow": {1: (0.2, 0.4), 2: (0.3, 0.5)}, "fast": {1: (0.6, 0.7), 2: (0.5, 0.95)}}
    found = [Learning(name=name, title="", curves=curves, measure=measure) for name, curves in rising.items()]
    assert all(one.rises for one in found) and marks(found) == [1, 2]
    (one,) = differences(found, "area")
    assert (one.better, one.worse) == ("fast", "slow")
    assert found[0].kind == ("error" if measure.rises else "accuracy")
    with canvas.style():
        (ax,) = learning_bands("curves", found).figure.axes
    assert ax.get_ylabel() == f"test {'error' if measure.rises else 'accuracy'}, mean ± sd"


def ordering_of(measure: Measure, *claims: Claim) -> JudgedOrdering:
    names = ("digits-100", "digits-100-base")
    ordering = Ordering(name="toy", title="", source="", measure="error", studies=names, claims=claims)
    errors = ((0.10, 0.12, 0.11, 0.10), (0.20, 0.23, 0.20, 0.21))
    return judged(
        ordering,
        [
            Reached(study=name, values={seed: value(measure, error) for seed, error in enumerate(own)})
            for name, own in zip(names, errors, strict=True)
        ],
    )


def test_orderings(measure: Measure) -> None:
    a, b = "digits-100", "digits-100-base"
    result = ordering_of(
        measure,
        Claim(first=a, second=b, bound=0.05, text=""),
        Claim(first=b, second=a, text=""),
        Claim(kind="alike", first=a, second=b, bound=0.02, text=""),
    )
    assert [one.verdict for one in result.claims] == ["held", "contradicted", "contradicted"]
    assert [one.difference for one in result.claims] == pytest.approx([0.1025, -0.1025, 0.1025])
    expected = "{} > {} + 5.00 points" if measure.rises else "{} < {} − 5.00 points"
    assert result.relation(result.claims[0]) == expected.format(result.ordering.short[a], result.ordering.short[b])
    sides = "first minus second" if measure.rises else "second minus first"
    assert f"Differences: {sides}" in orderings.as_markdown(result)
    assert orderings.rule(result)[0].startswith("Above: " if measure.rises else "Below: ")
    with canvas.style():
        picture = differences_picture(result)
    claims = picture.figure.axes[1]
    assert sides in claims.get_title(loc="left") + claims.get_title()
    seeds = [line.get_xdata() for line in claims.lines if line.get_marker() == "o"]
    assert sorted(seeds[0]) == pytest.approx([0.09, 0.10, 0.11, 0.11])


# --- pictures of a search ---------------------------------------------------------------------------------------------


def searched(measure: Measure) -> Trials:
    study = optuna.create_study(direction=measure.direction, sampler=optuna.samplers.RandomSampler(seed=1))
    made = []
    for number in range(12):
        asked = study.ask()
        asked.set_user_attr("key", f"t{number:04d}")
        lr = asked.suggest_float("training/lr", 5e-4, 5e-3, log=True)
        asked.suggest_float("model/noise", 0.1, 0.5)
        error = 0.001 + (300 * abs(lr - 0.002)) ** 2
        study.tell(asked, value(measure, error))
        made.append(trial(measure, number, error, params=dict(asked.params)))
    return Trials.of(DIGITS, made, study)


def test_pictures_of_a_search(measure: Measure) -> None:
    trials = searched(measure)
    falling = searched(ERROR)
    best = min(falling.complete, key=lambda point: point.error or 0.0).key
    assert trials.best_found is not None and trials.best_found.key == best
    with canvas.style():
        curves, coordinates = learning_curves("t", trials), parallel_coordinates("t", trials)
        shares, sliced = importance("t", trials), slices("t", trials)
    assert curves.figure.axes[0].get_yscale() == ("linear" if measure.rises else "log")
    labels = [line.get_label() for line in curves.figure.axes[0].lines]
    assert f"best found ({best}): {measure.text(trials.best_found.validation_error)}" in labels
    assert all(
        ax.get_yscale() == ("linear" if measure.rises else "log") for ax in sliced.figure.axes if ax.get_xlabel()
    )
    bars: Sequence[Any] = shares.figure.axes[0].containers[0].patches
    names = [text.get_text() for text in shares.figure.axes[0].get_yticklabels()]
    assert names[max(range(len(bars)), key=lambda place: bars[place].get_width())] == "lr"
    colours = [line.get_color() for line in coordinates.figure.axes[0].lines if line.get_alpha() is not None]
    brightness = [sum(colour[:3]) for colour in colours]
    assert brightness == sorted(brightness, reverse=True), "lines are drawn from the worst, bright, to the best, dark"


def test_a_value_below_zero_is_drawn(measure: Measure) -> None:
    """An adjusted mutual information may be negative, where an error is drawn at a floor."""
    made = [trial(measure, 0, 0.5, epochs=({"epoch": 1, "step": 1, "validation_error": -0.01},))]
    study = optuna.create_study(direction=measure.direction)
    with canvas.style():
        (ax,) = learning_curves("t", Trials.of(DIGITS, made, study)).figure.axes
    drawn = [float(y) for line in ax.lines for y in line.get_ydata()]
    assert (-0.01 in drawn) == measure.rises
