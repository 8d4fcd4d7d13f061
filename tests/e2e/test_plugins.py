"""A family of one file, searched on real Ray, resumed, exported and trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, environment
from tests.plugin_files import write_plugin

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = [str(ROOT / "search.py")] if words[0] == "search" else ["-m", "ladder_search.cli", words[0]]
    command = [sys.executable, *program, *words[1:]]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, encoding="utf-8")


def trials(folder: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("trials/*.json"))]


def test_a_stranger_is_searched_resumed_exported_and_trained(tmp_path: Path) -> None:
    plugin, study = write_plugin(tmp_path), tmp_path / "results" / "mine"
    search = ("search", "plain-digits-100", "--name", "mine", "--epochs", "4")
    begun = run(tmp_path, *search, "--plugin", "my_family.py", "--trials", "2")
    assert begun.returncode == 0, begun.stderr
    assert "--plugin configs/mine/01-" in begun.stdout.replace("\n", " ")  # of the next command
    plugin.unlink()  # the study folder has a copy
    # In packs: hosts, and the thin processes of their trials, import the family from its text.
    resumed = run(tmp_path, "search", "--resume", "--name", "mine", "--trials", "4", "--slots", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert [trial["state"] for trial in trials(study)] == ["COMPLETE"] * 4
    assert {trial["settings"]["family"] for trial in trials(study)} == {"plain"}
    exported = run(tmp_path, "export", "mine")
    assert exported.returncode == 0, exported.stderr
    (bundle,) = (tmp_path / "configs").iterdir()
    refused = run(tmp_path, "train", str(bundle), "--seeds", "1", "--epochs", "1")
    assert refused.returncode == 2 and "which is not loaded; read" in refused.stderr and "\n" not in refused.stderr[:-1]
    trained = run(tmp_path, "train", str(bundle), "--seeds", "1", "--epochs", "1", "--plugin", f"{bundle}/plugin.py")
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in begun.stderr + resumed.stderr + exported.stderr + trained.stderr
    write_plugin(tmp_path, ("0.9)", "0.8)"))
    other = run(tmp_path, "search", "--resume", "--name", "mine", "--trials", "5", "--plugin", "my_family.py")
    assert other.returncode == 2 and "a resumed search keeps its plugins" in other.stderr


@pytest.mark.parametrize(
    ("text", "what"),
    [("raise ValueError('boom')", "raised ValueError: boom (line 1)"), ("x = 1", "registers none")],
)
def test_a_faulty_plugin_ends_the_command_before_ray_starts(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "bad.py").write_text(text, encoding="utf-8")
    for command in ("search", "train", "studies"):
        words = () if command == "studies" else ("digits-100",)
        done = run(tmp_path, command, *words, "--plugin", "bad.py")
        assert (done.returncode, done.stdout) == (2, "") and what in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
