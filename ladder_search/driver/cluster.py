"""Ray: joined where one runs, started privately otherwise; and what it has room for."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from ladder_search.errors import ResourceError

_RAY_VARIABLES = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer output prints tables at every verbosity
    "RAY_USAGE_STATS_ENABLED": "0",  # a search tells nobody that it runs
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are in the trials' records and in their error.txt
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # one record of a search is enough: ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours, too: see driver/halt.py
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # a snapshot per checkpoint is no news
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials keep the working directory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one trial asks for."""

    cpus: float
    gpus: float


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Connect to Ray for one search and leave it afterwards; yields whether the cluster is this search's own.

    Args:
        address: cluster to join; None: the one of ``RAY_ADDRESS``, else a private one on this machine.

    Raises:
        ResourceError: no cluster answers at the address.
    """
    for name, value in _RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or None
    private = address is None
    if address is not None:
        _check_answers(address)
    try:
        # "local" starts a cluster of our own even where another one runs, so that searches do not disturb each other.
        ray.init(
            address=address or "local",
            include_dashboard=None if not private else False,
            runtime_env=_runtime_env() if private else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if private:
            raise ResourceError(
                f"a search needs Ray and it did not start: {_line(error)}; `ladder-search doctor` may say why."
            ) from error
        raise _no_cluster(address, error) from error
    try:
        yield private
    finally:
        ray.shutdown()


def _runtime_env() -> dict[str, str] | None:
    """Ray writes its workers' interpreter into a shell command as it is: one in a folder with a space needs quotes."""
    quoted = shlex.quote(sys.executable)
    return None if quoted == sys.executable else {"py_executable": quoted}


def _check_answers(address: str) -> None:
    """Raise ``ResourceError`` when nothing listens at ``host:port``; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:
        return  # "auto" and the like: Ray looks for them at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> ResourceError:
    return ResourceError(
        f"--address must name a running Ray cluster, {address!r} is none: {_line(error)}; "
        "start one with `ray start --head` or leave the option out."
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def capacity(share: Share, *, private: bool) -> int:
    """Return how many trials fit at the same time now; 0 on a cluster of others that must first grow.

    Raises:
        ResourceError: on a private cluster, which never grows, not even one fits.
    """
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = []
    for name, option, asked in (("CPU", "--cpus-per-trial", share.cpus), ("GPU", "--gpus-per-trial", share.gpus)):
        if asked:
            fits.append(int(have.get(name, 0.0) / asked + 1e-6))
            if private and not fits[-1]:
                raise ResourceError(
                    f"a trial asks for {asked:g} {name} and this machine has {have.get(name, 0.0):g}; "
                    f"lower {option} or join a cluster with --address."
                )
    return min(fits)
