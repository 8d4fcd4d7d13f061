"""``clusters/onprem.yaml`` on machines that Ray cannot tell from real ones: up, submit, job submit, fetch, down."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import ROOT, TINY
from tests.e2e.island import Island, why_not

LACKS = why_not()
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.skipif(bool(LACKS), reason=LACKS)]

HEAD, WORKER = "10.0.0.1", "10.0.0.2"
OPTIONS = ("--gpus-per-trial", "0")
STUDY = "/mnt/home/mine.yaml"
"""A study file, on the desk and on the head."""
# Through the tunnel of `ray dashboard`: what the jobs page answers to somebody without the token, then the job.
JOB = """
ray dashboard "$0" &
until exec 3<> /dev/tcp/127.0.0.1/8265; do sleep 0.2; done 2> /dev/null
printf 'GET /api/jobs/ HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3
"$@"
"""


@dataclass(frozen=True, kw_only=True)
class Life:
    """Of a cluster, from ``ray up`` to ``ray down``: what was printed, and what is left on the machines."""

    island: Island
    unseen: str
    submitted: str
    refused: str
    job: str


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, bystander: Any) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("island")
    profile = yaml.safe_load((ROOT / "clusters" / "onprem.yaml").read_text())
    # The shipped file but for three lines: a worker less, no trials on the head, so that the worker gets them all, and
    # this test's environment in place of an installation of some minutes.
    profile["provider"]["worker_ips"].remove("10.0.0.3")
    profile["head_start_ray_commands"][-1] += " --num-cpus=0"
    # The autoscaler looks after its nodes every second instead of every five.
    variables = f'PATH="{Path(sys.prefix) / "bin"}:$PATH" PYTHONPATH="$HOME/ladder-search"'
    variables += " AUTOSCALER_UPDATE_INTERVAL_S=1"
    profile["setup_commands"] = [f"grep -q PYTHONPATH ~/.bashrc || echo 'export {variables}' >> ~/.bashrc"]
    path = str(folder / "onprem.yaml")
    Path(path).write_text(yaml.safe_dump(profile, width=1000))
    submit = ("ray", "submit", path, "search.py", "mine.yaml", *OPTIONS)
    job = ("ray", "job", "submit", "--working-dir", ".", "--", "python", "search.py", STUDY, *OPTIONS)
    auth = profile["auth"]
    with Island(folder, user=auth["ssh_user"], key=auth["ssh_private_key"], nodes=[HEAD, WORKER]).running() as island:
        (island.desk / "mine.yaml").write_text("based_on: digits-100\n")
        island.run("ray", "up", "-y", path)
        unseen = island.run(*submit, code=1)
        island.run("ray", "rsync-up", path, STUDY, STUDY)
        submitted = island.run(*submit, "--trials", "4", "--epochs", "10", "--name", "submitted")
        refused = island.run(*submit, "--trials", "2", "--storage", "only-here", "--name", "refused", code=1)
        jobs = island.run("bash", "-c", JOB, path, *job, "--trials", "2", "--epochs", "5", "--name", "job", *TINY)
        island.run("ray", "rsync-down", path, "~/results/", "/mnt/home/results/")
        island.run("bash", "-c", f": < /dev/tcp/{HEAD}/6379")
        island.run("bash", "-c", f": < /dev/tcp/{HEAD}/8265", code=1)  # the dashboard: through ssh only
        island.run("ray", "down", "-y", path)
        island.run("bash", "-c", f": < /dev/tcp/{HEAD}/6379", code=1)
        yield Life(island=island, unseen=unseen, submitted=submitted, refused=refused, job=jobs)


def test_a_submitted_search_runs_on_the_worker_and_its_results_come_back(life: Life) -> None:
    assert "Trials: 4 ended, 4 complete" in life.submitted
    results = life.island.desk / "results"
    assert len(list((results / "submitted" / "trials").glob("*.json"))) == 4
    with sqlite3.connect(results / "mlflow.db") as store:
        assert set(store.execute("select value from tags where key = 'host'")) == {("node-2",)}
    assert len(list((life.island.shared / "ladder-search" / "submitted").glob("t000*/checkpoint_*"))) == 4


def test_a_study_file_is_read_on_the_head(life: Life) -> None:
    assert "a study file must be a readable file in UTF-8 on the machine that runs the search, mine.yaml" in life.unseen
    for name in ("submitted", "job"):
        settings = json.loads((life.island.desk / "results" / name / "study.json").read_text())["settings"]
        assert settings["study"] == settings["definition"]["name"] == "mine"


def test_a_folder_that_another_node_does_not_see_is_refused_before_any_trial(life: Life) -> None:
    (line,) = [line for line in life.refused.splitlines() if line.startswith("error: ")]
    home = life.island.home(HEAD)
    assert "/mnt/home is not seen from node-2; name a folder that all nodes share" in line
    assert not (home / "only-here").exists() and not (home / "results" / "refused").exists()


def test_a_job_keeps_its_results_and_ships_the_code_alone(life: Life) -> None:
    assert "Trials: 2 ended, 2 complete" in life.job
    results = life.island.desk / "results" / "job"
    assert len(list((results / "trials").glob("*.json"))) == 2
    (shipped,) = life.island.tmp(HEAD).glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    names = {path.name for path in shipped.iterdir()}
    assert {"search.py", "ladder_search", "spaces", "trainables"} <= names
    assert names.isdisjoint({".git", ".venv", "results", "configs", ".mypy_cache"})


def test_nobody_gets_in_without_the_token(life: Life) -> None:
    assert "HTTP/1.0 401 Unauthorized" in life.job


def test_no_other_ray_of_this_machine_was_touched(life: Life, bystander: Any) -> None:
    assert bystander.poll() is None
