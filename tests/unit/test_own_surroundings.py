"""A test run has its own home, cache, temporary folder and environment, and what it leaves in the user's is noticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder_search.data.cache import cache_folder
from tests import surroundings
from tests.durations import LONGEST, SLOW
from tests.surroundings import ORDER, RUN, Watch, longest_first, own_variables, shuffled

SEEN = (
    "import os, tempfile; from pathlib import Path; from ladder_search.data.cache import cache_folder;"
    "print(Path.home(), cache_folder(), tempfile.gettempdir(), sep='\\n')"
)


def test_home_cache_and_temporary_folder_are_the_runs_own_here_and_in_commands() -> None:
    run = Path(os.environ[RUN])
    here = [Path.home(), cache_folder(), Path(tempfile.gettempdir())]
    assert here == [run / "home", run / "cache", run / "tmp"]
    found = subprocess.run([sys.executable, "-c", SEEN], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(path) for path in here]


def test_no_setting_of_the_users_reaches_a_test_but_the_folder_of_data(tmp_path: Path) -> None:
    users = {
        "PATH": "/usr/bin",
        "HOME": "/home/someone",
        "TMPDIR": "/scratch",
        "LADDER_SEARCH_CACHE": "/home/someone/cache",
        "LADDER_SEARCH_OPTIONS": "--trials 3",
        "LADDER_SEARCH_DATA": "/data",
        "XDG_CACHE_HOME": "/home/someone/xdg",
        "MLFLOW_TRACKING_URI": "http://server",
        "RAY_ADDRESS": "10.0.0.1:6379",
        "TORCHINDUCTOR_CACHE_DIR": "/home/someone/programs",
        "FORCE_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "de_DE",
        ORDER: "7",
    }
    assert own_variables(users, tmp_path) == {
        "PATH": "/usr/bin",
        "LADDER_SEARCH_DATA": "/data",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "LADDER_SEARCH_CACHE": str(tmp_path / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache" / "programs"),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        RUN: str(tmp_path),
        ORDER: "7",
    }


@pytest.fixture
def users(tmp_path: Path) -> dict[str, str]:
    for name in ("home/.cache/ladder-search", "home/.config", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/.cache/ladder-search/digits.arrow").write_bytes(b"digits")
    return {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}


@pytest.mark.parametrize(
    "left",
    [
        "tmp/aotinductor_D0Qw0d",
        "home/.mlflow",
        "home/.cache/matplotlib",
        "home/.config/ray",
        "home/.cache/ladder-search/programs/program-1/program.so",
        "home/.cache/ladder-search/digits.arrow",
    ],
)
def test_what_is_new_or_changed_in_the_users_folders_is_noticed(
    tmp_path: Path, users: dict[str, str], left: str
) -> None:
    watch = Watch(users)

    def own() -> list[str]:
        """Without the real temporary folder, which is watched too and where others write meanwhile."""
        return [name for name in watch.changes(but=[tmp_path / "tmp" / "ls-run"]) if name.startswith(str(tmp_path))]

    (tmp_path / "tmp" / "ls-run").mkdir()
    assert own() == []
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_bytes(b"something else")
    assert own() == [str(tmp_path / left)]


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_leaves_something_fails_where_nobody_else_writes(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    monkeypatch.setenv("CI", "true") if alone else monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(surroundings, "_watch", SimpleNamespace(changes=lambda but: ["/tmp/left"]))
    session: Any = SimpleNamespace(exitstatus=0, config=SimpleNamespace(stash={}))
    surroundings.pytest_sessionfinish(session, 0)
    assert session.exitstatus == (1 if alone else 0)
    monkeypatch.setattr(surroundings, "_watch", SimpleNamespace(changes=lambda but: []))
    session.exitstatus = 0
    surroundings.pytest_sessionfinish(session, 0)
    assert session.exitstatus == 0


def test_files_and_their_tests_come_in_an_order_that_a_seed_gives() -> None:
    items: list[Any] = [SimpleNamespace(path=Path(file), name=f"{file}{n}") for file in "abcdef" for n in range(6)]
    first, again, other = (shuffled(items, seed) for seed in (1, 1, 2))
    assert first == again != other and sorted(item.name for item in other) == sorted(item.name for item in items)
    assert [item.name for item in first] != sorted(item.name for item in first)
    files = [item.path for item in other]
    assert [file for place, file in enumerate(files) if files[place - 1] != file or not place] == list(
        dict.fromkeys(files)
    ), "a file's tests stay together, because they share fixtures"


def test_the_long_files_and_the_slow_tests_are_there() -> None:
    tests = Path(surroundings.__file__).parent
    assert [name for name in LONGEST if not (tests / name).is_file()] == []
    names = {name for path in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    assert SLOW - names == set()


def test_long_files_come_first_and_the_rest_stays_in_its_order() -> None:
    tests = Path(surroundings.__file__).parent
    items = [SimpleNamespace(path=tests / name) for name in ("unit/b.py", LONGEST[1], "unit/a.py", LONGEST[0])]
    ordered = longest_first(items)  # type: ignore[arg-type]
    assert [item.path for item in ordered] == [items[number].path for number in (3, 1, 0, 2)]
