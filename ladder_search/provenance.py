"""Provenance of a result: state of the code, versions, machine, data and command, without raising errors.

It is a flat mapping of plain values, stored as JSON in bundles and as tags of a search's parent run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import ladder_search
from ladder_search.cores import usable_cores

Fact = str | int | bool | None

DIFF_LIMIT = 200_000
"""Maximum number of stored bytes of the working tree's diff; its sha256 covers the whole diff."""

_PACKAGES = ("torch", "numpy", "pyarrow", "ray", "optuna", "mlflow")
_NOT_TAGS = ("git_diff", "git_untracked")
_TAG_LIMIT = 500  # MLflow's oldest stores allow 500 characters
_GIT_TIMEOUT_S = 20.0


def collect(
    *,
    data_name: str | None = None,
    data_digest: str | None = None,
    data_rows: int | None = None,
    data_columns: int | None = None,
    code: Path | None = None,
) -> dict[str, Fact]:
    """Return the facts; unknown ones are None.

    Args:
        data_name, data_digest: the data set and the sha256 of its content.
        data_rows, data_columns: number of its training examples, and of the numbers or raw columns of each.
        code: a folder of the code; None: that of this package.
    """
    return {
        "collected_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _without_passwords(shlex.join(sys.argv)),
        "data_name": data_name,
        "data_digest": data_digest,
        "data_rows": data_rows,
        "data_columns": data_columns,
        **_git(Path(ladder_search.__file__).parent if code is None else code),
        "version_python": platform.python_version(),
        "version_ladder_search": ladder_search.__version__,
        **{f"version_{name}": _version(name) for name in _PACKAGES},
        "host_name": platform.node() or None,
        "host_system": platform.platform(),
        "host_cpu": _cpu(),
        "host_cores": usable_cores(),
        "host_memory_bytes": _memory(),
        "host_accelerators": _accelerators(),
    }


def as_tags(provenance: Mapping[str, Fact]) -> dict[str, str]:
    """Return the known, short facts as text for a tracking store's tags."""
    facts = {key: value for key, value in provenance.items() if value is not None and key not in _NOT_TAGS}
    return {key: str(value)[:_TAG_LIMIT] for key, value in facts.items()}


def _git(folder: Path) -> dict[str, Fact]:
    unknown: dict[str, Fact] = dict.fromkeys(("git_sha", "git_dirty", "git_diff_sha256", "git_diff", "git_untracked"))
    try:
        # An installed package may lie inside an unrelated repository, whose state is irrelevant.
        if _run_git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
            return unknown
        sha = _run_git(folder, "rev-parse", "--verify", "HEAD")
        top = _run_git(folder, "rev-parse", "--show-toplevel")
        if sha is None or top is None:
            return unknown
        # --full-index includes the digest of binary files, which the text omits.
        diff_options = ("--no-color", "--no-ext-diff", "--no-textconv", "--full-index")
        diff = _run_git(Path(top.text.strip()), "diff", *diff_options, "HEAD")
        untracked = _run_git(Path(top.text.strip()), "ls-files", "--others", "--exclude-standard")
    except OSError:  # git, its output or the folder is unavailable
        return unknown
    return {
        "git_sha": sha.text.strip(),
        "git_dirty": bool(diff.text or untracked.text) if diff and untracked else None,
        "git_diff_sha256": diff.sha256 if diff else None,
        "git_diff": diff.text if diff else None,
        "git_untracked": untracked.text.strip() if untracked else None,
    }


class _Output:
    """Output of a command: the first ``DIFF_LIMIT`` bytes as text, and the sha256 of all."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
        self.text = file.read(DIFF_LIMIT).decode(errors="replace")


def _run_git(folder: Path, *arguments: str) -> _Output | None:
    """Return git's output, or None if it fails; programs configured in the repository are not run."""
    # Variables of git may name another repository, other settings or a trace file.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    # git refuses a repository of another user, because its settings may name programs to run; but this process executes
    # its code anyway.
    settings = ("core.fsmonitor=false", "core.quotepath=off", "safe.directory=*")
    command = ["git", "-C", str(folder), *(word for setting in settings for word in ("-c", setting)), *arguments]
    with tempfile.TemporaryFile() as output:  # a changed tracked file may have gigabytes
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=_GIT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return _Output(output) if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _accelerators() -> str | None:
    """Return for example "2 x NVIDIA H200"; "" if there are none, None if unknown."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch  # takes a second, only for this fact

    try:
        names = Counter(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    except RuntimeError:
        return None
    return ", ".join(f"{count} x {name}" for name, count in sorted(names.items()))


def _without_passwords(command: str) -> str:
    # https://user:password@tracking.example
    return re.sub(r"://[^/\s@]+@", "://", command)
