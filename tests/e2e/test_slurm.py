"""``clusters/slurm.sh`` run by a Slurm of one node: ``srun`` and ``scontrol`` are stand-ins, all else is real."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ALONE, ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

JOB = f"4711{os.getpid()}"
"""Number of the job: it names a folder in the real temporary folder."""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then echo "$3"; else echo "scontrol $*"; fi
"""
# Of a Ray that does nothing but listen, and a search that goes on until it is told to stop, and ends when resumed.
RAY = """#!/bin/bash
for one in "$@"; do case $one in --port=*) exec {python} -m http.server "${{one#*=}}" ;; esac; done
"""
PYTHON = """#!/bin/bash
if [ "$1" != search.py ]; then exec {python} "$@"; fi
mkdir -p results/slurm-$SLURM_JOB_ID && touch results/slurm-$SLURM_JOB_ID/study.json
echo "searching: $*"
if [ "$2" = --resume ]; then exit 0; fi
trap 'exit 1' TERM
while :; do sleep 0.1; done
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The variables of a job of one node, whose submit folder sees ``search.py``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    put(programs / "srun", SRUN)
    put(programs / "scontrol", SCONTROL)
    (tmp_path / "search.py").symlink_to(ROOT / "search.py")
    return {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NODELIST": "here",
        "SLURM_CPUS_PER_TASK": "1",
    }


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_job_brings_ray_up_searches_and_leaves_nothing_but_results(
    job: dict[str, str], bystander: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = ("digits-100", "--trials", "2", "--epochs", "5", "--gpus-per-trial", "0", *ALONE)
    ended = start(*arguments, folder=tmp_path, command=["bash", str(ROOT / "clusters" / "slurm.sh")], **job).ended()

    assert ended.code == 0, str(ended)
    assert "Trials: 2 ended, 2 complete" in ended.out
    assert ended.study.name == f"slurm-{JOB}"
    assert ended.left == []
    assert bystander.poll() is None
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {"mlartifacts", "mlflow.db", f"slurm-{JOB}"}
    assert not Path(f"/tmp/ladder-search-{JOB}").exists()


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_job_whose_time_is_over_queues_itself_again_and_then_goes_on(
    number: signal.Signals, requeued: bool, job: dict[str, str], start: Callable[..., Any], tmp_path: Path
) -> None:
    venv = tmp_path / ".venv" / "bin"
    venv.mkdir(parents=True)
    put(venv / "ray", RAY.format(python=sys.executable))
    put(venv / "python", PYTHON.format(python=sys.executable))
    command = ["bash", str(ROOT / "clusters" / "slurm.sh")]

    arguments = ("digits-100", "--trials", "9", "--tracking", "http://me:a b@host")
    first = start(*arguments, folder=tmp_path, command=command, **job)
    first.wait_for("searching: search.py digits-100 --trials 9 --tracking http://me:a b@host\n")
    first.process.send_signal(number)
    ended = first.ended()
    assert ended.code == 1 and ended.left == [], str(ended)
    assert (f"scontrol requeue {JOB}" in ended.out) is requeued

    again = start(*arguments, folder=tmp_path, command=command, **job).ended()
    assert again.code == 0, str(again)
    assert "searching: search.py --resume --tracking http://me:a b@host\n" in again.out  # its password is in no record
    assert "requeue" not in again.out
