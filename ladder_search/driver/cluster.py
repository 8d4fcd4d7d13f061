"""Connect to a Ray cluster or start a private one, and query its resources."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from pyarrow.fs import FileSystem, LocalFileSystem
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ladder_search import environment, signals
from ladder_search.cores import usable_cores
from ladder_search.driver import deaths
from ladder_search.driver.ray_address import RayAddress
from ladder_search.driver.ray_folder import ray_folder
from ladder_search.errors import ResourceError, SettingError, command_line
from ladder_search.internals.ray import Node, detect_fate_sharing_support, ray_constants, services, set_driver_path
from ladder_search.tracking.address import redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    cpus: float
    gpus: float


@contextmanager
def connected(address: RayAddress | None, notify: Callable[[str], None]) -> Iterator[bool]:
    """Connect to Ray for one search; yield whether the cluster is private.

    Args:
        address: cluster to join, verified by ``ray_address.check``; None: start a private one on this machine.
        notify: receives a line if a private Ray cannot use the folder that a variable names.

    Raises ``ResourceError`` if Ray does not start or refuses the connection.
    """
    with environment.ours(), deaths.survived(), nullcontext() if address else ray_folder(notify):
        try:
            _join(address) if address else _start()
            yield address is None
        finally:
            ray.shutdown()  # also stops a Ray that started before an error


def check_unconnected() -> None:
    """Raise ``SettingError`` if the process is connected to Ray, which a search would disconnect."""
    if ray.is_initialized():
        raise SettingError(
            "a search starts and stops Ray itself, and this process is connected to Ray; call ray.shutdown() first."
        )


def _join(address: RayAddress) -> None:
    try:
        with signals.restored():
            ray.init(address=address.value, job_config=_job(), logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray may raise any error if the cluster is unsuitable
        raise address.error(_line(error)) from error


def _start() -> None:
    quoted = shlex.quote(sys.executable)  # Ray inserts the path of the interpreter into a shell command as it is
    try:
        with _of_our_own(), signals.restored():
            # "local" starts a new cluster even if another one runs, so searches do not interfere.
            ray.init(
                address="local",
                num_cpus=usable_cores(),
                include_dashboard=False,
                runtime_env=None if quoted == sys.executable else {"py_executable": quoted},
                job_config=_job(),
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # a socket, a port, memory or a file of Ray may be unavailable
        raise ResourceError(
            f"a search needs Ray, and Ray did not start: {_line(error)}; "
            f"`{command_line('doctor')}` may show the reason."
        ) from error


class _Apart(services.ConsolePopen):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, process_group=0)


@contextmanager
def _of_our_own() -> Iterator[None]:
    """While active, start Ray on the loopback interface only, in its own process groups, and without idle servers.

    After a signal to its process group, a search still needs Ray to write checkpoints. A private Ray has no dashboard,
    sends no logs to the driver and does not grow, but Ray starts the servers for this anyway: they take 3 s of CPU time
    and 280 MB.
    """
    loopback, popen = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    idle = services.start_api_server, Node.start_log_monitor, Node.start_monitor
    ray_constants.ENABLE_RAY_CLUSTER = False
    services.start_api_server = lambda *arguments, **options: ("", None)
    Node.start_log_monitor = Node.start_monitor = lambda node: None  # type: ignore[method-assign]
    # If the kernel does not end Ray's processes with the search, Ray ends their group.
    if detect_fate_sharing_support():  # type: ignore[no-untyped-call]
        services.ConsolePopen = _Apart  # type: ignore[misc]
    try:
        yield
    finally:
        services.start_api_server, Node.start_log_monitor, Node.start_monitor = idle  # type: ignore[method-assign]
        ray_constants.ENABLE_RAY_CLUSTER = loopback
        services.ConsolePopen = popen  # type: ignore[misc]


class _DriversPath(list[str]):
    """Folders in which Ray's workers look for modules: those on the driver's path.

    Ray would add the working directory, where a file ``statistics.py`` shadows the module of that name.
    """

    def extend(self, folders: Iterable[str]) -> None:
        drivers = {os.path.abspath(folder) for folder in sys.path}
        super().extend(folder for folder in folders if folder in drivers)


def _job() -> JobConfig:
    job = JobConfig()
    set_driver_path(job, _DriversPath())
    return job


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def capacity(share: Share, *, private: bool) -> int:
    """Return how many trials fit now; 0 if a shared cluster must grow first. Raise ``ResourceError`` if a private
    cluster, which never grows, has no room for one trial."""
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = []
    for name, option, asked in (("CPU", "--cpus-per-trial", share.cpus), ("GPU", "--gpus-per-trial", share.gpus)):
        if asked:
            fits.append(int(have.get(name, 0.0) / asked + 1e-6))
            if private and not fits[-1]:
                raise ResourceError(
                    f"a trial requests {asked:g} {name} and this machine has {have.get(name, 0.0):g}; "
                    f"lower {option} or join a cluster with --address."
                )
    return min(fits)


def has_gpus(*, private: bool) -> bool:
    """Return whether the cluster has GPUs that trials can use; on a private one, PyTorch must support them."""
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return bool(have.get("GPU")) and (not private or torch.cuda.is_available())


def check_writable(place: str) -> None:
    """Check with a small temporary file that the folder or bucket can be written; raise ``SettingError`` otherwise.

    For a folder that does not exist, the nearest existing parent is checked.
    """
    try:
        if "://" in place:
            filesystem, path = FileSystem.from_uri(place)
            filesystem.create_dir(path, recursive=True)
        else:
            filesystem, path = LocalFileSystem(), str(_standing(Path(place)))
        mark = f"{path}/.written-{uuid.uuid4().hex}"
        try:
            with filesystem.open_output_stream(mark) as file:
                file.write(bytes(4096))
        except BaseException:
            with suppress(OSError):  # the file may not exist, and the first error is the one to report
                filesystem.delete_file(mark)
            raise
        filesystem.delete_file(mark)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"checkpoints need a place that can be written, {redacted(place)} is not: {_line(error)}; choose another "
            "--storage."
        ) from error


def check_shared(place: str) -> int:
    """Check that every other node can write the folder; return their number, 0 for a remote address. Raise
    ``ResourceError`` if a node cannot see or write the folder."""
    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    others = [node for node in nodes if node["Alive"] and node["NodeID"] != here]
    if not others or "://" in place:
        return 0
    folder = _standing(Path(place))
    mark = folder / f".seen-{uuid.uuid4().hex}"
    mark.touch(exist_ok=False)
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(_sees)
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in others]
        answers = [look.options(scheduling_strategy=node).remote(mark) for node in there]
        blind = [
            node["NodeManagerHostname"] for node, answer in zip(others, answers, strict=True) if not _answer(answer)
        ]
    finally:
        mark.unlink()
    if blind:
        raise ResourceError(
            f"every node must be able to write the checkpoints' folder, {folder} is not seen from {', '.join(blind)}; "
            "name a folder that all nodes share, or a bucket, with --storage."
        )
    return len(others)


def _standing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _sees(mark: Path) -> bool:
    return mark.exists() and os.access(mark.parent, os.W_OK)


def _answer(answer: ray.ObjectRef[bool]) -> bool:
    try:
        return ray.get(answer, timeout=60)
    except ray.exceptions.RayError:
        return True  # the node has left meanwhile; Ray handles that
