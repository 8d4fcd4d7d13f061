"""``ladder-search ui``: MLflow's user interface for a store, served by a child process."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress

from ladder_search.commands.command_line import add_root, add_tracking, number
from ladder_search.commands.sending import tracking_store
from ladder_search.errors import ResourceError, SettingError, StudyFolderError, command_line
from ladder_search.signals import Interruption
from ladder_search.tracking import address
from ladder_search.tracking.sqlite_store import move_artifacts

HOST = "127.0.0.1"
_END_S = 5.0
"""Seconds that the server and its workers have to end before they are killed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tracking(parser)
    parser.add_argument("--port", type=number(least=None), default=5000, metavar="N", help="port of this machine")
    add_root(parser)


def run(arguments: argparse.Namespace) -> int:
    store = tracking_store(arguments)
    command = address.ui_command(store, HOST, arguments.port)
    path = address.sqlite_path(store)
    if path is not None and not path.exists():
        search = command_line("search", "STUDY", root=arguments.root)
        raise StudyFolderError(f"the store {path} does not exist yet; run `{search}` first or name another --root.")
    _check_port(arguments)
    if path is not None:
        address.check_sqlite(path)
        move_artifacts(path)
    print(f"MLflow on http://{HOST}:{arguments.port} (Ctrl-C ends it)", flush=True)
    environment = {**os.environ, **address.ui_environment(store)}
    # A process group of its own, so that the workers end with it.
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0) as server:
        try:
            code = server.wait()
        except KeyboardInterrupt as interruption:
            if isinstance(interruption, Interruption):
                raise
            return 0
        finally:
            _end(server)
    raise ResourceError(f"MLflow's server must run until it is ended, it ended with code {code}; its output says why.")


def _check_port(arguments: argparse.Namespace) -> None:
    """Raise ``SettingError`` unless the server can listen on the port."""
    try:
        if not 1 <= arguments.port <= 65535:
            raise OverflowError("no such port")
        socket.create_server((HOST, arguments.port)).close()
    except (OSError, OverflowError) as error:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        tracking = arguments.tracking and address.without_password(arguments.tracking)[0]
        other = command_line("ui", root=arguments.root, tracking=tracking, port=port)
        raise SettingError(
            f"--port must be a free port between 1 and 65535, {arguments.port} on {HOST} is not "
            f"({getattr(error, 'strerror', None) or error}); open the pages that are there, or run `{other}`."
        ) from error


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_S
        while time.monotonic() < deadline:
            server.poll()
            os.killpg(server.pid, 0)  # raises once the last one has ended
            time.sleep(0.05)
    except ProcessLookupError:
        return
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
