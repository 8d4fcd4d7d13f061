"""A search leaves its process as it was."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.air.execution._internal import RayActorManager

from ladder_search.console import Console
from ladder_search.driver import cluster, search
from ladder_search.driver.settings import SearchSettings
from spaces import find_space
from trainables import PackTrainable


def _state() -> dict[str, Any]:
    loggers = [logging.getLogger(name) for name in ("", "optuna", "ray", "ray.tune", "ray.tune.execution")]
    return {
        "environment": dict(os.environ),
        "patch": RayActorManager._actor_task_failed,
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "loggers": [(one.name, one.level, list(one.handlers), one.propagate) for one in loggers],
        "hook": sys.excepthook,
        "warnings": list(warnings.filters),
    }


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_nothing_of_a_search_outlives_it(ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is whole up to Ray, in whose place stands what it does to a process."""

    class LeftError(Exception):
        pass

    seen: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        logging.getLogger("ray").setLevel(options["logging_level"])
        logging.getLogger("ray").addHandler(logging.NullHandler())
        os.environ["RAY_SET_BY_RAY"] = "1"
        sys.excepthook = lambda *_: None
        warnings.simplefilter("ignore")

    @contextmanager
    def connected(address: object, notify: object) -> Iterator[bool]:
        with original(None, lambda line: None) as private:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "7"
            seen.append(_state())
            if ends == "badly":
                raise LeftError
            yield private

    original = cluster.connected
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(search.Run, "plan", lambda *_: None)
    monkeypatch.setattr(search.Run, "go", lambda *_: optuna.logging.set_verbosity(optuna.logging.DEBUG))
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "0")
    settings = SearchSettings(study="digits-100", trials=2, root=str(tmp_path), offline=True)
    before = _state()

    def run() -> None:
        search.run_search(settings, trainable=PackTrainable, find_space=find_space, console=Console(io.StringIO()))

    if ends == "badly":
        with pytest.raises(LeftError):
            run()
    else:
        run()

    assert seen[0]["environment"]["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
    assert all(seen[0][name] != before[name] for name in before), "the stand-in changes too little"
    assert _state() == before
