"""What a cluster has room for, and where checkpoints can be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from pyarrow.fs import LocalFileSystem

from ladder_search.driver import cluster
from ladder_search.driver.cluster import Share, capacity, check_writable, connected
from ladder_search.driver.ray_address import RayAddress
from ladder_search.errors import ResourceError, SettingError


@pytest.mark.parametrize(
    ("share", "have", "room"),
    [
        (Share(cpus=1, gpus=0), {"CPU": 2.0}, 2),
        (Share(cpus=0.5, gpus=0), {"CPU": 2.0}, 4),
        (Share(cpus=1 / 3, gpus=0), {"CPU": 1.0}, 3),  # three thirds, whatever floats say
        (Share(cpus=1, gpus=0.25), {"CPU": 16.0, "GPU": 2.0}, 8),
        (Share(cpus=1, gpus=0.1), {"CPU": 4.0, "GPU": 1.0}, 4),
    ],
)
def test_room(share: Share, have: dict[str, float], room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    assert capacity(share, private=True) == room


def test_what_a_machine_lacks_is_an_error_and_what_a_cluster_lacks_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(ResourceError, match="requests 0.5 GPU and this machine has 0; lower --gpus-per-trial or join"):
        capacity(Share(cpus=1, gpus=0.5), private=True)
    with pytest.raises(ResourceError, match="requests 3 CPU and this machine has 2; lower --cpus-per-trial"):
        capacity(Share(cpus=3, gpus=0), private=True)
    assert capacity(Share(cpus=1, gpus=0.5), private=False) == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError("AF_UNIX path length cannot exceed 107 bytes"), NotADirectoryError(20, "Not a directory"),
        PermissionError(13, "Permission denied"), RuntimeError("out of\nports"), KeyError("raylet"),
        AssertionError(), ray.exceptions.RaySystemError("x"), Exception("timed out while waiting"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("address", [None, RayAddress("10.0.0.1:6379", "address in search.yaml")], ids=["own", "other"])
def test_whatever_ray_raises_when_it_starts_is_one_sentence(
    error: Exception, address: RayAddress | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {}

    def init(**given: Any) -> None:
        options.update(given)
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(cluster, "usable_cores", lambda: 3)
    before = dict(os.environ)
    with pytest.raises(ResourceError) as caught, connected(address, print):
        pass
    told = str(caught.value)
    assert "\n" not in told and (" ".join(str(error).split())[:200] or "AssertionError") in told
    if address:
        assert told.startswith("address in search.yaml must name a running Ray cluster, '10.0.0.1:6379' is none: ")
        assert "num_cpus" not in options  # a cluster counts its own
    else:
        assert told.startswith("a search needs Ray, and Ray did not start: ")
        assert options["num_cpus"] == 3 and os.environ.get("RAY_TMPDIR") == before.get("RAY_TMPDIR")


@pytest.mark.parametrize(("errno", "text"), [(13, "Permission denied"), (28, "No space left on device")])
def test_a_place_that_cannot_be_written_is_refused_with_the_cause(
    errno: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(LocalFileSystem):  # type: ignore[misc]
        def open_output_stream(self, path: str) -> Any:
            raise OSError(errno, text)

    monkeypatch.setattr(cluster, "LocalFileSystem", Full)
    with pytest.raises(SettingError, match=text):
        check_writable(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_be_written_keeps_nothing(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "not yet" / "there"))
    assert list(tmp_path.iterdir()) == []


def test_workers_look_for_modules_where_the_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray adds the working directory: a file ``trainables.py`` there ended every trial of ``python search.py``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/code", "/library"])
    folders = cluster._job()._py_driver_sys_path
    folders.extend(["/code", str(tmp_path)])
    assert folders == ["/code"]
    monkeypatch.setattr(sys, "path", ["", "/library"])  # `python -m`, a notebook
    folders.extend([str(tmp_path)])
    assert folders == ["/code", str(tmp_path)]


def test_gpus_are_used_by_default_where_trials_can_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    assert cluster.has_gpus(private=False) and not cluster.has_gpus(private=True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    assert not cluster.has_gpus(private=False)


def test_a_private_ray_starts_without_idle_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.services, "start_ray_process", lambda command, *_, **__: pytest.fail(str(command)))
    node: Any = object()
    original = cluster.services.start_api_server, cluster.Node.start_log_monitor, cluster.Node.start_monitor
    with cluster._of_our_own():
        assert cluster.services.start_api_server(False, False, "127.0.0.1") == ("", None)
        cluster.Node.start_log_monitor(node)
        cluster.Node.start_monitor(node)
    assert (cluster.services.start_api_server, cluster.Node.start_log_monitor, cluster.Node.start_monitor) == original
