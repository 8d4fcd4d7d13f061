"""What can be said of the Slurm script without running it; ``tests/e2e/test_slurm.py`` runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "clusters" / "slurm.sh"


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    found = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_no_other_jobs_ray_is_stopped_joined_or_let_in() -> None:
    commands = "\n".join(line.partition("# ")[0] for line in SCRIPT.read_text().splitlines())
    assert not re.search(r"ray stop|pkill|killall|0\.0\.0\.0|--address auto", commands)
    for needed in ("RAY_AUTH_MODE=token", "umask 077", "--block", "--dashboard-host=127.0.0.1", "RAY_TMPDIR="):
        assert needed in commands
