"""Mistakes and unusual circumstances, each as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.servers import free_port
from tests.e2e.conftest import ROOT, TINY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def _statuses(results: Path) -> list[str]:
    client = mlflow.MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    return sorted(run.info.status for run in client.search_runs(experiments))


def _states(study: Path) -> list[str]:
    return [json.loads(path.read_text())["state"] for path in sorted((study / "trials").glob("*.json"))]


def _optuna_states(study: Path) -> set[str]:
    storage = JournalStorage(JournalFileBackend(str(study / "optuna.journal")))
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    return {trial.state.name for name in names for trial in optuna.load_study(study_name=name, storage=storage).trials}


def _wait_for_reports(search: Any, limit: float = 180.0) -> None:
    """Wait until a trial has reported."""
    end = time.monotonic() + limit
    journals = (search.folder / "results").glob("*/optuna.journal")
    while not any('"intermediate_value"' in journal.read_text() for journal in journals):
        assert search.process.poll() is None, search.out()
        assert time.monotonic() < end, search.out()
        time.sleep(0.5)
        journals = (search.folder / "results").glob("*/optuna.journal")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gpus-per-trial", "1"], ["GPU", "--gpus-per-trial", "--address"]),
        (["--address", "127.0.0.1:{port}"], ["--address", "ray start --head"]),
        (["--tracking", "http://me:secret@127.0.0.1:{port}"], ["server must be reachable, http://me:***@", "start it"]),
        (["--set", "space.combinators=gauss,gaus"], ["unknown combinator 'gaus'", "did you mean 'gauss'"]),
        (["--set", "data.validation=0"], ["data.validation", "set it to 1 or more"]),
        (["--root", "file"], ["must be writable", "--root"]),
    ],
)
def test_what_cannot_work_is_one_sentence_before_anything_is_begun(
    arguments: list[str], expected: list[str], start: Callable[..., Any], tmp_path: Path
) -> None:
    if "--gpus-per-trial" in arguments and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    (tmp_path / "file").write_text("")
    port = free_port()
    given = [argument.format(port=port) for argument in arguments]
    ended = start("digits-100", "--trials", "4", *given, folder=tmp_path).ended()
    assert ended.code == 2, str(ended)
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, str(ended)
    assert all(part in ended.err for part in expected) and "secret" not in ended.err, ended.err
    assert not list(tmp_path.glob("results/*/*")), "a search that never began left a study folder"


@pytest.fixture(scope="module")
def interrupted(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, set[Any]]:
    """A search that was ended by Ctrl-C, and where its processes listened before."""
    search = start(
        "digits-100", "--trials", "12", "--epochs", "20000", *TINY, folder=tmp_path_factory.mktemp("interrupted")
    )
    _wait_for_reports(search)
    listened = search.listening()
    os.killpg(search.process.pid, signal.SIGINT)  # as a terminal does it: to every process of the session's group
    return search.ended(), listened


def test_ctrl_c_ends_the_search_with_its_leaderboard(interrupted: tuple[Any, set[Any]]) -> None:
    ended, _ = interrupted
    assert ended.code == 1, str(ended)
    assert "Interrupted: " in ended.out and "Trials: " in ended.out and ended.err == ""
    assert "RUNNING" not in _statuses(ended.folder / "results")
    assert set(_states(ended.study)) == {"PRUNED"}
    for path in (ended.study / "trials").glob("*.json"):
        record = json.loads(path.read_text())
        member = json.loads((ended.study / record["checkpoint"] / "member-0" / "member.json").read_text())
        assert member["step"] == 10 * record["epochs"][-1]["epoch"], "a halted trial leaves all its work behind"
    assert "RUNNING" not in _optuna_states(ended.study)
    assert ended.left == []


def test_nothing_of_a_private_search_listens_beyond_loopback(interrupted: tuple[Any, set[Any]]) -> None:
    _, listened = interrupted
    assert listened
    assert all(address.is_loopback for address in listened), listened


def test_a_time_budget_ends_the_search_as_planned(start: Callable[..., Any], tmp_path: Path) -> None:
    ended = start(
        "digits-100", "--trials", "3", "--epochs", "20000", "--time-budget", "8", *TINY, folder=tmp_path
    ).ended()
    assert ended.code == 0, str(ended)
    assert "The time budget is used up" in ended.out and "Trials: " in ended.out and ended.err == ""
    assert "RUNNING" not in _statuses(tmp_path / "results")
    assert "RUNNING" not in _optuna_states(ended.study)


@pytest.mark.parametrize(
    ("scheduler", "sampler", "states"), [("fifo", "random", {"COMPLETE"}), ("pbt", "cma-es", {"COMPLETE"})]
)
def test_other_schedulers_and_samplers(
    scheduler: str, sampler: str, states: set[str], start: Callable[..., Any], tmp_path: Path
) -> None:
    ended = start(
        "digits-100", "--trials", "6", "--epochs", "30", "--scheduler", scheduler, "--sampler", sampler, *TINY,
        folder=tmp_path,
    ).ended()  # fmt: skip
    assert ended.code == 0, str(ended)
    assert ended.err == "" and "note:" not in ended.out, str(ended)
    assert set(_states(ended.study)) == states
    assert len(_states(ended.study)) == 6
    assert set(_statuses(tmp_path / "results")) == {"FINISHED"}


def test_two_searches_at_the_same_time(start: Callable[..., Any], tmp_path: Path) -> None:
    """In one root, of one study, perhaps begun in the same second: two folders, one store."""
    arguments = ["digits-100", "--trials", "2", "--epochs", "10", "--root", str(tmp_path / "results"), *TINY]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    searches = [start(*arguments, folder=folder) for folder in folders]
    for ended in [search.ended() for search in searches]:
        assert ended.code == 0, str(ended)
        assert ended.err == ""
    assert len(list((tmp_path / "results").glob("digits-100-*/study.json"))) == 2
    assert _statuses(tmp_path / "results") == ["FINISHED"] * 6


def test_a_damaged_cache_is_healed(start: Callable[..., Any], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "digits.v1.arrow").write_bytes(b"ARROW1\0\0 and then nothing of use")
    ended = start(
        "digits-100", "--trials", "1", "--epochs", "2", *TINY, folder=tmp_path, LADDER_SEARCH_CACHE=str(cache)
    ).ended()
    assert ended.code == 0, str(ended)
    assert (cache / "digits.v1.arrow").stat().st_size > 50_000


def test_the_script_alone_runs_as_ray_submit_runs_it(start: Callable[..., Any], tmp_path: Path) -> None:
    """One file in an otherwise empty home, a login shell, and arguments that nothing quotes."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "search.py", home / "search.py")
    # A login shell sets PATH anew: the profile stands for the cluster's, which puts the environment's python first.
    (home / ".bash_profile").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    line = "python ~/search.py digits-100 --trials 2 --epochs 5 --set model.lambda_=1000,10,0.1,0.1,0.1,0.1,0.1"
    cache = os.environ.get("LADDER_SEARCH_CACHE", str(Path.home() / ".cache" / "ladder-search"))
    ended = start(
        command=["bash", "--login", "-c", "-i", line], folder=home, HOME=str(home), LADDER_SEARCH_CACHE=cache
    ).ended()
    assert ended.code == 0, str(ended)
    assert "Study folder" in ended.out
    assert json.loads((ended.study / "study.json").read_text())["settings"]["overrides"]["model"]["lambda_"][0] == 1000


def test_a_running_cluster_is_joined_and_left_running(start: Callable[..., Any], tmp_path: Path) -> None:
    holder = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print("address", cluster.address, flush=True)
sys.stdin.readline()
cluster.shutdown()
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", holder], env=env, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert cluster.stdout is not None
        address = next(line for line in cluster.stdout if line.startswith("address ")).split()[1]
        ended = start(
            "digits-100", "--trials", "3", "--epochs", "10", "--address", address, *TINY, folder=tmp_path,
            RAY_AUTH_MODE="disabled",
        ).ended()  # fmt: skip
        assert ended.code == 0, str(ended)
        assert len(_states(ended.study)) == 3
        assert cluster.poll() is None
    finally:
        cluster.communicate("\n", timeout=60)


def test_studies_shows_targets_and_whether_they_were_verified(command: Callable[..., Any], tmp_path: Path) -> None:
    shown = command("studies", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.strip()}
    assert "1.06 % ± 0.37" in lines["mnist-100-full"] and "unverified" not in lines["mnist-100-full"]
    assert "(unverified)" in lines["mnist-100-bottom"]
    assert "none published" in lines["digits-100"]


def test_the_doctor_says_what_works(command: Callable[..., Any], tmp_path: Path) -> None:
    seen = command("doctor", folder=tmp_path)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert "works  tracking store" in seen.stdout and "fails" not in seen.stdout
    assert list(tmp_path.iterdir()) == []  # it only looks


def test_a_wrong_command_names_the_right_ones(command: Callable[..., Any], tmp_path: Path) -> None:
    wrong = command("studdies", folder=tmp_path)
    assert wrong.returncode == 2 and "studies" in wrong.stderr
    missing = command("sync", "nothing", folder=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1 and "must be a study folder" in missing.stderr


def test_an_environment_in_a_folder_with_a_space(start: Callable[..., Any], tmp_path: Path) -> None:
    """Ray writes its workers' interpreter into a shell command; unquoted, no trial would ever start."""
    place = tmp_path / "a folder"
    place.mkdir()
    (place / "venv").symlink_to(sys.prefix, target_is_directory=True)
    python = str(place / "venv" / "bin" / Path(sys.executable).name)
    command = [python, str(ROOT / "search.py")]
    ended = start("digits-100", "--trials", "2", "--epochs", "5", *TINY, folder=place, command=command).ended(100)
    assert ended.code == 0, str(ended)
