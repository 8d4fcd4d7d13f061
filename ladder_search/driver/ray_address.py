"""Find and check the address of a Ray cluster that a search joins."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from ladder_search.errors import ResourceError, command_line

OPTION = "--address"
VARIABLE = "RAY_ADDRESS"
_CONNECT_SECONDS = 4.0
_JOIN_SECONDS = 7
"""Time limit on this machine, where joining takes 1 s, or 2.5 s if ten processes share two cores."""
_REMOTE_JOIN_SECONDS = 30
"""Time limit on other machines, which may still be starting; Ray takes 20 s to recognise a foreign server."""
_START_SECONDS = 60.0
"""Time limit of importing Ray on a busy machine."""
_REMEDY = (
    f"start one with `{command_line('ray', 'start', head=True)}`, name another, or use --address local for a private "
    "Ray of this search"
)

_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Start of every HTTP/2 connection, and therefore of every gRPC client: the preface and empty settings."""
_SETTINGS = 4
"""Type, in the fourth byte, of the first frame of an HTTP/2 server."""

_JOIN = """
import signal, sys
import ray
signal.alarm(int(sys.argv[2]))
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except BaseException as error:
    print(" ".join(f"{type(error).__name__}: {error}".split()))
    sys.exit(1)
ray.shutdown()
"""


@dataclass(frozen=True, slots=True)
class RayAddress:
    value: str
    source: str
    """The option, variable or file that names it."""

    def error(self, reason: str) -> ResourceError:
        return ResourceError(
            f"{self.source} must name a running Ray cluster, {self.value!r} is none: {reason[:200].rstrip('.')}; "
            f"{_REMEDY}."
        )


def find_address(option: str | None, source: str = OPTION) -> RayAddress | None:
    """Return the address of the cluster to join; None: start a private Ray.

    Args:
        option: the setting ``address``; None: use the variable ``RAY_ADDRESS``.
        source: origin of the setting, for messages.

    Raises ``ResourceError`` if the address is not ``host:port``, ``auto`` or ``local``.
    """
    variable = os.environ.get(VARIABLE)
    if variable and option in (None, "", "auto"):  # as in Ray, the variable replaces "auto"
        option, source = variable, f"the variable {VARIABLE}"
    if not option or option == "local":
        return None
    address = RayAddress(option, source)
    if option == "auto":
        return address
    if "://" in option:
        raise ResourceError(
            f"{source} must be the host:port of a Ray cluster, as `ray start` prints it, or auto, got {option!r}: a "
            "search drives its trials from a node of the cluster and not through a client or a dashboard; start it "
            "there with `ray submit` or `ray job submit`, or name host:port."
        )
    host, _, port = option.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ResourceError(
            f"{source} must be host:port with a port from 1 to 65535, auto, or local, got {option!r}; correct it."
        )
    return address


def check(address: RayAddress) -> None:
    """Raise ``ResourceError`` unless the cluster can be joined, without Ray's retries, which take minutes.

    Servers that do not speak gRPC, such as a dashboard, are refused within seconds. Then a separate process joins the
    cluster, because only Ray can check version, login and node.
    """
    if address.value != "auto" and os.environ.get("RAY_USE_TLS", "0") != "1":
        _check_speaks_grpc(address)
    host = address.value.rpartition(":")[0].strip("[]")
    limit = _JOIN_SECONDS if host == "localhost" or host == "::1" or host.startswith("127.") else _REMOTE_JOIN_SECONDS
    command = [sys.executable, "-P", "-c", _JOIN, address.value, str(limit)]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_START_SECONDS + limit)
    except subprocess.TimeoutExpired:
        raise address.error(f"it has not accepted a driver within {_START_SECONDS + limit:g} s") from None
    if result.returncode == -signal.SIGALRM:
        raise address.error(f"it has not accepted a driver within {limit} s")
    if result.returncode != 0:
        lines = result.stdout.decode(errors="replace").splitlines()
        raise address.error(lines[-1] if lines else f"joining it ended with exit code {result.returncode}")


def _check_speaks_grpc(address: RayAddress) -> None:
    host, _, port = address.value.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            connection.sendall(_HTTP2)
            answer = connection.recv(9)
    except TimeoutError:
        raise address.error(f"there was no answer within {_CONNECT_SECONDS:g} s") from None
    except (OSError, ValueError) as error:
        raise address.error(str(error)) from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise address.error("the server at this address does not speak gRPC; it may be a dashboard")
