"""Ways to change what a process finds around it. Each is called in the process of a command, or before it starts."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import grp
import os
import pwd
import resource
import shutil
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.contracts.surroundings.place import Place

Act = Callable[[Place], Any]
NOBODY = 65534
NAMELESS = 23456


def nothing(place: Place) -> None:
    pass


def put(target: Any, name: str, replacement: Any) -> Act:
    return lambda place: setattr(target, name, replacement)


def refuses(target: Any, name: str, number: int, when: Callable[..., bool] = lambda *a, **k: True) -> Act:
    """Let a call of the system fail as a file system lets it fail that has no such thing."""
    call = getattr(target, name)

    def refusing(*arguments: Any, **options: Any) -> Any:
        if when(*arguments, **options):
            raise OSError(number, os.strerror(number), name)
        return call(*arguments, **options)

    return put(target, name, refusing)


def in_turn(*acts: Act) -> Act:
    def act(place: Place) -> None:
        for one in acts:
            one(place)

    return act


def may(*capabilities: int) -> bool:
    """Return whether this process has these rights of root, which a container may take away one by one."""
    if not capabilities:
        return True
    status = Path("/proc/self/status")
    if os.getuid() != 0 or not status.exists():
        return False
    (has,) = (int(line.split()[1], 16) for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    return all(has >> capability & 1 for capability in capabilities)


def becomes(uid: int) -> Act:
    """Become another user with the right to read everything: the checkout may lie in a home that is closed."""

    def act(place: Place) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        header, only = struct.pack("Ii", _CAPABILITIES_3, 0), 1 << _READ_AND_SEARCH
        if libc.capset(header, struct.pack("6I", only, only, only, 0, 0, 0)) != 0:
            raise OSError(ctypes.get_errno(), "capset")
        libc.prctl(_AMBIENT, 2, _READ_AND_SEARCH, 0, 0)  # for the programs that the command starts
        os.access = functools.partial(os.access, effective_ids=True)

    return act


_KEEP_CAPABILITIES, _AMBIENT, _CAPABILITIES_3, _READ_AND_SEARCH = 8, 47, 0x20080522, 2
CHANGE_USER, CHANGE_SYSTEM = (0, 2, 6, 7), (21,)
"""Capabilities: to change owners, read everything and become another user; to have mounts and processes apart."""


def owned_by(uid: int) -> Act:
    def act(place: Place) -> None:
        for path in (place.base, *place.base.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)

    return act


def closed(*numbers: int) -> Act:
    return lambda place: [os.close(number) for number in numbers]


def opened(path: str, *numbers: int) -> Act:
    def act(place: Place) -> None:
        handle = os.open(path, os.O_WRONLY)
        for number in numbers:
            os.dup2(handle, number)
        os.close(handle)

    return act


def no_reader(place: Place) -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    os.dup2(write, 2)


def non_blocking(place: Place) -> None:
    """A pipe whose other end, of another program, has made it non-blocking, and that is full."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    os.write(write, b"x" * 4096)
    os.set_inheritable(read, True)
    os.dup2(write, 1)


def terminal(rows: int, columns: int) -> Act:
    def act(place: Place) -> None:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if os.fork() == 0:  # the terminal's other side
            with suppress(OSError):
                os.close(theirs)
                while os.read(ours, 4096):
                    pass
            os._exit(0)
        os.close(ours)
        for number in (0, 1, 2):
            os.dup2(theirs, number)
        os.close(theirs)

    return act


def far_handles(place: Place) -> None:
    """All handles below 1024 are taken."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    while os.open(os.devnull, os.O_RDONLY) < 1023:
        pass


def ignored(*numbers: int) -> Act:
    return lambda place: [signal.signal(number, signal.SIG_IGN) for number in numbers]


def limit(what: int, value: int) -> Act:
    return lambda place: resource.setrlimit(what, (value, value))


def clock(shift: float, *, back: float = 0.0) -> Act:
    """A clock that is wrong, and that is set back in the middle."""
    true, begun = time.time, time.monotonic()

    def now() -> float:
        return true() + shift - (back if time.monotonic() - begun > 0.5 else 0.0)

    return in_turn(put(time, "time", now), put(time, "time_ns", lambda: int(now() * 1e9)))


def first_process(place: Place) -> None:
    """Be process 1 of a container, which has no other."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_processes, new_mounts, private = 0x20000000, 0x00020000, 0x44000
    if libc.unshare(new_processes | new_mounts) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    inside = os.fork()
    if inside:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]) & 0xFF)
    libc.mount(None, b"/", None, private, None)
    libc.mount(b"proc", b"/proc", b"proc", 0, None)


def strangers(place: Place) -> None:
    """Other things lie in the results."""
    (place.results / "notes.txt").write_text("mine")
    (place.results / ".DS_Store").write_bytes(b"\0\xff")
    (place.results / "dangling").symlink_to("nowhere")
    (place.results / "loop").symlink_to("loop")
    (place.results / "empty").mkdir()
    (place.results / "folder" / "study.json").mkdir(parents=True)
    (place.results / "half").mkdir()
    (place.results / "half" / "study.json").write_text('{"format": "ladder-search stu')
    (place.results / "other").mkdir()
    (place.results / "other" / "study.json").write_text('{"format": "another program"}')
    os.mkfifo(place.results / "pipe")


def modules(place: Place) -> None:
    """Files in the working directory are named as modules are."""
    for name in ("random", "logging", "mlflow", "ray", "torch", "search", "spaces", "trainables", "sqlite3", "rich"):
        (place.work / f"{name}.py").write_text(
            f"raise SystemExit('the {name}.py of the working directory was imported')\n"
        )


def linked_root(place: Place) -> None:
    place.results.rename(place.base / "elsewhere")
    place.results.symlink_to(place.base / "elsewhere")


def no_proc(place: Place) -> None:
    import builtins
    import io

    def hidden(path: Any, *more: Any, **options: Any) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and os.fspath(path).startswith("/proc")  # type: ignore[arg-type]

    for target, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "listdir"), (os, "scandir")):
        refuses(target, name, errno.ENOENT, hidden)(place)


def no_names(place: Place) -> None:
    def unknown(*arguments: Any) -> Any:
        raise KeyError("getpwuid(): uid not found")

    for target, name in ((pwd, "getpwuid"), (pwd, "getpwnam"), (grp, "getgrgid")):
        setattr(target, name, unknown)


def no_host(place: Place) -> None:
    def unknown(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        setattr(socket, name, unknown)


def is_folder(handle: Any, *more: Any) -> bool:
    import stat

    return stat.S_ISDIR(os.fstat(handle if isinstance(handle, int) else handle.fileno()).st_mode)


def read_only(*names: str) -> Act:
    return lambda place: [getattr(place, name).chmod(0o555) for name in names]


def writable(*names: str) -> Act:
    return lambda place: [getattr(place, name).chmod(0o755) for name in names]


def git_alone(place: Place) -> None:
    (place.base / "programs").mkdir()
    if git := shutil.which("git"):
        (place.base / "programs" / "git").symlink_to(git)


def deleted(place: Place) -> None:
    gone = place.base / "gone"
    gone.mkdir(exist_ok=True)
    os.chdir(gone)
    gone.rmdir()


def a_file(name: str) -> Act:
    """Put a file where a folder is expected."""

    def act(place: Place) -> None:
        shutil.rmtree(getattr(place, name))
        getattr(place, name).write_text("")

    return act


def held_by_root(place: Place) -> None:
    """The results may be read and not written; the rest is the user's."""
    owned_by(NOBODY)(place)
    for path in (place.results, *place.results.rglob("*")):
        os.chown(path, 0, 0)
