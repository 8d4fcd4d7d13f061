"""The cores that a process may use: affinity, and quotas of control groups of both versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ladder_search.cores import usable_cores

V1 = "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
V2 = "41 31 0:38 {root} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


@pytest.fixture(autouse=True)
def _cores_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(128)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)


def system(folder: Path, mounts: list[str], groups: list[str], files: dict[str, str]) -> Path:
    """Write the files below ``/proc`` and ``/sys`` that describe the control groups of a process."""
    proc = folder / "proc/self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text("".join(f"{line}\n" for line in ["23 1 0:1 / / rw - ext4 /dev/vda rw", *mounts]))
    (proc / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    for name, content in files.items():
        place = folder / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return folder


@pytest.mark.parametrize(("quota", "cores"), [(50000, 1), (400000, 4), (250000, 2), (-1, 128), (10**9, 128)])
@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_of_the_group_counts(version: int, quota: int, cores: int, tmp_path: Path) -> None:
    """As Docker mounts it: the group is seen as the root of the hierarchy."""
    if version == 1:
        files = {"cpu,cpuacct/cpu.cfs_quota_us": f"{quota}\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
        mounts, groups = [MEMORY, V1.format(root="/docker/1f")], ["5:memory:/docker/1f", "4:cpu,cpuacct:/docker/1f"]
    else:
        files = {"cpu.max": f"{quota if quota > 0 else 'max'} 100000\n"}
        mounts, groups = [V2.format(root="/")], ["0::/"]
    assert usable_cores(system(tmp_path, mounts, groups, files)) == cores


def test_the_smallest_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    """A batch system limits the job, the process lies in a step of it, and no namespace hides that."""
    files = {
        "slurm/job/cpu.max": "300000 100000\n",
        "slurm/job/step/cpu.max": "max 100000\n",
        "slurm/cpu.max": "64000000 100000\n",
        "slurm/other/cpu.max": "100000 100000\n",
    }
    assert usable_cores(system(tmp_path, [V2.format(root="/")], ["0::/slurm/job/step"], files)) == 3


def test_the_quota_of_version_1_counts_where_both_versions_are_mounted(tmp_path: Path) -> None:
    mounts = [V1.format(root="/"), V2.format(root="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000", "cpu,cpuacct/a/cpu.cfs_period_us": "50000", "unified/x": ""}
    assert usable_cores(system(tmp_path, mounts, ["3:cpuacct,cpu:/a", "0::/a"], files)) == 4


@pytest.mark.parametrize("content", ["", "max", "many 100000", "100000 0", "0 100000", "-5 100000"])
def test_a_file_that_holds_no_quota_limits_nothing(content: str, tmp_path: Path) -> None:
    assert usable_cores(system(tmp_path, [V2.format(root="/")], ["0::/"], {"cpu.max": content})) == 128


def test_a_machine_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores(tmp_path) == 128
    assert usable_cores(system(tmp_path, [], [], {})) == 128
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path) == 128


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
def test_one_core_of_several_by_taskset() -> None:
    script = "from ladder_search.cores import usable_cores; print(usable_cores())"
    found = subprocess.run(["taskset", "-c", "0", sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout == "1\n", found.stderr


def test_no_other_part_counts_cores() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [
        path for part in ("ladder_search", "trainables", "spaces", "benchmarks") for path in (root / part).rglob("*.py")
    ]
    counting = re.compile(r"cpu_count|sched_getaffinity")
    assert [path.name for path in files if counting.search(path.read_text(encoding="utf-8"))] == ["cores.py"]
