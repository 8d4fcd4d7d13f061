"""Facts about a repository made here, and about a machine where little can be found out."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ladder_search
from ladder_search import provenance
from ladder_search.provenance import as_tags, collect

GIT_FACTS = ("git_sha", "git_dirty", "git_diff_sha256", "git_diff", "git_untracked")

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a repository with one commit."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "--no-verify", "-m", "first")
    return package


@needs_git
def test_a_clean_repository(code: Path) -> None:
    facts = collect(code=code)
    assert facts["git_sha"] == git(code, "rev-parse", "HEAD").strip()
    assert (facts["git_dirty"], facts["git_diff"], facts["git_untracked"]) == (False, "", "")
    assert facts["git_diff_sha256"] == hashlib.sha256(b"").hexdigest()


@needs_git
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a repository to another user")
def test_a_repository_of_another_user_has_its_state(code: Path) -> None:
    """A checkout that a whole group uses."""
    sha = git(code, "rev-parse", "HEAD").strip()
    for path in (code.parent, *code.parent.rglob("*")):
        os.chown(path, 65534, 65534)
    facts = collect(code=code)
    assert (facts["git_sha"], facts["git_dirty"]) == (sha, False)


@needs_git
def test_a_variable_of_git_names_no_other_repository(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = git(code, "rev-parse", "HEAD").strip()
    for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_INDEX_FILE", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, "/nowhere")
    assert collect(code=code)["git_sha"] == sha


@needs_git
def test_a_change_anywhere_in_the_repository_is_told(code: Path) -> None:
    (code / "__init__.py").write_text("a = 2\n")
    (code.parent / "search.py").write_text("")
    facts = collect(code=code)
    assert facts["git_dirty"] is True and facts["git_untracked"] == "search.py"
    assert "-a = 1\n+a = 2\n" in str(facts["git_diff"])
    assert facts["git_diff_sha256"] == hashlib.sha256(str(facts["git_diff"]).encode()).hexdigest()


@needs_git
def test_a_long_diff_is_cut_and_its_digest_is_not(code: Path) -> None:
    digests = set()
    for last in "xy":
        (code / "__init__.py").write_text("b = 3\n" * 100_000 + last)
        facts = collect(code=code)
        assert len(str(facts["git_diff"]).encode()) == 200_000
        digests.add(facts["git_diff_sha256"])
    assert len(digests) == 2


@needs_git
def test_nothing_that_a_repository_configures_is_run(code: Path) -> None:
    here = code / "touched"
    for key in ("diff.external", "core.fsmonitor", "diff.python.textconv", "diff.python.command"):
        git(code, "config", key, f"touch {here}; true")
    (code.parent / ".gitattributes").write_text("*.py diff=python\n")
    (code / "__init__.py").write_text("a = 2\n")
    assert collect(code=code)["git_dirty"] is True and not here.exists()


@needs_git
def test_a_package_in_the_environment_of_another_repository_has_no_state(code: Path) -> None:
    installed = code.parent / ".venv" / "package"
    shutil.copytree(code, installed)
    assert [collect(code=installed)[key] for key in GIT_FACTS] == [None] * 5


def test_no_repository_no_git_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert [collect(code=tmp_path)[key] for key in GIT_FACTS] == [None] * 5
    assert [collect(code=tmp_path / "absent")[key] for key in GIT_FACTS] == [None] * 5
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [collect()[key] for key in GIT_FACTS] == [None] * 5


def test_versions_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGES", ("torch", "numpy", "no-such-package"))
    facts = collect(data_name="digits", data_digest="ab" * 32)
    assert facts["version_python"] == platform.python_version()
    assert facts["version_torch"] == torch.__version__ and facts["version_no-such-package"] is None
    assert (facts["data_name"], facts["data_digest"]) == ("digits", "ab" * 32)
    assert isinstance(facts["host_cores"], int) and facts["host_cores"] >= 1
    assert facts["host_memory_bytes"] is None or int(facts["host_memory_bytes"]) > 1 << 20
    json.dumps(facts, allow_nan=False)


def test_accelerators_are_counted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "Small GPU" if i else "Large GPU")
    assert collect()["host_accelerators"] == "1 x Large GPU, 2 x Small GPU"

    def broken(i: int) -> str:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch.cuda, "get_device_name", broken)
    assert collect()["host_accelerators"] is None


def test_no_framework_is_imported_for_its_version() -> None:
    code = (
        "import sys; from ladder_search.provenance import collect; facts = collect(); "
        "print([name for name in ('ray', 'optuna', 'mlflow', 'yaml', 'safetensors') if name in sys.modules])"
    )
    root = Path(ladder_search.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_command_is_told_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["search.py", "--tracking", "https://me:secret@mlflow.example/x", "a b"])
    assert collect()["command"] == "search.py --tracking https://mlflow.example/x 'a b'"


def test_tags_are_short_texts_of_what_is_known() -> None:
    facts = {
        "git_sha": "ab",
        "git_dirty": True,
        "git_diff": "long",
        "host_cores": 2,
        "data_name": None,
        "command": "x" * 900,
    }
    assert as_tags(facts) == {"git_sha": "ab", "git_dirty": "True", "host_cores": "2", "command": "x" * 500}
