import optuna
import pytest
from optuna.trial import TrialState

from ladder_search.record.trial import TrialRecord


def many(asked):
    asked.suggest_float("training/lr", 5e-4, 5e-3, log=True)
    asked.suggest_float("model/noise_input", 0.1, 0.5)
    asked.suggest_categorical("model/combinator", ["gauss", "mlp-4", None])
    if asked.params["model/combinator"] == "gauss":  # a parameter that not every trial has
        asked.suggest_int("model/hidden", 1, 64, log=True)


def lr_decides(params):
    return 0.02 + abs(params["training/lr"] - 0.002)


def make_trial(number, state="COMPLETE", error=0.02, name="", epochs=4, errors=None, params=None):
    """A trial whose error halves from epoch to epoch until it is ``error``, or was ``errors``."""
    if errors is None:
        errors = [] if error is None else [min(1.0, error * 2 ** (epochs - epoch)) for epoch in range(1, epochs + 1)]
    return TrialRecord(
        key=f"t{number:04d}",
        number=number,
        name=name,
        state=state,
        reason="",
        params=params or {},
        settings={},
        epochs=tuple({"epoch": place, "step": 5 * place, "validation_error": e} for place, e in enumerate(errors, 1)),
        validation_error=error,
        seconds=1.0,
        checkpoint=None,
    )


def run_search(n, suggest=many, error=lr_decides, *, stopped=(), failed=()):
    """A real Optuna study of ``n`` random suggestions and its records; trial 0 is the published configuration."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    optuna.logging.set_verbosity(verbosity)
    records = []
    for number in range(n):
        asked = study.ask()
        key = number + (number > 0)  # the second trial of a search is its baseline, which is not in this study
        asked.set_user_attr("key", f"t{key:04d}")
        suggest(asked)
        state = "FAIL" if number in failed else "PRUNED" if number in stopped else "COMPLETE"
        value = error(asked.params)
        epochs = {"COMPLETE": 4, "PRUNED": 2, "FAIL": 1}[state]
        study.tell(asked, value if state == "COMPLETE" else None, state=TrialState[state])
        name = "published" if number == 0 else ""
        records.append(make_trial(key, state, value, name, epochs, params=dict(asked.params)))
    return study, records


@pytest.fixture(scope="session")
def trial():
    """Make the record of one trial."""
    return make_trial


@pytest.fixture(scope="session")
def search():
    """Run a search without training: a real Optuna study and its records."""
    return run_search


@pytest.fixture(scope="session")
def nothing():
    """Make the Optuna study of a search that has not suggested anything yet."""
    return lambda: run_search(0)[0]
