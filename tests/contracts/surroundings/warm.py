"""Commands as children of a process that has imported everything: a case costs what it does, not what it imports.

``python -m tests.contracts.surroundings.warm`` reads cases from its standard input, a JSON line each, and starts each
at once in a process of its own; that process starts every command of the case in a process of its own again, puts it
into its surroundings and calls its ``main``. The answer of a case is a file.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.contracts.surroundings.catalogue import REFUSALS, SURROUNDINGS
from tests.contracts.surroundings.one_process import replace_ray
from tests.contracts.surroundings.place import Place, modes, records
from tests.e2e.warm import import_everything

LIMIT = 100.0
"""Seconds that a command may take, on a machine that is busy with others."""
_REAPER = 36  # PR_SET_CHILD_SUBREAPER: who outlives a command is found by its case


def warm() -> None:
    """Import everything, replace Ray, and leave out four of five pictures, which cost seconds."""
    import_everything()
    replace_ray()
    pictures: Any = sys.modules["ladder_search.pictures"]
    pictures._PICTURES = {"learning curves": pictures._PICTURES["learning curves"]}
    tracker: Any = sys.modules["ladder_search.tracking.spool_tracker"]
    tracker.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": _WarmWriter})


class _WarmWriter(subprocess.Popen):  # type: ignore[type-arg]
    """Starts the writer as a fork of this process, which has MLflow; everything else as it is."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any,
                       env: Any, startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int,
                       c2pread: int, c2pwrite: int, errread: int, errwrite: int, *more: Any) -> None:  # fmt: skip
        writer = "ladder_search.tracking.writer"
        if isinstance(args, str) or writer not in args:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, p2cread,
                p2cwrite, c2pread, c2pwrite, errread, errwrite, *more)  # fmt: skip
            return
        sys.stdout.flush() if sys.stdout else None
        self.pid = os.fork()
        if self.pid:
            self._child_created = True
            for end in (p2cread, c2pwrite, errwrite):
                if end > 2:
                    os.close(end)
            return
        for source, target in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2)):
            if source != -1:
                os.dup2(source, target)
        os.closerange(3, 1 << 20)
        os.setsid()
        os.environ.clear()
        os.environ.update(env)
        _ends(lambda: __import__(writer, fromlist=["main"]).main(list(args[args.index(writer) + 1 :])))


def _streams() -> None:
    """Open the standard streams as an interpreter does that starts."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            setattr(sys, name, None)
            continue
        raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115 - open until the process ends
        how = errors or ("backslashreplace" if number == 2 else "strict")
        lines = number == 2 or os.isatty(number)
        setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, errors=how, line_buffering=lines))


def _ends(main: Callable[[], Any]) -> None:
    """Call ``main`` and end this process as an interpreter ends."""
    _streams()
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        code = 1
        with suppress(Exception):
            traceback.print_exc()
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception as error:
            with suppress(Exception):
                print(f"Exception ignored: {error!r}", file=sys.stderr, flush=True)
            code = 120
    os._exit(code)


def _command(arguments: list[str]) -> Callable[[], Any]:
    """Return what a command line runs: ``search`` is the script, everything else the console script."""
    root = Path(sys.modules["ladder_search"].__file__ or "").parents[1]
    if arguments[0] == "search":
        sys.argv = [str(root / "search.py"), *arguments[1:]]
        return lambda: runpy.run_path(sys.argv[0], run_name="__main__")
    sys.argv = ["ladder-search", *arguments]
    return lambda: sys.modules["ladder_search.cli"].main()


def _begin(
    arguments: list[str], place: Place, surroundings: list[Any], output: tuple[int, int], registers: bool
) -> int:
    """Start a command and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output[0], 1), (output[1], 2)):
            os.dup2(source, target)
        os.closerange(3, 1 << 20)
        env = {"PATH": os.environ["PATH"], "HOME": str(place.home), "TMPDIR": str(place.tmp), "LANG": "C.UTF-8",
               "LADDER_SEARCH_CACHE": str(place.cache), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}  # fmt: skip
        for one in surroundings:
            env |= {name: value.format_map(vars(place)) for name, value in one.env.items() if value is not None}
            env = {name: value for name, value in env.items() if one.env.get(name, "") is not None}
        os.environ.clear()
        os.environ.update(env)
        tempfile.tempdir = None
        random.seed(1)
        os.chdir(place.work)
        if not registers:
            sys.modules["ladder_search.commands.final_runs"]._register = lambda *arguments: "1"
        for one in surroundings:
            one.enter(place)
    except BaseException:
        traceback.print_exc()
        os._exit(99)
    _ends(_command(arguments))
    os._exit(98)


def _wait(pid: int, limit: float = LIMIT) -> int:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 97


def _outlived(limit: float = 5.0) -> list[str]:
    """Return the command lines of processes that the commands left behind, and end them."""
    end = time.monotonic() + limit
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0 and time.monotonic() > end:
                break
            time.sleep(0.01)
        except ChildProcessError:
            return []
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    left = [
        Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") for child in children
    ]
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    return left


def run_case(request: dict[str, Any]) -> dict[str, Any]:
    ctypes.CDLL(None).prctl(_REAPER, 1, 0, 0, 0)
    every = SURROUNDINGS | {name: refusal.where for name, refusal in REFUSALS.items()}
    surroundings = [every[name] for name in request["surroundings"]]
    place = Place(base=Path(request["base"]), folders={k: v for one in surroundings for k, v in one.folders.items()})
    for folder in (place.results, place.home, place.tmp, place.cache):
        folder.mkdir(parents=True)
    shutil.copy(request["store"], place.results / "mlflow.db")
    for one in surroundings:
        one.prepare(place)
    there = records(place)
    ended = []
    for number, arguments in enumerate(request["commands"]):
        paths = [place.base / f"{number}.{stream}" for stream in ("out", "err")]
        handles = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) for path in paths]
        begun = time.monotonic()
        code = _wait(_begin(arguments, place, surroundings, (handles[0], handles[1]), request.get("registers", False)))
        for handle in handles:
            os.close(handle)
        ended.append({
            "arguments": arguments, "code": code,  "seconds": time.monotonic() - begun, "left": _outlived(),
            "out": paths[0].read_text(errors="replace"), "err": paths[1].read_text(errors="replace"),
        })  # fmt: skip
    for one in surroundings:
        one.undo(place)
    times = os.times()
    return {
        "ended": ended,
        "records": {path: text for path, text in records(place).items() if there.get(path) != text},
        "modes": modes(place),
        "cpu": times.children_user + times.children_system,
    }


def main() -> None:
    warm()
    gc.collect()
    gc.freeze()  # the children look for garbage in what is theirs only
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer = Path(request["answer"])
            try:
                found = run_case(request)
            except BaseException:
                found = {"broken": traceback.format_exc()}
            draft = answer.with_suffix(".draft")
            draft.write_text(json.dumps(found))
            draft.rename(answer)
            os._exit(0)


if __name__ == "__main__":
    main()
