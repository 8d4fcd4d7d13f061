"""``ladder_search.search`` in a program of its own, on real Ray: what it returns, and that the process is unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import environment

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = """
import json, locale, logging, os, signal, sys, threading, warnings
import numpy as np
import optuna, ray, torch  # what they change when they are imported is theirs
from ray import tune
from sklearn.datasets import load_wine

import ladder_search
from ladder_search import programs

X, y = load_wine(return_X_y=True)
order = np.random.default_rng(1).permutation(len(X))
X, y = X[order], y[order]
names = np.array(["barolo", "grignolino", "barbera"])[y].astype(object)
names[90:130] = None


def state():
    loggers = [logging.getLogger(name) for name in ("", *logging.root.manager.loggerDict)]
    return {
        "environment": dict(os.environ),
        "loggers": {one.name: (one.level, [repr(h) for h in one.handlers], one.propagate, one.disabled)
                    for one in loggers if isinstance(one, logging.Logger)
                    and one.name.split(".")[0] in ("root", "optuna", "ray", "mlflow", "ladder_search", "matplotlib")},
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)],
        "path": list(sys.path), "argv": list(sys.argv), "hook": repr(sys.excepthook), "cwd": os.getcwd(),
        "streams": [sys.stdout.errors, sys.stderr.errors, repr(type(sys.stdout)), repr(type(sys.stderr))],
        "warnings": [repr(one) for one in warnings.filters], "locale": locale.setlocale(locale.LC_ALL),
        "torch": [torch.get_num_threads(), torch.get_rng_state().sum().item(), str(torch.get_default_dtype())],
        "numpy": np.random.get_state()[1].sum().item(),
        "patches": [repr(one) for one in (ray.init, ray._private.services.start_api_server,
                    ray._private.services.ConsolePopen, tune.Tuner.fit)],
        "ray": ray.is_initialized(),
    }


programs.Console  # the module is imported: its own imports are no part of a search
logging.getLogger("ray.tune.execution.experiment_state"), logging.getLogger("ray.tune")
before = state()
found = ladder_search.search("wines", X[:130], names[:130], unlabelled=X[130:], trials=3, seed=2, max_concurrent=1,
                             settings={"training": {"epochs": 30}, "stop": {"first_rung_steps": 1000}})
after = state()
changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
missing = {name for name in before["loggers"]} - set(after["loggers"])
changed.get("loggers") and changed.update(loggers={name: (before["loggers"][name], after["loggers"][name])
    for name in before["loggers"] if before["loggers"][name] != after["loggers"].get(name)})
changed = {key: value for key, value in changed.items() if value}
frame = found.table().to_pandas()
print(json.dumps({
    "changed": changed, "missing": sorted(missing), "columns": list(frame.columns), "rows": len(frame),
    "names": frame["name"].tolist(), "states": frame["state"].tolist(), "best": found.best["model"]["widths"],
    "classes": found.classifier.classes_.tolist(), "labelled": found.classifier.n_labelled_,
    "right": float((found.classifier.predict(X[:90]) == names[:90]).mean()), "folder": str(found.folder),
    "threads": sorted(t.name for t in threading.enumerate() if not t.daemon),
}))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(), capture_output=True, encoding="utf-8"
    )


def test_a_program_gets_trials_settings_and_a_classifier_and_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = run(tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["changed"] == {} and found["missing"] == []
    assert found["threads"] == ["MainThread"]
    assert any("3 done, 0 running" in line for line in lines)  # its progress
    assert found["rows"] == 3 and set(found["states"]) == {"COMPLETE"}
    assert found["names"][:2] == ["proposed", "supervised baseline"]
    assert {"trial", "error", "seconds", "training/lr", "model/lambda_0"} <= set(found["columns"])
    assert found["classes"] == ["barbera", "barolo", "grignolino"] and found["labelled"] == 90
    assert found["best"][0] == 13 and found["right"] > 0.9
    # Every command works on what is left.
    exported = run(tmp_path, "-m", "ladder_search.cli", "export", found["folder"])
    assert exported.returncode == 0, exported.stderr
