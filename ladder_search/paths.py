"""Expansion of ``~`` and ``$NAME`` in paths that a user writes, and checks of such paths."""

from __future__ import annotations

import errno
import os
import re

from ladder_search.errors import SettingError

_LOCAL_SCHEMES = ("sqlite:///", "file://")
"""Schemes of addresses that contain a local path."""
_SHOWN = 100


def check_working_directory() -> None:
    """Raise ``SettingError`` if the working directory does not exist or is not valid UTF-8.

    Absolute paths of study folders, stores, bundles and reports are stored as UTF-8 (JSON, SQLite, addresses).
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
    """Raise ``SettingError`` unless a path is valid UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SettingError(
            f"{what} must be text in UTF-8, {os.fsencode(path)!r} is not; rename that folder, or set PYTHONUTF8=1 if "
            "the locale is not UTF-8."
        ) from None


def check_reachable(path: str, what: str) -> None:
    """Raise ``SettingError`` if the system cannot determine whether a path exists; a missing path is allowed.

    A name of more than 255 bytes, a folder without search permission or an unresponsive file server would raise
    ``OSError`` in later calls (``Path.exists``, ``Path.is_dir``).
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        remedy = "shorten it" if error.errno == errno.ENAMETOOLONG else "mend that or choose another path"
        text = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
        raise SettingError(
            f"{what} must be a path that can be looked up and {text!r} is not ({error.strerror}); {remedy}."
        ) from error


def expanded(path: str, what: str = "a path") -> str:
    """Return the path with a leading ``~`` or ``~user`` and every ``$NAME`` or ``${NAME}`` expanded, as a shell does.

    A shell does not expand ``--root=~/x``, YAML files or variables in job descriptions. All paths of users are read by
    this function or ``expanded_address``, so that no folder named ``~`` or ``$HOME`` is created.

    Args: ``what`` is the option, setting or variable for messages.

    Raises ``SettingError`` if the home folder or a variable is unknown, or the path is not UTF-8 or not reachable.
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
    """Return an address with its local path expanded; addresses of servers, databases and buckets are unchanged.

    A password may contain ``$`` and ``~``, so only plain paths, ``sqlite:///`` and ``file://`` addresses are expanded.
    Raises ``SettingError`` as ``expanded`` does.
    """
    if "://" not in address:
        return expanded(address, what)
    for scheme in _LOCAL_SCHEMES:
        if address.lower().startswith(scheme):
            path = expanded(address[len(scheme) :], what)
            return address[: len(scheme)] + (path[1:] if path.startswith("//") else path)  # of sqlite:////$HOME/x
    return address
