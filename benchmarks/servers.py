"""Servers that a benchmark or a test starts on loopback: MLflow's, and PostgreSQL as its store. Each has its own folder
and port; leaving the ``with`` block ends it and everything it started."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ladder_search.errors import TrackingError
from ladder_search.tracking.address import check, ui_command, ui_environment

START_S = 90.0
"""Longest wait for a server on a busy machine; on two free cores MLflow's takes five seconds, PostgreSQL's one."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class MlflowServer:
    """``mlflow server`` on a store, with one worker.

    ``start()`` returns once it answers at ``address``. ``pause()`` makes it accept connections without answering, like
    a server that hangs; after ``resume()`` it answers pending requests first. ``kill()`` ends it at once; ``start()``
    then reuses the address.
    """

    def __init__(self, store: str, folder: Path, *options: str) -> None:
        """Args: ``options`` of ``mlflow server`` in addition to those of ``ladder-search ui``."""
        self.options = options
        self.store, self.folder, self.port = store, folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*ui_command(self.store, port=self.port), *self.options],
                env={**os.environ, **ui_environment(self.store)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()  # `check` starts an interpreter
                return check(self.address)
            except (OSError, TrackingError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text(encoding='utf-8')}") from None
                time.sleep(0.05)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@contextmanager
def mlflow_server(store: str, folder: Path, *options: str) -> Iterator[MlflowServer]:
    server = MlflowServer(store, folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def postgres_programs() -> Path | None:
    """Return the folder of ``initdb`` and ``pg_ctl``, which Debian keeps off the path; None if they are missing."""
    program = shutil.which("initdb")
    places = [Path(program).resolve()] if program else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@contextmanager
def postgres() -> Iterator[str]:
    """Run a new PostgreSQL with default settings; yield the address of its empty database, including the password. Root
    starts it as the user ``postgres`` of Debian's package, because PostgreSQL refuses to run as root."""
    programs = postgres_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed (Debian: apt install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None
    port, password = free_port(), secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="ladder-search-postgres-") as name:
        folder, word = Path(name), Path(name) / "password"
        word.write_text(password, encoding="utf-8")
        if user is not None:
            for path in (folder, word):
                shutil.chown(path, user)

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", str(folder / "data"), *arguments]
            with (folder / "programs.log").open("ab") as log:
                process = subprocess.run(command, user=user, cwd="/", stdout=log, stderr=log, check=False)
            if process.returncode:
                raise RuntimeError(f"{program} failed:\n{(folder / 'programs.log').read_text(encoding='utf-8')}")

        run("initdb", "-U", "mlflow", f"--pwfile={word}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
        options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        run("pg_ctl", "-o", options, "-l", str(folder / "data" / "server.log"), "--wait", "start")
        try:
            yield f"postgresql://mlflow:{password}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--mode=immediate", "stop")
