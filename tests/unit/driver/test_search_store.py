"""Which store a search has, from where, and what stays of its password; all below Ray."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ladder_search.commands.search import parse_arguments
from ladder_search.console import Console
from ladder_search.driver import cluster, search
from ladder_search.driver.settings import SearchSettings
from spaces import find_space
from trainables import PackTrainable

PASSWORD = secrets.token_hex()  # no word of this file, which git shows to the records of a search
STORE = f"http://me:{PASSWORD}@127.0.0.1:9"


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a search of arguments whose trials cost nothing, and return what it printed."""

    @contextmanager
    def connected(address: object, notify: object) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(cluster, "capacity", lambda share, *, private: 2)
    monkeypatch.setattr(cluster, "check_shared", lambda place: 0)
    monkeypatch.setattr(cluster, "has_gpus", lambda *, private: False)
    monkeypatch.setattr(search.Run, "go", lambda *_: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        return _run(parse_arguments(["--offline", "--slots", "1", *arguments]))

    return run


def _run(settings: SearchSettings) -> str:
    out = io.StringIO()
    search.run_search(settings, trainable=PackTrainable, find_space=find_space, console=Console(out, width=200))
    return out.getvalue()


def test_the_variable_is_the_default_of_tracking_and_is_said(
    searched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
    line = "Tracking store http://127.0.0.1:9, as MLFLOW_TRACKING_URI says.\n"
    assert line in searched("digits-100", "--trials", "2", "--name", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:10")
    told = searched("--resume", "--name", "a")
    assert "Tracking store http://127.0.0.1:9, as when the search was begun; MLFLOW_TRACKING_URI names another." in told
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense")
    assert "MLFLOW_TRACKING_URI" not in searched("digits-100", "--trials", "2", "--tracking", "http://127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert parse_arguments(["--resume", "--name", "a"]).tracking == "http://127.0.0.1:9"


def test_a_search_whose_address_has_a_password_goes_on_with_a_login_from_elsewhere(
    searched: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = searched("digits-100", "--trials", "2", "--name", "a", "--tracking", STORE)
    files = [path for path in (tmp_path / "results" / "a").rglob("*") if path.is_file()]
    assert len(files) > 2 and not any(PASSWORD.encode() in path.read_bytes() for path in files)
    assert PASSWORD not in told

    assert parse_arguments(["--resume", "--name", "a"]).tracking == "http://127.0.0.1:9"
    searched("--resume", "--name", "a")  # as the printed line, and a job that Slurm has queued again
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE)
    assert parse_arguments(["--resume", "--name", "a"]).tracking == STORE
    assert parse_arguments(["--resume", "--name", "a", "--tracking", "http://127.0.0.1:9"]).tracking == STORE
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert parse_arguments(["--resume", "--name", "a", "--tracking", STORE]).tracking == STORE
