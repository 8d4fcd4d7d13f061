"""A pytest plugin: the home, cache, temporary folder and environment of a test run are its own, and it is watched.

The first process of a run makes one short folder for all of it and removes it at the end; worker processes and the
commands that tests start inherit what it sets. Programs that a test compiles lie in the run's cache, where every
process of the run finds them. A run that changes the user's home or cache, or leaves an entry in the real temporary
folder, fails (where ``CI`` is set; elsewhere other programs write there at the same time, and it is only printed).

``LADDER_SEARCH_DATA`` is the one setting of the user's that stays: it is what real data are read from. Tests that need
data which are not there skip with a reason; no test fetches them.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.durations import LONGEST, SLOW

HERE = Path(__file__).parent
RUN = "LADDER_SEARCH_TEST_RUN"
"""Variable with the run's folder."""
ORDER = "LADDER_SEARCH_TEST_ORDER"
"""Variable with the seed of the order of the unit tests; given by hand it repeats an order."""
_KEPT = (ORDER, "LADDER_SEARCH_DATA", "LADDER_SEARCH_FUZZ", "LADDER_SEARCH_FUZZ_CASE", RUN)
_USERS = ("LADDER_SEARCH_", "MLFLOW_", "OPTUNA_", "RAY_", "TORCHINDUCTOR_", "TORCH_", "TRITON_", "TUNE_", "XDG_", "LC_")
"""What programs are told by variables with these beginnings is the user's business, and no test's."""
_USERS_TOO = {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "LANG", "LANGUAGE", "MPLCONFIGDIR"}
_USERS_TOO |= {"PYTHONDONTWRITEBYTECODE"}  # each command of a test would compile the project's modules again
_LONGEST = 12
"""Letters of a temporary folder in which Ray's sockets fit below ours."""

State = dict[str, tuple[int, int]]


def own_variables(environment: Mapping[str, str], run: Path) -> dict[str, str]:
    """Return the environment of a test run whose folder is ``run``."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not (name.startswith(_USERS) or name in _USERS_TOO)
    }
    # How packages are fetched belongs to the machine; pip reads it from the home folder.
    settings = Path(environment.get("HOME", "/"), ".config", "pip", "pip.conf")
    pip = {"PIP_CONFIG_FILE": str(settings)} if settings.is_file() and "PIP_CONFIG_FILE" not in kept else {}
    return {
        **kept,
        **pip,
        RUN: str(run),
        ORDER: environment.get(ORDER) or str(random.SystemRandom().randrange(10**6)),
        "HOME": str(run / "home"),
        "TMPDIR": str(run / "tmp"),
        "LADDER_SEARCH_CACHE": str(run / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(run / "cache" / "programs"),
        "LC_ALL": "C.UTF-8",
        # One thread, so that several test processes share a machine; read by torch when it is first imported.
        "OMP_NUM_THREADS": "1",
    }


class Watch:
    """What lies in the user's folders before a run, to be compared with what lies there afterwards."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._home = Path(environment.get("HOME", "/nonexistent"))
        self._cache = Path(environment.get("LADDER_SEARCH_CACHE") or self._home / ".cache" / "ladder-search")
        self._temporary = {Path(environment.get("TMPDIR") or "/tmp"), Path("/tmp")}
        self._before = self._state()

    def changes(self, *, but: Iterable[Path] = ()) -> list[str]:
        """Return what is new or changed, ``but`` for these entries."""
        apart = {str(path) for path in but}
        after = self._state()
        return sorted(name for name, found in after.items() if self._before.get(name) != found and name not in apart)

    def _state(self) -> State:
        state: State = {}
        # Entries by name alone: others write into what is there already.
        for folder in (*self._temporary, self._home, self._home / ".cache", self._home / ".config"):
            state |= {str(path): (0, 0) for path in _entries(folder)}
        for folder, _, files in os.walk(self._cache):
            for name in files:
                path = Path(folder, name)
                try:
                    found = path.stat()
                except OSError:
                    continue
                state[str(path)] = (found.st_mtime_ns, found.st_size)
        return state


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def begin() -> None:
    """Give this process, and what it starts, the surroundings of a test run; the first one begins the run."""
    global _watch
    if RUN in os.environ:  # a worker, or a pytest that a test has started
        tempfile.tempdir = None
        return
    users, folder = dict(os.environ), tempfile.gettempdir()
    _watch = Watch(users)
    run = Path(tempfile.mkdtemp(prefix="ls-", dir=folder if len(folder) <= _LONGEST else "/tmp"))
    run.chmod(0o711)  # a server that a test starts may run as another user
    for name in ("home", "tmp", "cache"):
        (run / name).mkdir()
    os.environ.clear()
    os.environ.update(own_variables(users, run))
    sys.dont_write_bytecode = False
    os.umask(0o022)
    tempfile.tempdir = None


_watch: Watch | None = None
begin()


_names = frozenset(os.environ)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect tests without collecting garbage: the modules and tests, a million objects, stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_finish() -> None:
    """Remove what imports of benchmarks have put into the environment, which the commands of tests would inherit."""
    for name in [name for name in os.environ if name not in _names and name.startswith(_USERS)]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Remove what a library has set in the process of the tests, which later tests would report as the user's."""
    before = frozenset(os.environ)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before and name.lstrip("_").startswith(_USERS)]:
            del os.environ[name]


def pytest_report_header() -> str:
    return f"unit tests in random order, {ORDER}={os.environ[ORDER]}; the run's own folder is {os.environ[RUN]}"


def shuffled(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """Return tests in another order: files, and tests within a file, which share fixtures."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    order = random.Random(seed)
    groups = [files[path] for path in sorted(files)]
    order.shuffle(groups)
    return [item for group in groups for item in order.sample(group, len(group))]


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return tests file by file, those of ``LONGEST`` first: else one process would begin a long file at the end."""
    place = {name: number for number, name in enumerate(LONGEST)}
    return sorted(items, key=lambda item: place.get(item.path.relative_to(HERE).as_posix(), len(LONGEST)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [place for place, item in enumerate(items) if "unit" in item.path.relative_to(HERE).parts]
    order = int(os.environ[ORDER])
    for place, item in zip(places, shuffled([items[place] for place in places], order), strict=True):
        items[place] = item
    items[:] = longest_first(items)
    for item in items:
        if getattr(item, "originalname", item.name) in SLOW:
            item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _watch is None:
        return
    left = _watch.changes(but=[Path(os.environ[RUN])])
    if left and os.environ.get("CI"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    session.config.stash[_LEFT] = left


_LEFT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    left = config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("in folders of the user's there is now")
        terminalreporter.write_line("\n".join(left[:100]))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _watch is not None:
        shutil.rmtree(os.environ[RUN], ignore_errors=True)
