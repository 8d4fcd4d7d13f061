"""Searches as a user starts them: ``search.py`` in a process and a folder of its own, on real Ray and MLflow."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import Life
from ladder_search.tracking.address import default_store
from ladder_search.tracking.mlflow_store import open_store
from tests.e2e.warm import WarmProcess, WarmServer

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240.0
"""Seconds that a search may take on a busy machine; on two free cores each takes about ten."""


TINY = (
    "--set", "model.widths=64,20,10", "--set", "model.lambda_=1000,10,0.1", "--set", "model.noise_std=0.3,0.3,0.3",
    "--set", "stop.first_rung_steps=50",
)  # fmt: skip
"""A network of one hidden layer: a trial of 20 epochs takes about half a second."""
ALONE = (*TINY, "--max-concurrent", "1")
"""One trial after the other: one more process takes longer to start than a trial takes."""


def environment(**more: str) -> dict[str, str]:
    """That of a user: this checkout on the path, one thread per process, no options of a cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LADDER_SEARCH_OPTIONS"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120", **more}


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str
    folder: Path
    """Where it ran."""
    left: list[str]
    """Command lines of processes of its session that outlived it."""

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"

    @property
    def study(self) -> Path:
        """The one study folder in ``results``."""
        (found,) = (path.parent for path in (self.folder / "results").glob("*/study.json"))
        return found


class Running:
    """A command that runs, in a session of its own, so that its descendants can be told from all other processes."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str], server: WarmServer | None = None) -> None:
        self.folder = folder
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        self.process: subprocess.Popen[bytes] | WarmProcess
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if server:
                self.process = server.start(command, folder=folder, env=env, out=self._out, err=self._err)
                return
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def out(self) -> str:
        return self._out.read_text(errors="replace")

    def wait_for(self, text: str, limit: float = LIMIT) -> None:
        """Wait until ``text`` was printed."""
        end = time.monotonic() + limit
        while text not in self.out():
            assert self.process.poll() is None, f"it ended early:\n{self.out()}\n{self._err.read_text()}"
            assert time.monotonic() < end, f"{text!r} did not come:\n{self.out()}"
            time.sleep(0.2)

    def ended(self, limit: float = LIMIT) -> Ended:
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        end = time.monotonic() + 10
        while (left := self._descendants()) and time.monotonic() < end:
            time.sleep(0.2)  # Ray's own processes see the end of their driver and follow it
        return Ended(code, self.out(), self._err.read_text(errors="replace"), self.folder, left)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def listening(self) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """Addresses at which processes of its session listen."""
        sockets = set[str]()
        for process in self._processes():
            with suppress(OSError):
                sockets |= {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
        lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
        found = [line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
        # Words of four bytes, each in the order of this machine.
        words = [[int(address[at : at + 8], 16) for at in range(0, len(address), 8)] for address in found]
        addresses = {ipaddress.ip_address(struct.pack(f"={len(each)}I", *each)) for each in words}
        return {getattr(address, "ipv4_mapped", None) or address for address in addresses}

    def _processes(self) -> Iterator[Path]:
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                # The fields after the name, which is in brackets: state, parent, group, session. A zombie has ended.
                state, _, _, session, *_ = (place / "stat").read_text().rpartition(")")[2].split()
                if int(session) == self.process.pid and state != "Z":
                    yield place

    def _descendants(self) -> list[str]:
        found = []
        for place in self._processes():
            with suppress(OSError):
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found


Start = Callable[..., Running]
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store. MLflow takes two seconds of CPU to make one, as long as a tiny search trains."""
    root = tmp_path_factory.mktemp("tables")
    open_store(default_store(root), "unused", root / "a" / "spool", "")
    return root / "mlflow.db"


def put_store(tables: Path, folder: Path) -> None:
    """Let the results of a folder have a store, unless there are results already."""
    if not (folder / "results").exists():
        (folder / "results").mkdir()
        shutil.copy(tables, folder / "results" / "mlflow.db")


@pytest.fixture
def stocked(tables: Path, warm: WarmServer, tmp_path: Path) -> Path:
    """A folder whose results have a store."""
    put_store(tables, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmServer]:
    """The process that commands are forked from; the lives of searches are, too."""
    server = WarmServer(tmp_path_factory.mktemp("warm"))
    fresh = Life.begin
    Life.begin = staticmethod(lambda command, folder, env, log: server.start(command, folder=folder, env=env, out=log))
    yield server
    Life.begin = staticmethod(fresh)
    server.close()


@pytest.fixture(scope="session")
def start(tables: Path, warm: WarmServer) -> Iterator[Start]:
    """Start ``search.py`` with arguments in a folder; whatever still runs in the end is killed.

    Its store is there already, unless the search is to make it: ``new_store``. It is forked from the warm process,
    unless an interpreter of its own is what matters: a ``fresh`` one, a ``command``, variables of the environment.
    """
    running: list[Running] = []

    def begin(
        *arguments: str,
        folder: Path,
        command: list[str] | None = None,
        new_store: bool = False,
        fresh: bool = False,
        **env: str,
    ) -> Running:
        if not new_store:
            put_store(tables, folder)
        alone = fresh or command or env
        script = command or [*([sys.executable] if alone else []), str(ROOT / "search.py")]
        running.append(Running([*script, *arguments], folder, environment(**env), None if alone else warm))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.kill()


@pytest.fixture(scope="session")
def finished(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One whole search: six trials of a tiny study, one of which a rung may stop."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ("--trials", "6", "--epochs", "20", "--name", "first", *TINY)
    ended = start("digits-100", *arguments, folder=folder, new_store=True, fresh=True).ended()
    assert ended.code == 0, str(ended)
    return ended


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ``ray stop`` would take for Ray's and end."""
    program = tmp_path_factory.mktemp("bystander") / "raylet"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "600"]) as process:
        yield process
        process.kill()


@pytest.fixture(scope="session")
def command(warm: WarmServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Run ``ladder-search`` with arguments in a folder to its end, as a fork of the warm process."""

    def run(*arguments: str, folder: Path) -> Done:
        streams = tmp_path_factory.mktemp("command")
        line, out, err = ["-m", "ladder_search.cli", *arguments], streams / "out", streams / "err"
        process = warm.start(line, folder=folder, env=environment(COLUMNS="200"), out=out, err=err)
        try:
            code = process.wait(LIMIT)
        finally:
            process.kill()
        return subprocess.CompletedProcess(line, code, out.read_text(), err.read_text())

    return run
