"""Number of CPU cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(system: Path = Path("/")) -> int:
    """Return the number of CPU cores that this process may use, at least 1.

    It is limited by the affinity (``taskset``, ``numactl``, a cpuset of a container or batch system) and by the CPU
    quotas of the process's control group and its parents (``docker --cpus``, a Kubernetes limit, Slurm, ``systemd``) in
    versions 1 and 2 of cgroups. A quota of 2.5 cores counts as 2.
    ``system`` is the folder of ``proc`` and ``sys``, for tests.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(int(quota) for quota in _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """Yield the CPU quotas, in cores, of the process's control groups and their parents."""
    for mount, group in _cpu_groups(system):
        for folder in (group, *group.parents):
            quota = _quota(folder)
            if quota is not None:
                yield quota
            if folder == mount:
                break


def _cpu_groups(system: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (mount point, folder of this process's group) of every hierarchy that limits CPU time."""
    try:
        mounts = (system / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        groups = (system / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return  # not Linux, or /proc is not mounted
    # Lines are "4:cpu,cpuacct:/user.slice" (version 1) or "0::/user.slice" (version 2).
    path_by_controller = {
        name: path for _, names, path in (g.split(":", 2) for g in groups) for name in names.split(",")
    }
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(" ", 2)
        controller = {"cgroup": "cpu", "cgroup2": ""}.get(kind)
        if controller is None or (controller and controller not in options.split(",")):
            continue
        root, mount = fields[3], system / fields[4].lstrip("/")
        path = path_by_controller.get(controller, "/")
        # In a container, the process's own group may be mounted as the root, while the path is that outside of it.
        below = path.removeprefix(root.rstrip("/")).lstrip("/")
        group = mount / below
        yield mount, group if group.is_dir() and ".." not in below else mount


def _quota(folder: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
            cores = float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue  # the files of the other version, or "max"
        if cores > 0:  # version 1 writes -1 for no quota
            return cores
    return None
