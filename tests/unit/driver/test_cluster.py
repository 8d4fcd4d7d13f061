"""What a cluster has room for, and addresses at which there is none."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from pyarrow.fs import LocalFileSystem

from ladder_search.driver import cluster
from ladder_search.driver.cluster import Share, capacity, check_writable, connected
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
    with pytest.raises(ResourceError, match="asks for 0.5 GPU and this machine has 0; lower --gpus-per-trial or join"):
        capacity(Share(cpus=1, gpus=0.5), private=True)
    with pytest.raises(ResourceError, match="asks for 3 CPU and this machine has 2; lower --cpus-per-trial"):
        capacity(Share(cpus=3, gpus=0), private=True)
    assert capacity(Share(cpus=1, gpus=0.5), private=False) == 0


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


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:many", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_told_at_once(address: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.monotonic()
    with (
        pytest.raises(
            ResourceError, match=r"--address must name a running Ray cluster, .* is none: .*ray start --head"
        ),
        connected(address.format(port=port)),
    ):
        pass
    assert time.monotonic() - begun < 6
    assert not ray.is_initialized()
