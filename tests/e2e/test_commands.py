"""Mistakes and unusual circumstances, each as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import signal
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
from tests.e2e.conftest import ALONE, ROOT, TINY

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
    ],
)
def test_what_ray_cannot_give_is_one_sentence_before_anything_is_begun(
    arguments: list[str], expected: list[str], start: Callable[..., Any], tmp_path: Path
) -> None:
    """What is refused before Ray is asked is in ``test_refusals``."""
    if "--gpus-per-trial" in arguments and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    port = free_port()
    given = [argument.format(port=port) for argument in arguments]
    ended = start("digits-100", "--trials", "4", *given, folder=tmp_path).ended()
    assert ended.code == 2, str(ended)
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, str(ended)
    assert all(part in ended.err for part in expected), ended.err
    assert not list(tmp_path.glob("results/*/*")), "a search that never began left a study folder"


@pytest.fixture(scope="module")
def interrupted(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, set[Any]]:
    """A search that was ended by Ctrl-C, and where its processes listened before."""
    # So many epochs would be worth a compiler's minute, and nobody waits for their end.
    arguments = ("--trials", "12", "--epochs", "20000", "--compile", "off", *TINY)
    search = start("digits-100", *arguments, folder=tmp_path_factory.mktemp("interrupted"))
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
    arguments = ("--trials", "3", "--epochs", "20000", "--time-budget", "5", "--compile", "off", *ALONE)
    ended = start("digits-100", *arguments, folder=tmp_path).ended()
    assert ended.code == 0, str(ended)
    assert "The time budget is used up" in ended.out and "Trials: " in ended.out and ended.err == ""
    assert "RUNNING" not in _statuses(tmp_path / "results")
    assert "RUNNING" not in _optuna_states(ended.study)


OTHERS = (("fifo", "random"), ("pbt", "cma-es"))


@pytest.fixture(scope="module")
def neighbours(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two searches at the same time, in one root, of one study, perhaps begun in the same second."""
    root = tmp_path_factory.mktemp("neighbours")
    searches = []
    for scheduler, sampler in OTHERS:
        (root / scheduler).mkdir()
        arguments = ("--trials", "4", "--epochs", "30", "--scheduler", scheduler, "--sampler", sampler, *TINY)
        place = {"folder": root / scheduler, "new_store": True}
        searches.append(start("digits-100", *arguments, "--root", str(root / "results"), **place))
    return [search.ended() for search in searches]


@pytest.mark.parametrize("number", range(len(OTHERS)), ids=[" ".join(names) for names in OTHERS])
def test_other_schedulers_and_samplers(number: int, neighbours: list[Any]) -> None:
    ended = neighbours[number]
    assert ended.code == 0, str(ended)
    assert ended.err == "" and "note:" not in ended.out, str(ended)
    (study,) = [study for study in _studies(ended) if _settings(study)["scheduler"] == OTHERS[number][0]]
    assert _settings(study)["sampler"] == OTHERS[number][1]
    assert _states(study) == ["COMPLETE"] * 4


def test_two_searches_at_the_same_time_have_two_folders_and_one_store(neighbours: list[Any]) -> None:
    assert len(_studies(neighbours[0])) == 2
    assert _statuses(neighbours[0].folder.parent / "results") == ["FINISHED"] * 10


def _studies(ended: Any) -> list[Path]:
    return [path.parent for path in (ended.folder.parent / "results").glob("digits-100-*/study.json")]


def _settings(study: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((study / "study.json").read_text())["settings"]
    return settings


@pytest.fixture(scope="module")
def submitted(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One file in an otherwise empty home, a login shell, and arguments that nothing quotes: as ``ray submit`` does it.

    The home's name and its environment's have a space, the cache holds a damaged file, the temporary folder has too
    long a path for Ray's sockets, and one core is left.
    """
    home = tmp_path_factory.mktemp("submitted") / "a home"
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "digits.v1.arrow").write_bytes(b"ARROW1\0\0 and then nothing of use")
    shutil.copy(ROOT / "search.py", home / "search.py")
    (home / "venv").symlink_to(sys.prefix, target_is_directory=True)
    # A login shell sets PATH anew: the profile stands for the cluster's, which puts the environment's python first.
    (home / ".bash_profile").write_text('export PATH="$HOME/venv/bin:$PATH"\n')
    line = "python ~/search.py digits-100 --trials 2 --epochs 5 --set model.lambda_=1000,10,0.1,0.1,0.1,0.1,0.1"
    temporary = home / ("x" * 60)
    temporary.mkdir()
    one_core = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    return start(
        command=[*one_core, "bash", "--login", "-c", "-i", line], folder=home, HOME=str(home), TMPDIR=str(temporary),
        LADDER_SEARCH_CACHE=str(home / "cache"), new_store=True,
    ).ended()  # fmt: skip


def test_the_script_alone_runs_as_ray_submit_runs_it(submitted: Any) -> None:
    assert submitted.code == 0, str(submitted)
    assert "Study folder" in submitted.out
    assert _settings(submitted.study)["overrides"]["model"]["lambda_"][0] == 1000


def test_an_environment_in_a_folder_with_a_space(submitted: Any) -> None:
    """Ray writes its workers' interpreter into a shell command; unquoted, no trial would ever start."""
    assert " " in str(submitted.folder) and submitted.code == 0, str(submitted)
    assert set(_states(submitted.study)) == {"COMPLETE"}


def test_a_temporary_folder_with_a_long_path(submitted: Any) -> None:
    assert submitted.code == 0, str(submitted)
    assert f"TMPDIR names {submitted.folder / ('x' * 60)}, where Ray cannot keep its files" in submitted.out
    assert not list((submitted.folder / ("x" * 60)).glob("ray*")), "something of Ray stayed"


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
def test_the_cores_are_those_that_the_search_may_use(submitted: Any) -> None:
    description = json.loads((submitted.study / "study.json").read_text())
    assert description["provenance"]["host_cores"] == 1


def test_a_damaged_cache_is_healed(submitted: Any) -> None:
    assert submitted.code == 0, str(submitted)
    assert (submitted.folder / "cache" / "digits.v1.arrow").stat().st_size > 50_000


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
