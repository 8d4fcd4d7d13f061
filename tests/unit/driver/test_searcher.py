"""What Optuna is told of each trial, and in which order trials are suggested."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.search import Searcher

from ladder_search.driver.journal import Journal
from ladder_search.driver.rungs import Ladder, Rung
from ladder_search.driver.samplers import SAMPLERS, sampler_for
from ladder_search.driver.searcher import FixedPoint, OptunaSearcher, Unfinished, outcome
from ladder_search.metrics import MEASURES
from ladder_search.record.trial import identity

optuna.logging.set_verbosity(optuna.logging.ERROR)

EPOCHS = 9


def _settings(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    return {"model": {"x": trial.suggest_float("model/x", 0.0, 1.0)}, "training": {"kind": trial.suggest_categorical(
        "training/kind", ["a", "b"])}}  # fmt: skip


def _needed(settings: dict[str, Any], *, fixed: bool) -> dict[str, Any]:
    return {"signature": f"of {settings['model']['x']}", "compiled": fixed}


POINTS = (
    FixedPoint(
        name="published",
        settings={"model": {"x": 0.5}, "training": {"kind": "a"}},
        params={"model/x": 0.5, "training/kind": "a"},
    ),
    FixedPoint(name="supervised baseline", settings={"model": {"x": 7.0}}, params=None),
)


class Search:
    """A searcher on a journal, and the reports that Tune would pass on."""

    def __init__(
        self, folder: Path, sampler: str = "tpe", points: tuple[FixedPoint, ...] = POINTS, **resumed: Any
    ) -> None:
        self.journal = folder / "optuna.journal"
        self.reasons = {f"t{number:04d}": "stopped at a rung" for number in range(9)}
        self.kept = Journal(self.journal, "s", new=not self.journal.exists())
        self.searcher = OptunaSearcher(
            self.kept, partial(sampler_for, sampler, 3), _settings, points, epochs=EPOCHS, common={"device": "cpu"},
            needed=_needed, reasons=self.reasons, **resumed,
        )  # fmt: skip

    def report(self, trial_id: str, epoch: int, error: float) -> dict[str, Any]:
        result = {"epoch": epoch, "validation_error": error, "diverged": not math.isfinite(error)}
        self.searcher.on_trial_result(trial_id, result)
        return result

    def trial(self, key: str) -> optuna.trial.FrozenTrial:
        return self.kept.trials()[key]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def test_fixed_points_come_first_then_suggestions(search: Search) -> None:
    configs = [search.searcher.suggest(f"ray{i}") for i in range(4)]
    assert all(c["signature"] == f"of {c['settings']['model']['x']}" for c in configs)
    assert [c["compiled"] for c in configs] == [True, True, False, False]
    assert [(c["key"], c["number"], c["name"], c["protected"]) for c in configs] == [
        ("t0000", 0, "published", True),
        ("t0001", 1, "supervised baseline", True),
        ("t0002", 2, "", False),
        ("t0003", 3, "", False),
    ]
    assert configs[0]["params"] == {"model/x": 0.5, "training/kind": "a"}
    assert configs[0]["settings"] == POINTS[0].settings
    assert (configs[1]["params"], configs[1]["settings"]) == ({}, {"model": {"x": 7.0}})
    assert configs[2]["settings"]["model"]["x"] == configs[2]["params"]["model/x"]
    assert all(config["device"] == "cpu" for config in configs)


def test_no_configuration_is_suggested_twice_in_this_life_or_the_next(tmp_path: Path) -> None:
    asked: list[set[str]] = []

    def untried(study: optuna.Study, sampler: Any, number: int, tried: Any) -> dict[str, Any]:
        asked.append(set(tried))
        return {"model/x": number / 10, "training/kind": "b"}

    first = Search(tmp_path, untried=untried)
    configs = [first.searcher.suggest(f"a{i}") for i in range(3)]
    assert configs[2]["params"] == {"model/x": 0.2, "training/kind": "b"}
    second = Search(tmp_path, untried=untried, first=3)
    assert second.searcher.suggest("b")["params"] == {"model/x": 0.3, "training/kind": "b"}
    assert asked == [{identity(config["settings"]) for config in configs[:count]} for count in (2, 3)]


def test_a_finished_trial_is_complete_with_all_its_values(search: Search) -> None:
    search.searcher.suggest("a")
    for epoch in (3, 6):
        search.report("a", epoch, 0.5 / epoch)
    search.searcher.on_trial_complete("a", {"epoch": 9, "validation_error": 0.04})
    trial = search.trial("t0000")
    assert (trial.state.name, trial.value) == ("COMPLETE", 0.04)
    assert trial.intermediate_values == {3: 0.5 / 3, 6: 0.5 / 6, 9: 0.04}
    assert trial.user_attrs["name"] == "published"
    assert json.loads(trial.user_attrs["settings"]) == POINTS[0].settings


def test_a_stopped_trial_is_pruned_and_never_the_best(search: Search) -> None:
    search.searcher.suggest("a")
    search.searcher.on_trial_complete("a", {"epoch": 9, "validation_error": 0.3})
    for i in range(2):
        search.searcher.suggest(f"b{i}")
    search.report("b1", 3, 0.02)
    search.searcher.on_trial_complete("b1", {"epoch": 6, "validation_error": 0.01})
    trial = search.trial("t0002")
    assert (trial.state.name, trial.intermediate_values) == ("PRUNED", {3: 0.02, 6: 0.01})
    assert search.kept.study.best_value == 0.3


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_a_diverged_trial_failed(search: Search, error: float) -> None:
    search.searcher.suggest("a")
    search.report("a", 3, 0.2)
    search.searcher.on_trial_complete("a", {"epoch": 6, "validation_error": error, "diverged": True})
    trial = search.trial("t0000")
    assert (trial.state.name, trial.intermediate_values) == ("FAIL", {3: 0.2})


@pytest.mark.parametrize("result", [None, {}, {"epoch": 9, "validation_error": 0.1}])
def test_a_crashed_trial_failed(search: Search, result: dict[str, Any] | None) -> None:
    search.searcher.suggest("a")
    search.searcher.on_trial_complete("a", result, error=True)
    assert search.trial("t0000").state.name == "FAIL"


def test_a_restored_trial_reports_nothing_twice(search: Search, recwarn: pytest.WarningsRecorder) -> None:
    search.searcher.suggest("a")
    search.report("a", 3, 0.2)
    search.report("a", 3, 0.7)  # after a lost worker it starts from a checkpoint and comes by epoch 3 again
    search.report("a", 6, 0.1)
    search.searcher.on_trial_complete("a", {"epoch": 9, "validation_error": 0.05})
    search.searcher.on_trial_complete("a", {"epoch": 9, "validation_error": 0.99})
    search.report("a", 9, 0.99)
    assert search.trial("t0000").intermediate_values == {3: 0.2, 6: 0.1, 9: 0.05}
    assert search.trial("t0000").value == 0.05
    assert not [w for w in recwarn if "already reported" in str(w.message)]


def test_closing_leaves_no_trial_running(search: Search) -> None:
    for i in range(4):
        search.searcher.suggest(f"r{i}")
    search.report("r2", 3, 0.2)
    search.searcher.on_trial_complete("r0", {"epoch": 9, "validation_error": 0.1})
    search.searcher.close()
    assert search.trial("t0002").intermediate_values == {3: 0.2}
    states = [search.trial(f"t{i:04d}").state.name for i in range(4)]
    assert states == ["COMPLETE", "WAITING", "WAITING", "WAITING"]


def test_a_trial_that_the_halted_search_stops_has_not_ended(search: Search) -> None:
    search.reasons.clear()
    for i in range(3):
        search.searcher.suggest(f"r{i}")
    search.searcher.on_trial_complete("r0", {"epoch": 9, "validation_error": 0.1})
    search.searcher.on_trial_complete("r1", {"epoch": 6, "validation_error": 0.1})
    search.searcher.on_trial_complete("r2")
    assert [search.trial(f"t{i:04d}").state.name for i in range(3)] == ["COMPLETE", "WAITING", "WAITING"]


def test_references_leave_the_search_space_alone(search: Search) -> None:
    for i in range(6):
        search.searcher.suggest(f"r{i}")
        search.searcher.on_trial_complete(f"r{i}", {"epoch": 9, "validation_error": 0.1 * (i + 1)})
    space = optuna.search_space.intersection_search_space(search.kept.study.trials)
    assert set(space) == {"model/x", "training/kind"}
    assert len(search.kept.study.trials) == 5 and len(search.kept.references.trials) == 1


def test_a_population_hears_that_it_is_complete_when_all_have_ended(tmp_path: Path) -> None:
    search = Search(tmp_path, most=2)
    assert [bool(search.searcher.suggest(f"r{i}")) for i in range(3)] == [True, True, False]
    for number in range(2):
        assert search.searcher.suggest("another") is None
        search.searcher.on_trial_complete(f"r{number}", search.report(f"r{number}", EPOCHS, 3.0))
    assert search.searcher.suggest("another") == Searcher.FINISHED
    assert len(search.kept.trials()) == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_suggests_and_is_repeatable(sampler: str, tmp_path: Path) -> None:
    suggested = []
    for run in range(2):
        (tmp_path / str(run)).mkdir()
        search = Search(tmp_path / str(run), sampler)
        found = []
        for i in range(16):
            config = search.searcher.suggest(f"r{i}")
            found.append(config["params"])
            search.searcher.on_trial_complete(
                f"r{i}", {"epoch": 9, "validation_error": config["params"].get("model/x", 0.5)}
            )
        suggested.append(found)
    assert suggested[0] == suggested[1]
    assert len({params["model/x"] for params in suggested[0][2:]}) == 14


READ = """
import sys, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(sys.argv[1])))
print([(t.user_attrs["key"], t.state.name, t.value) for t in study.trials], study.best_value)
"""


def test_the_journal_is_read_by_a_fresh_process(search: Search) -> None:
    search.searcher.suggest("a")
    search.searcher.on_trial_complete("a", {"epoch": 9, "validation_error": 0.25})
    command = [sys.executable, "-W", "ignore", "-c", READ, str(search.journal)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    assert shown.strip() == "[('t0000', 'COMPLETE', 0.25)] 0.25"


def test_a_resumed_searcher_hands_out_what_is_unfinished_and_then_goes_on_counting(tmp_path: Path) -> None:
    first = Search(tmp_path)
    configs = [first.searcher.suggest(f"a{i}") for i in range(3)]
    first.report("a2", 3, 0.2)
    first.searcher.on_trial_complete("a0", {"epoch": 9, "validation_error": 0.1})
    first.searcher.close()
    unfinished = [
        Unfinished(trial={name: config[name] for name in ("key", "number", "name", "params", "settings")},
                   checkpoint=place, epoch=3)
        for config, place in zip(configs[1:], (None, "place"), strict=True)
    ]  # fmt: skip
    second = Search(tmp_path, unfinished=unfinished, first=3)
    again = [second.searcher.suggest(f"b{i}") for i in range(3)]
    assert again[:2] == [{**configs[1], "start": None}, {**configs[2], "start": "place"}]
    assert (again[2]["key"], again[2]["start"]) == ("t0003", None)
    for i in range(3):
        second.searcher.on_trial_complete(f"b{i}", {"epoch": 9, "validation_error": 0.3})
    trials = second.kept.trials()
    assert [trial.state.name for _, trial in sorted(trials.items())] == ["COMPLETE"] * 4
    assert trials["t0002"].intermediate_values == {3: 0.2, 9: 0.3}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_suggestion_does_not_depend_on_interruptions(sampler: str, tmp_path: Path) -> None:
    """Another process, another instance of the sampler, the same trials: the same suggestion."""

    def suggest(search: Search, number: int) -> dict[str, Any]:
        params: dict[str, Any] = search.searcher.suggest(f"r{number}")["params"]
        search.searcher.on_trial_complete(f"r{number}", {"epoch": 9, "validation_error": params["model/x"]})
        return params

    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = Search(tmp_path / "whole", sampler, POINTS[:1])
    broken = Search(tmp_path / "broken", sampler, POINTS[:1])
    for number in range(24):
        if number % 7 == 6:
            broken = Search(tmp_path / "broken", sampler, POINTS[:1], first=number)
        assert suggest(broken, number) == suggest(whole, number)


def test_no_journal_holds_a_pickle(tmp_path: Path) -> None:
    """Optuna's own CMA-ES would write one into every generation's trials, and load it on a resume."""
    search = Search(tmp_path, "cma-es", POINTS[:1])
    for number in range(24):
        params = search.searcher.suggest(f"r{number}")["params"]
        search.searcher.on_trial_complete(f"r{number}", {"epoch": 9, "validation_error": params["model/x"]})
    assert "generation" in search.journal.read_text() and "optimizer" not in search.journal.read_text()


def test_rays_snapshots_hold_nothing_of_the_searcher(search: Search, tmp_path: Path) -> None:
    search.searcher.suggest("a")
    search.searcher.save(str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
    assert isinstance(search.searcher, Searcher) and search.searcher.__getstate__() == {}


@pytest.mark.parametrize(
    ("result", "error", "state"),
    [
        ({"epoch": 9, "validation_error": 0.1}, False, "COMPLETE"),
        ({"epoch": 10, "validation_error": 0.1}, False, "COMPLETE"),
        ({"epoch": 8, "validation_error": 0.1}, False, "PRUNED"),
        ({"epoch": 9, "validation_error": 0.1, "diverged": True}, False, "FAIL"),
        ({"epoch": 9, "validation_error": math.nan}, False, "FAIL"),
        ({"epoch": 9}, False, "FAIL"),
        ({"epoch": 9, "validation_error": 0.1}, True, "FAIL"),
        (None, False, "FAIL"),
    ],
)
def test_outcome(result: dict[str, Any] | None, error: bool, state: str) -> None:
    assert outcome(result, EPOCHS, error=error) == state


def _ladder() -> Ladder:
    rungs = (Rung(3, 1), Rung(EPOCHS, 1), Rung(EPOCHS, 3))
    return Ladder(rungs, epochs=EPOCHS, reduction=3, measure=MEASURES["error"])


class Rungs(Search):
    """A search with a ladder; ``places`` are the checkpoints that have arrived."""

    def __init__(self, folder: Path, **resumed: Any) -> None:
        self.ladder, self.places = _ladder(), dict[str, str]()
        self.moving: set[str] = set()
        super().__init__(
            folder, ladder=self.ladder, checkpoint=self.places.get, arriving=self.moving.__contains__, **resumed
        )  # fmt: skip
        self.reasons.clear()

    def arrive(self, trial_id: str, config: dict[str, Any], epoch: int, *errors: float) -> None:
        """Report that a trial has reached a rung; ``errors`` are those of its draws."""
        rows = [
            {"epoch": EPOCHS * (draw + 1), "validation_error": sum(errors[: draw + 1]) / (draw + 1), "draw": draw,
             "draw_validation_error": error}
            for draw, error in enumerate(errors)
        ]  # fmt: skip
        rows[-1]["epoch"] = epoch
        self.places[config["key"]] = f"{config['key']}/checkpoint_{epoch}"
        self.searcher.on_trial_complete(trial_id, {**rows[-1], "history": rows, "done": True})


def test_fixed_points_climb_all_rungs_and_suggestions_the_first(tmp_path: Path) -> None:
    search = Rungs(tmp_path, most=5)
    configs = [search.searcher.suggest(f"ray{i}") for i in range(5)]
    assert [config["until"] for config in configs] == [27, 27, 3, 3, 3]
    assert [config["stretch"] for config in configs] == [0] * 5
    assert search.searcher.suggest("more") is None, "nothing may start, and trials are running"


def test_the_best_waiting_trial_goes_on_before_a_new_one_starts(tmp_path: Path) -> None:
    search = Rungs(tmp_path, most=6)
    configs = [search.searcher.suggest(f"ray{i}") for i in range(5)]
    for i, error in ((2, 0.5), (3, 0.2), (4, 0.4)):
        search.arrive(f"ray{i}", configs[i], 3, error)
    assert search.trial("t0003").state.name == "RUNNING", "it has not ended, and Optuna must not start it again"
    goes_on = search.searcher.suggest("again")
    assert (goes_on["key"], goes_on["start"], goes_on["until"]) == ("t0003", "t0003/checkpoint_3", 9)
    assert goes_on["stretch"] == 1 and goes_on["settings"] == configs[3]["settings"]
    assert search.searcher.suggest("new")["key"] == "t0005"
    search.arrive("again", goes_on, 9, 0.15)
    assert search.ladder.waiting == ["t0002", "t0004", "t0003"]


def test_a_promotion_waits_for_its_checkpoint(tmp_path: Path) -> None:
    search = Rungs(tmp_path, most=5)
    configs = [search.searcher.suggest(f"ray{i}") for i in range(5)]
    for i in (2, 3, 4):
        search.arrive(f"ray{i}", configs[i], 3, 0.2)
    for i in (0, 1):
        search.searcher.on_trial_complete(f"ray{i}", {"epoch": 27, "validation_error": 0.1, "history": []})
    place = search.places.pop("t0002")
    search.moving.add("t0002")
    assert search.searcher.suggest("x") is None, "its checkpoint is on the way"
    search.places["t0002"] = place
    assert search.searcher.suggest("x")["key"] == "t0002"


def test_the_sampler_learns_from_waiting_trials(tmp_path: Path) -> None:
    search = Rungs(tmp_path, most=9)
    configs = [search.searcher.suggest(f"ray{i}") for i in range(5)]
    search.arrive("ray2", configs[2], 3, 0.5)
    search.arrive("ray3", configs[3], 9, 0.2)
    known = {t.user_attrs["key"]: t for t in search.kept.known({"t0003": 0.25}).get_trials()}
    assert (known["t0002"].state.name, known["t0002"].intermediate_values) == ("PRUNED", {3: 0.5})
    assert (known["t0003"].state.name, known["t0003"].value) == ("COMPLETE", 0.25)
    assert known["t0004"].state.name == "RUNNING" and known["t0003"].params == configs[3]["params"]
    assert search.trial("t0003").state.name == "RUNNING", "the states of the search stay true"


def test_the_end_of_a_search_ends_waiting_trials(tmp_path: Path) -> None:
    search = Rungs(tmp_path, most=5)
    configs = [search.searcher.suggest(f"ray{i}") for i in range(5)]
    search.arrive("ray2", configs[2], 3, 0.5)
    search.arrive("ray3", configs[3], 9, 0.2)
    search.reasons["t0004"] = "error above 90 %"
    search.searcher.on_trial_complete("ray4", {"epoch": 3, "validation_error": 0.95, "history": []})
    for i in (0, 1):
        search.searcher.on_trial_complete(f"ray{i}", {"epoch": 27, "validation_error": 0.1, "history": []})
    assert search.searcher.suggest("x") == Searcher.FINISHED
    ends = search.searcher.end_waiting()
    assert {key: state for key, (state, _) in ends.items()} == {"t0002": "PRUNED", "t0003": "COMPLETE"}
    assert ends["t0002"][1] == "number 1 of 1 at the rung of epoch 3"
    assert [search.trial(f"t{i:04d}").state.name for i in range(5)] == [
        "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "PRUNED",
    ]  # fmt: skip
    assert search.trial("t0003").value == 0.2


def test_waiting_trials_of_an_earlier_execution_wait_again(tmp_path: Path) -> None:
    first = Rungs(tmp_path, most=5)
    configs = [first.searcher.suggest(f"ray{i}") for i in range(5)]
    for i, error in ((2, 0.5), (3, 0.2)):
        first.arrive(f"ray{i}", configs[i], 3, error)
    first.searcher.close()
    assert first.trial("t0003").state.name == "WAITING"
    second = Rungs(tmp_path, first=5, most=1)
    names = ("key", "number", "name", "params", "settings")
    for i in (2, 3):
        second.ladder.report(configs[i]["key"], [{"epoch": 3, "validation_error": (0.5, 0.2)[i - 2]}])
        trial = {name: configs[i][name] for name in names}
        second.places[configs[i]["key"]] = f"old/{i}"
        second.searcher.wait(Unfinished(trial=trial, checkpoint=f"old/{i}", epoch=3))
    new = second.searcher.suggest("a")
    assert new["key"] == "t0005" and second.trial("t0003").state.name == "RUNNING"
    second.arrive("a", new, 3, 0.6)
    assert second.searcher.suggest("b")["start"] == "old/3"


def test_a_halted_search_suggests_nothing_and_ends_with_its_last_trial(tmp_path: Path) -> None:
    """Without a running trial Ray waits ten minutes for a suggestion that is None."""
    halted = [False]
    search = Search(tmp_path, over=lambda: halted[0])
    search.searcher.suggest("a")
    halted[0] = True
    assert search.searcher.suggest("b") is None, "the running trial reports first"
    search.searcher.on_trial_complete("a", {"epoch": 9, "validation_error": 0.04})
    assert search.searcher.suggest("c") == Searcher.FINISHED
