"""What the doctor finds; it touches nothing."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from ladder_search.commands import doctor
from ladder_search.console import Console
from ladder_search.data.datasets import DATASETS


def _examined(root: Path) -> tuple[int, str]:
    out = io.StringIO()
    return doctor.examine(Console(file=out, width=300), root), out.getvalue()


def test_a_healthy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, text = _examined(tmp_path / "results")
    assert code == 0 and "fails" not in text
    for name in (
        "Python",
        "torch",
        "ray",
        "CPU",
        "GPU",
        "C++ compiler",
        "results folder",
        "tracking store",
        "launcher",
    ):
        assert name in text
    assert all(package in text for package in doctor.PACKAGES) and "data digits" in text and "data mnist" in text
    assert list(tmp_path.iterdir()) == []
    names = [line.split()[2] for line in text.splitlines() if line.split()[1:2] == ["data"]]
    assert sorted(names) == sorted(DATASETS), "each data set has one line"


def test_a_disk_that_does_not_report_its_size_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "statvfs", refused)
    (finding,) = doctor._root(tmp_path)
    assert finding.works and finding.text == f"{tmp_path} (its free space is unknown)"


def test_a_file_system_that_lacks_something_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(os, "symlink", refused)
    (finding,) = doctor._file_system(tmp_path / "results")
    assert finding.works and finding.text.startswith("it has no file locks: a file replaces each lock; delete")
    assert finding.text.endswith("; it has no symbolic links: no part of a search needs them")
    monkeypatch.setattr(os, "mkdir", refused)
    assert list(doctor._file_system(tmp_path / "results")) == []  # "results folder" says so


def test_data_that_only_some_studies_need_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    code, text = _examined(tmp_path / "results")
    line = next(line for line in text.splitlines() if "data usps" in line)
    assert code == 0 and line.startswith("lacks  data usps")
    tunes = next(line for line in text.splitlines() if "data nottingham" in line)
    assert tunes.startswith("works  data nottingham") and tunes.endswith("can be fetched")
    assert (
        "not available here → only needed for its own studies; get it from digits/usps_16x16.npz in the folder" in line
    )
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path / "nowhere"))
    code, text = _examined(tmp_path / "results")
    assert code == 1 and "LADDER_SEARCH_DATA must name a folder" in text


def test_what_fails_comes_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{probe.getsockname()[1]}")
        code, text = _examined(tmp_path)
    failed = [line for line in text.splitlines() if line.startswith("fails")]
    assert code == 1 and len(failed) == 3
    assert "no-such-package" in failed[0] and "pip install" in failed[0]
    assert "free some space" in failed[1]
    assert "must name a running Ray cluster" in failed[2]


def test_what_only_some_need_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    code, text = _examined(tmp_path)
    assert code == 0 and "for `ray up` install ssh and rsync" in text


def test_a_store_that_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "mlflow.db").write_text("this is no database, it is a letter to a friend" * 10)
    code, text = _examined(tmp_path)
    assert code == 1 and "fails  tracking store" in text


def test_the_store_and_the_variables_of_the_environment_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mine.db")
    monkeypatch.setenv("TUNE_RESULT_BUFFER_LENGTH", "10")
    code, text = _examined(tmp_path / "results")
    lines = {line[7:42].strip(): line for line in text.splitlines()}
    assert code == 0, text
    assert f"{tmp_path}/mine.db (MLFLOW_TRACKING_URI)" in lines["tracking store"]
    assert "TUNE_RESULT_BUFFER_LENGTH of the environment has no effect" in lines["environment"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    code, text = _examined(tmp_path / "results")
    assert code == 1 and "it comes from MLFLOW_TRACKING_URI" in text
