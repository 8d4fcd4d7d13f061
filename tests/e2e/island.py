"""Machines within the machine, for Ray's cluster launcher: each has its own processes, name, ``/tmp``, home and sshd.

``ray up``, ``ray stop`` and ``ray down`` end every Ray process they can see, so they must see none but their own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.conftest import ROOT

_VENV = Path(sys.prefix)
_HOME, _SHARED = "/mnt/home", "/mnt/shared"
_OWN = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--uts"]

# A /tmp of its own: what lies under the old one and is needed is bound into it first. A home of its own: sshd and ssh
# ask the passwd file alone where it is. It has the same path everywhere, as homes have.
_BEGIN = rf"""
set -eu
tmp="$FOLDER/$NAME/tmp"
for place in "$FOLDER" "$ROOT" "$VENV" "$BASE"; do
    case "$place" in /tmp/*) mkdir -p "$tmp/${{place#/tmp/}}" && mount --bind "$place" "$tmp/${{place#/tmp/}}" ;; esac
done
mount --rbind "$tmp" /tmp
mount -t tmpfs none /mnt
mkdir {_HOME} {_SHARED}
mount --bind "$FOLDER/$NAME/home" {_HOME}
mount --bind "$FOLDER/passwd" /etc/passwd
mount --bind "$FOLDER/hosts" /etc/hosts
"""
# Each script is the first process of its machine; when it ends, so do all others there. The network leads nowhere else.
_DESK = rf"""
{_BEGIN}
mount -t tmpfs none /run
ip link set lo up
ip link add lab type bridge
ip address add 10.0.0.254/24 dev lab
ip link set lab up
for ADDRESS in $ADDRESSES; do
    NAME="node-${{ADDRESS##*.}}"
    export NAME ADDRESS
    ip netns add "$NAME"
    ip link add "port-${{ADDRESS##*.}}" master lab up type veth peer name eth0 netns "$NAME"
    ip -n "$NAME" address add "$ADDRESS/24" dev eth0
    ip -n "$NAME" link set eth0 up
    ip -n "$NAME" link set lo up
    ip netns exec "$NAME" {" ".join(_OWN)} bash -c "$NODE" &
done
exec sleep infinity
"""
_NODE = rf"""
{_BEGIN}
hostname "$NAME"
mount -t tmpfs none /run && mkdir /run/sshd
mount --bind "$FOLDER/shared" {_SHARED}
exec /usr/sbin/sshd -D -e -h "$FOLDER/host_key" -f "$FOLDER/sshd_config" -o "ListenAddress=$ADDRESS"
"""


def why_not() -> str:
    """Say what this machine lacks; empty: nothing."""
    missing = [name for name in ("ssh", "ssh-keygen", "rsync", "unshare", "nsenter", "ip") if not shutil.which(name)]
    if not Path("/usr/sbin/sshd").exists():
        missing.append("sshd")
    if missing:
        return f"needs {', '.join(missing)}"
    if (
        os.geteuid()
        or subprocess.run([*_OWN, "--net", "ip", "link", "add", "type", "veth"], capture_output=True).returncode
    ):
        return "needs root, and a kernel and rights that allow namespaces with a network"
    return ""


class Island:
    """A desk, and nodes that can be reached from it by ssh; the nodes share one folder.

    States::

        Island(folder, …) -> keys, the token, homes
        running()         -> sshd answers at every address
        run(command)      -> ran at the desk, in the checkout
    """

    def __init__(self, folder: Path, *, user: str, key: str, nodes: Sequence[str]) -> None:
        self._folder, self._nodes = folder, list(nodes)
        self.desk = folder / "desk" / "home"
        self.transcript = folder / "transcript.txt"
        for name in ("desk", *map(self._name, nodes)):
            (folder / name / "tmp").mkdir(parents=True)
            (folder / name / "home" / ".ssh").mkdir(parents=True, mode=0o700)
        self.shared = folder / "shared"
        self.shared.mkdir()
        (self.desk / ".ray").mkdir()
        (self.desk / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {self._name(address)}\n" for address in nodes)
        )
        (folder / "sshd_config").write_text(
            "AuthenticationMethods publickey\nPermitRootLogin prohibit-password\nPidFile none\n"
        )
        own = Path(key.replace("~", str(self.desk)))
        for path in (own, folder / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        for home in (self.desk, *map(self.home, nodes)):
            shutil.copy(own.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
            (home / ".bashrc").touch()
        # Another name for root, who alone may make such machines.
        (folder / "passwd").write_text(f"{user}:x:0:0::{_HOME}:/bin/bash\n{Path('/etc/passwd').read_text()}")

    @staticmethod
    def _name(address: str) -> str:
        return f"node-{address.rpartition('.')[2]}"

    def home(self, address: str) -> Path:
        """The home of the user on a node; every node has another."""
        return self._folder / self._name(address) / "home"

    def tmp(self, address: str) -> Path:
        return self._folder / self._name(address) / "tmp"

    @contextmanager
    def running(self) -> Iterator[Island]:
        settings = {
            "FOLDER": str(self._folder), "ROOT": str(ROOT), "VENV": str(_VENV), "BASE": sys.base_prefix,
            "NAME": "desk", "NODE": _NODE, "ADDRESSES": " ".join(self._nodes),
        }  # fmt: skip
        log = self._folder / "log.txt"
        with log.open("wb") as file:
            command = [*_OWN, "--net", "bash", "-c", _DESK]
            desk = subprocess.Popen(command, env={**os.environ, **settings}, stdout=file, stderr=file)
        try:
            end = time.monotonic() + 20
            while log.read_text().count("Server listening on") < len(self._nodes):
                assert desk.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            self._first = Path(f"/proc/{desk.pid}/task/{desk.pid}/children").read_text().strip()
            yield self
        finally:
            desk.kill()
            desk.wait()

    def run(self, *command: str, code: int = 0, limit: float = 120.0) -> str:
        """Run a command to its end, with that exit code; return what it printed, which the transcript has as well."""
        enter = ["nsenter", "--target", self._first, "--pid", "--mount", "--net", "--uts", f"--wdns={ROOT}"]
        environment = {
            "HOME": _HOME,
            "PATH": f"{_VENV / 'bin'}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "COLUMNS": "120",
        }
        with self.transcript.open("a+") as file:
            print("$", *command, file=file, flush=True)
            begun = file.tell()
            ended = subprocess.run(
                ["timeout", str(limit), *enter, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            ).returncode
            file.seek(begun)
            printed = file.read()
        assert ended == code, "\n".join(printed.splitlines()[-60:])
        return printed
