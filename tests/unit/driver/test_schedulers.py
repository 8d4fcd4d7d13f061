"""When trials are stopped: rungs by hand, protected trials, failures; and who is copied to whom by PBT."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from ladder_search.driver.schedulers import PatientASHA, PatientPBT, kept_for_exploits, rungs
from ladder_search.errors import SettingError
from ladder_search.metrics import ERROR, NLL, Measure
from ladder_search.studies import STUDIES, StopConfig

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
MNIST = STUDIES["mnist-100-full"].stop
RULES = StopConfig(first_rung_steps=100, failure_error=0.15, failure_steps=3000)


class FakeTrial(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]  # Ray keeps its trials in dicts


def _trial(key: str, *, protected: bool = False, status: str = Trial.RUNNING, **config: Any) -> Any:
    checkpoints = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=3))
    return FakeTrial(
        trial_id=key,
        status=status,
        config={"key": key, "protected": protected, "name": "published" if protected else "", "start": None} | config,
        evaluated_params={},
        experiment_tag=key,
        run_metadata=SimpleNamespace(checkpoint_manager=checkpoints),
        is_finished=lambda: status == Trial.TERMINATED,
    )


def _result(epoch: int, error: float, steps_per_epoch: int = 500) -> dict[str, Any]:
    return {"epoch": epoch, "step": epoch * steps_per_epoch, "validation_error": error}


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "stop", "expected"),
    [
        (150, 500, MNIST, [17, 50]),  # 150/3 = 50, 50/3 -> 17; 17/3 -> 6 epochs are 3,000 updates: too early
        (150, 600, MNIST, [17, 50]),
        (20, 500, MNIST, []),  # 20/3 -> 7 epochs are 3,500 updates
        (24, 500, MNIST, [8]),  # 8 epochs are 4,000
        (75, 10, STUDIES["digits-100"].stop, [25]),  # 25/3 -> 9 epochs are 90 updates, 200 are asked for
        (1, 10_000, MNIST, []),
        (2, 10_000, MNIST, [1]),
        (81, 1000, StopConfig(first_rung_steps=1, failure_error=1.0, failure_steps=1), [1, 3, 9, 27]),
        (64, 10, StopConfig(first_rung_steps=40, reduction=2, failure_error=1.0, failure_steps=1), [4, 8, 16, 32]),
    ],
)
def test_rungs(epochs: int, steps_per_epoch: int, stop: StopConfig, expected: list[int]) -> None:
    assert rungs(epochs, steps_per_epoch, stop) == expected


@pytest.mark.parametrize("name", [name for name in STUDIES if name.startswith("mnist")])
@pytest.mark.parametrize("epochs", [1, 8, 9, 24, 25, 75, 150, 1000])
def test_no_rung_of_mnist_lies_before_4000_updates(name: str, epochs: int) -> None:
    assert all(rung * 500 >= 4000 and rung < epochs for rung in rungs(epochs, 500, STUDIES[name].stop))


def _asha(
    at: tuple[int, ...] = (17, 50), stop: StopConfig = RULES, measure: Measure = ERROR
) -> tuple[PatientASHA, dict[str, str]]:
    reasons: dict[str, str] = {}
    return PatientASHA(rungs=at, stop=stop, reasons=reasons, measure=measure), reasons


def _play(scheduler: PatientASHA, trial: Any, result: dict[str, Any]) -> str:
    return scheduler.on_trial_result(None, trial, result)


def test_the_worse_two_thirds_of_a_rung_stop() -> None:
    scheduler, reasons = _asha()
    decisions = {}
    for key, error in (("a", 0.05), ("b", 0.04), ("c", 0.06), ("d", 0.045), ("e", 0.03)):
        trial = _trial(key)
        scheduler.on_trial_add(None, trial)
        assert _play(scheduler, trial, _result(16, error)) == CONTINUE
        decisions[key] = _play(scheduler, trial, _result(17, error))
    # The cut-off is the best third of those that came before: none, 0.05, (0.04, 0.05), (0.04, 0.05, 0.06), …
    assert (
        decisions == {"a": CONTINUE, "b": CONTINUE, "c": STOP, "d": CONTINUE, "e": CONTINUE} or decisions["c"] == STOP
    )
    assert decisions["a"] == decisions["b"] == decisions["e"] == CONTINUE
    assert reasons["c"] == "stopped at the rung of epoch 17"


def test_the_rungs_are_the_given_ones() -> None:
    scheduler, _ = _asha()
    for key, error in (("a", 0.01), ("b", 0.02)):
        trial = _trial(key)
        scheduler.on_trial_add(None, trial)
        stopped = next((epoch for epoch in range(1, 150) if _play(scheduler, trial, _result(epoch, error)) == STOP), 0)
        assert stopped == (0 if key == "a" else 17)
    # One that survives the first is compared again at 50 and nowhere else.
    trial = _trial("c")
    scheduler.on_trial_add(None, trial)
    stopped = [e for e in range(1, 150) if _play(scheduler, trial, _result(e, 0.005 if e < 50 else 0.09)) == STOP]
    assert stopped == [50]


def test_a_resumed_search_compares_with_what_was_reported_before() -> None:
    whole, _ = _asha()
    resumed, _ = _asha()
    before = {"t0000": {17: 0.05, 50: 0.04}, "t0001": {17: 0.04}, "t0002": {16: 0.1}, "t0003": {17: None}}
    for key, errors in before.items():
        resumed.recall(key, errors)
        whole.on_trial_add(None, _trial(key))
        for epoch, error in errors.items():
            _play(whole, _trial(key), _result(epoch, math.nan if error is None else error))
    for key, errors in (("t0001", {16: 0.05, 17: 0.9, 18: 0.05, 50: 0.01}), ("t0004", {17: 0.045})):
        for scheduler in (whole, resumed):
            scheduler.on_trial_add(None, _trial(key))
        for epoch, error in errors.items():  # t0001 comes by the rung of 17 again, where it was compared already
            decisions = {_play(scheduler, _trial(key), _result(epoch, error)) for scheduler in (whole, resumed)}
            assert len(decisions) == 1
    values = [[sorted(v for v in rung.values() if v == v) for rung in s._recorded.values()] for s in (whole, resumed)]
    assert values[0] == values[1] == [[0.01, 0.04], [0.04, 0.045, 0.05]]


def test_a_report_between_rungs_counts_for_the_rung_below() -> None:
    """Trials that report every ten epochs meet the rung of 17 at 20."""
    scheduler, reasons = _asha()
    first, second = _trial("a"), _trial("b")
    for trial in (first, second):
        scheduler.on_trial_add(None, trial)
    assert _play(scheduler, first, _result(20, 0.01)) == CONTINUE
    assert _play(scheduler, second, _result(10, 0.1)) == CONTINUE
    assert _play(scheduler, second, _result(20, 0.1)) == STOP
    assert reasons == {"b": "stopped at the rung of epoch 20"}


def test_a_protected_trial_is_recorded_and_never_stopped() -> None:
    scheduler, reasons = _asha()
    good, bad, other = _trial("a", protected=True), _trial("b", protected=True), _trial("c")
    for trial in (good, bad, other):
        scheduler.on_trial_add(None, trial)
    assert _play(scheduler, good, _result(17, 0.01)) == CONTINUE
    for epoch in range(1, 151):
        assert _play(scheduler, bad, _result(epoch, 0.9)) == CONTINUE  # neither the rung nor the failure rule
    assert _play(scheduler, other, _result(17, 0.5)) == STOP  # measured against the protected ones
    assert set(reasons) == {"c"}


@pytest.mark.parametrize("at", [(), (17, 50)])
def test_failures_stop_between_rungs_but_not_before_their_updates(at: tuple[int, ...]) -> None:
    scheduler, reasons = _asha(at=at)
    trial = _trial("a")
    scheduler.on_trial_add(None, trial)
    assert _play(scheduler, trial, _result(5, 0.9)) == CONTINUE  # 2,500 updates
    assert _play(scheduler, trial, _result(6, 0.15)) == CONTINUE  # at the limit, not above it
    assert _play(scheduler, trial, _result(7, 0.151)) == STOP
    assert reasons == {"a": "error above 15 % after 3,500 updates"}


def test_a_failure_is_told_in_its_measure() -> None:
    stop = StopConfig(first_rung_steps=100, failure_error=12.5, failure_steps=3000)
    scheduler, reasons = _asha(stop=stop, measure=NLL)
    trial = _trial("a")
    scheduler.on_trial_add(None, trial)
    assert _play(scheduler, trial, _result(7, 12.4)) == CONTINUE
    assert _play(scheduler, trial, _result(8, 12.6)) == STOP
    assert reasons == {"a": "NLL above 12.5 nats per step after 4,000 updates"}


def test_without_rungs_only_failures_stop() -> None:
    scheduler, _ = _asha(at=())
    for i in range(9):
        trial = _trial(str(i))
        scheduler.on_trial_add(None, trial)
        assert all(_play(scheduler, trial, _result(epoch, 0.01 * (i + 1))) == CONTINUE for epoch in range(1, 20))


def test_a_diverged_trial_does_not_move_the_cut_off() -> None:
    scheduler, _ = _asha()
    trials = {key: _trial(key) for key in "abc"}
    for trial in trials.values():
        scheduler.on_trial_add(None, trial)
    assert _play(scheduler, trials["a"], _result(17, 0.02)) == CONTINUE
    scheduler.on_trial_complete(None, trials["b"], _result(17, math.nan))
    assert _play(scheduler, trials["c"], _result(17, 0.03)) == STOP


SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "model/noise": optuna.distributions.FloatDistribution(0.1, 0.6),
    "model/lambda_0": optuna.distributions.FloatDistribution(100.0, 10_000.0, log=True),
    "model/combinator": optuna.distributions.CategoricalDistribution(("gauss", "vanilla")),
    "model/width": optuna.distributions.IntDistribution(10, 90, step=10),
    "training/labelled_batch": optuna.distributions.IntDistribution(1, 64, log=True),
    "training/momentum": optuna.distributions.FloatDistribution(0.5, 0.9, step=0.1),
}


def _pbt() -> PatientPBT:
    def resolve(params: Any) -> dict[str, Any]:
        settings = {"model": {name.partition("/")[2]: value for name, value in params.items()}, "seed": 1}
        return {"settings": settings, "signature": f"of {params['model/combinator']}"}

    return PatientPBT(interval=10, mode="min", distributions=SPACE, resolve=resolve)


def _member(key: str, number: int, noise: float, *, protected: bool = False) -> Any:
    params = {} if protected else {
        "model/noise": noise, "model/lambda_0": 9_900.0, "model/combinator": "gauss", "model/width": 90,
        "training/labelled_batch": 60, "training/momentum": 0.9,
    }  # fmt: skip
    return _trial(key, protected=protected, number=number, params=params, settings={"model": dict(params)})


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_stays_in_the_space_keeps_its_name_and_resolves_its_settings(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    worse, better = _member("t0007", 7, 0.2), _member("t0003", 3, 0.59)
    config, _ = _pbt()._get_new_config(worse, better)
    params = config["params"]
    assert (config["key"], config["number"], config["protected"]) == ("t0007", 7, False)
    assert 0.1 <= params["model/noise"] <= 0.6
    assert 100.0 <= params["model/lambda_0"] <= 10_000.0
    assert params["model/combinator"] in ("gauss", "vanilla")
    assert type(params["model/width"]) is int and params["model/width"] in range(10, 91, 10)
    assert type(params["training/labelled_batch"]) is int and 1 <= params["training/labelled_batch"] <= 64
    assert any(math.isclose(params["training/momentum"], value) for value in (0.5, 0.6, 0.7, 0.8, 0.9))
    assert config["settings"]["model"] == {name.partition("/")[2]: value for name, value in params.items()}
    assert config["signature"] == f"of {params['model/combinator']}"  # another program, another pack
    assert better.config["params"]["model/noise"] == 0.59


def test_a_distribution_that_pbt_cannot_mutate_is_refused_with_the_way_out() -> None:
    strange: Any = SimpleNamespace()
    with pytest.raises(SettingError, match="the space has a SimpleNamespace; choose --scheduler asha"):
        PatientPBT(interval=10, mode="min", distributions={"x": strange}, resolve=dict)


def test_protected_trials_get_their_turn_but_are_neither_copied_nor_replaced() -> None:
    scheduler = _pbt()
    trials = [_member("t0000", 0, 0.3, protected=True), *(_member(f"t{i:04d}", i, 0.3) for i in range(1, 5))]
    controller: Any = SimpleNamespace(search_alg=object(), get_trials=lambda: trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    assert scheduler.on_trial_result(controller, trials[0], _result(10, 0.001)) == CONTINUE
    for i, trial in enumerate(trials[1:]):
        scheduler._trial_state[trial].last_score = -0.1 * i
    below, above = scheduler._quantiles()
    assert trials[0] not in below + above and below and above
    trials[0].status = Trial.PENDING
    assert scheduler.choose_trial_to_run(controller) is trials[0]


def test_what_a_population_may_be_told_to_copy_is_still_there() -> None:
    # 15 epochs of MNIST between two exploits, a checkpoint every 3: five are written after the one that is copied, and
    # one more where the donor is compared again.
    assert kept_for_exploits(15, 3) >= 1 + 5 + 1
    assert kept_for_exploits(7, 50) >= 1 + 1 + 1
