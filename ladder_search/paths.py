"""Paths as people write them: ``~`` and ``$NAME`` in options, settings and variables that no shell has expanded."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from ladder_search.errors import SettingError

_LOCAL_SCHEMES = ("sqlite:///", "file://")
"""Addresses that contain the path of a file on this machine."""
_SHOWN = 100
"""Characters of a path that a message repeats."""


def check_working_directory() -> None:
    """Raise ``SettingError`` where relative paths lead nowhere, or to names that no record can contain.

    Every command begins with it: study folders, stores, bundles and reports have absolute paths, and what keeps those
    (JSON, SQLite, addresses) is UTF-8.
    """
    try:
        here = os.getcwd()
    except OSError as error:
        raise SettingError(
            f"a command needs a working directory that exists and this one does not ({error.strerror}); change to "
            "another one with `cd`."
        ) from error
    check_text(here, "the path of the working directory")


def check_text(path: str, what: str) -> None:
    """Raise ``SettingError`` unless a path is text in UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SettingError(
            f"{what} must be text in UTF-8, {os.fsencode(path)!r} is not; rename that folder, or set PYTHONUTF8=1 if "
            "the locale is not UTF-8."
        ) from None


def check_reachable(path: str, what: str) -> None:
    """Raise ``SettingError`` where the system refuses to say whether a path exists.

    A path that does not exist is allowed. A name of more than 255 bytes, a folder above it that must not be searched or
    a file server that does not answer would end later calls (``Path.exists``, ``Path.is_dir``) in an ``OSError``.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        remedy = "shorten it" if error.errno == errno.ENAMETOOLONG else "mend that or choose another path"
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
        raise SettingError(
            f"{what} must be a path that can be looked up and {shown!r} is not ({error.strerror}); {remedy}."
        ) from error


def expanded(path: str, what: str = "a path") -> str:
    """Return the path with a leading ``~`` or ``~user`` and every ``$NAME`` or ``${NAME}`` replaced, as a shell does.

    A shell replaces neither in ``--root=~/x``, in a YAML file, or in a variable that a job's description sets. Every
    path that a user writes is read through this function or ``expanded_address``, so that no folder is ever called
    ``~`` or ``$HOME``.

    Args:
        path: as the user has written it.
        what: the option, setting or variable that it comes from, for the message.

    Raises:
        SettingError: the home folder or a variable is unknown, the path is not UTF-8, or the system cannot look it up
            (see ``check_reachable``).
    """
    for variable in re.finditer(r"\$(\w+|\{[^}]*\})", path):
        if variable[1].strip("{}") not in os.environ:
            raise SettingError(
                f"{what} may use only variables that are set and {variable[0]} is not, got {path!r}; set it or write "
                "the path without it."
            )
    check_text(path, what)
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        raise SettingError(
            f"{what} may start with ~ only where the home folder is known, that of {path.partition('/')[0]} is not, "
            f"got {path!r}; write the whole path."
        )
    whole = os.path.expandvars(whole)
    check_reachable(whole, what)
    return whole


def expanded_address(address: str, what: str = "an address") -> str:
    """Return an address with its local path expanded; the address of a server, a database or a bucket as it is.

    A password may contain ``$`` and ``~``, so only plain paths, ``sqlite:///`` and ``file://`` addresses are expanded.

    Raises:
        SettingError: see ``expanded``.
    """
    if "://" not in address:
        return expanded(address, what)
    for scheme in _LOCAL_SCHEMES:
        if address.lower().startswith(scheme):
            path = expanded(address[len(scheme) :], what)
            return address[: len(scheme)] + (path[1:] if path.startswith("//") else path)  # of sqlite:////$HOME/x
    return address


def expanded_path(path: Path, what: str = "a path") -> Path:
    """Return ``expanded`` of a path."""
    return Path(expanded(str(path), what))
