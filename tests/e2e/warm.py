"""Commands as forks of a process that has imported everything: a search costs what it does, not what it imports.

``python -m tests.e2e.warm`` reads commands from its standard input, a JSON line each, and starts each in a process, a
session, a folder and an environment of its own. Only the imports are shared: the command's ``main``, Ray with all its
processes, and the tracking writer are those of a user. The writer's process is forked before Ray starts its threads.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WRITER = "ladder_search.tracking.writer"
LIBRARIES = (
    "matplotlib.pyplot",
    "mlflow.pytorch",
    "mlflow.store.tracking.dbmodels.models",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "pyarrow",
    "ray.tune",
    "scipy.stats",
    "sklearn.datasets",
    "sqlalchemy.orm",
    "torch._dynamo",
    "torch._inductor",
    "torch.export",
)
CHANGES = "WARM_CHANGES"
"""Variable with a JSON mapping of a module's constants to the values that they have in a command: ``{"a.b.C": 5}``."""


class WarmProcess:
    """A command of the server, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, answer: Path, arguments: Sequence[str]) -> None:
        self.args, self.returncode = list(arguments), None  # type: int | None
        self._code = answer.with_suffix(".code")
        begun = answer.with_suffix(".pid")
        end = time.monotonic() + 30.0
        while not begun.exists():
            assert time.monotonic() < end, "the warm server does not answer"
            time.sleep(0.005)
        self.pid = int(begun.read_text())

    def poll(self) -> int | None:
        if self.returncode is None and self._code.exists():
            self.returncode = int(self._code.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmServer:
    """A server for one test process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.warm"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C of a test run is not for it; it ends with its standard input
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the warm server did not start"

    def start(
        self, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], out: Path, err: Path | None = None
    ) -> WarmProcess:
        """Start a command: the path of a script or ``-m`` and a module, then its arguments. Output is appended."""
        assert self._process.stdin is not None
        self._count += 1
        answer = self._folder / str(self._count)
        request = {
            "arguments": list(arguments), "folder": str(folder), "env": dict(env), "out": str(out),
            "err": str(err or out), "answer": str(answer),
        }  # fmt: skip
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return WarmProcess(answer, arguments)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(30)


def import_everything() -> None:
    """Import all modules of the project and slow ones of its libraries, and do once what each does at its first use."""
    from ladder_search import environment

    with environment.ours():
        import ladder_search
        import spaces
        import trainables

        for name in LIBRARIES:
            importlib.import_module(name)
        for package in (ladder_search, spaces, trainables):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)
    sys.modules["torch"].set_num_threads(1)
    sys.modules["sqlalchemy.orm"].configure_mappers()
    sys.modules["matplotlib.pyplot"].figure().savefig(io.BytesIO())
    sys.modules["matplotlib.pyplot"].close("all")


def _reset(request: Mapping[str, Any]) -> None:
    """Make this process look like a new one."""
    for number in (signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    out, err = (os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for name in ("out", "err"))
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    os.closerange(3, 1 << 16)
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    os.chdir(request["folder"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115 - open until the process ends
        text = io.TextIOWrapper(
            raw, encoding="utf-8", errors="backslashreplace" if number == 2 else "strict", line_buffering=number == 2
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _ends(main: Callable[[], Any]) -> None:
    """Call ``main`` and end this process as an interpreter ends, its ``atexit`` functions included."""
    import atexit
    import threading

    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        code = 1
        traceback.print_exc()
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _run_module(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* found in sys.modules after import of package")
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def _call(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        _run_module(arguments[1])
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


class _Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Starts the tracking writer in the process that waits for it; everything else as it is."""

    _spare: tuple[int, socket.socket] | None = None

    @classmethod
    def prepare(cls) -> None:
        """Fork the process that may become the writer; it ends with this one."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            cls._spare = pid, ours
            return
        ours.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when the command does
        message, descriptors, _, _ = socket.recv_fds(theirs, 1 << 20, 2)
        if not message:
            os._exit(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        request = json.loads(message)
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        for source, target in ((descriptors[0], 0), (null, 1), (descriptors[1], 2)):
            os.dup2(source, target)
        os.closerange(3, 1 << 16)
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = [WRITER, *request["arguments"]]
        _ends(lambda: _run_module(WRITER))

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any,
                       env: Any, startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int,
                       c2pread: int, c2pwrite: int, errread: int, errwrite: int, *more: Any) -> None:  # fmt: skip
        spare = _Popen._spare
        if spare is None or not isinstance(args, list) or WRITER not in args:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, p2cread,
                p2cwrite, c2pread, c2pwrite, errread, errwrite, *more)  # fmt: skip
            return
        _Popen._spare = None
        self.pid, line = spare
        message = {"env": dict(env), "arguments": args[args.index(WRITER) + 1 :]}
        socket.send_fds(line, [json.dumps(message).encode()], [p2cread, errwrite])
        line.close()
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def _serve(request: dict[str, Any]) -> None:
    """Start the command and leave its process id and its exit code in files."""
    answer = Path(request["answer"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        try:
            _reset(request)
            for name, value in json.loads(os.environ.pop(CHANGES, "{}")).items():
                module, _, constant = name.rpartition(".")
                assert hasattr(importlib.import_module(module), constant)
                setattr(importlib.import_module(module), constant, value)
            _Popen.prepare()
            subprocess.Popen = _Popen  # type: ignore[misc]
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        _ends(lambda: _call(request["arguments"]))
    for suffix, value in ((".pid", lambda: pid), (".code", lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))):
        text = str(value())
        draft = answer.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(answer.with_suffix(suffix))
    os._exit(0)


def main() -> None:
    import_everything()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            _serve(json.loads(line))


if __name__ == "__main__":
    main()
