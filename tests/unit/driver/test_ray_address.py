"""Addresses of Ray clusters: what is refused by its form, what by what answers there, and in which words."""

from __future__ import annotations

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from ladder_search.commands.search import parse_arguments
from ladder_search.driver import ray_address
from ladder_search.driver.ray_address import RayAddress, check, find_address
from ladder_search.errors import ResourceError
from ladder_search.record.folder import StudyFolder
from ladder_search.training.request import Request


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_USE_TLS", "LADDER_SEARCH_OPTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("option", "variable", "value", "source"),
    [
        (None, None, None, None),
        (None, "", None, None),
        (None, "local", None, None),
        ("local", "10.0.0.1:6379", None, None),
        ("auto", None, "auto", "--address"),
        ("head:6379", "10.0.0.1:6379", "head:6379", "--address"),
        ("[::1]:6379", None, "[::1]:6379", "--address"),
        (None, "10.0.0.1:6379", "10.0.0.1:6379", "the variable RAY_ADDRESS"),
        ("auto", "10.0.0.1:6379", "10.0.0.1:6379", "the variable RAY_ADDRESS"),  # Ray's own rule
    ],
)
def test_the_option_decides_and_then_the_variable(
    option: str | None, variable: str | None, value: str | None, source: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    address = find_address(option)
    assert (address and address.value, address and address.source) == (value, source)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ray://127.0.0.1:10001", "host:port of a Ray cluster, as `ray start` prints it, or auto, got 'ray://"),
        ("http://127.0.0.1:8265", "not through a client or a dashboard; start it there with `ray submit`"),
        ("localhost", "must be host:port with a port from 1 to 65535"),
        ("127.0.0.1:", "must be host:port"),
        (":6379", "must be host:port"),
        ("127.0.0.1:0", "must be host:port"),
        ("127.0.0.1:99999", "must be host:port"),
        ("127.0.0.1:many", "must be host:port"),
    ],
)
def test_another_form_is_refused_where_it_comes_from(
    address: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(ResourceError, match=re.escape(says)) as caught:
            parse_arguments(["digits-100", *arguments])
        return str(caught.value)

    file = tmp_path / "search.yaml"
    file.write_text(f"address: '{address}'\n", encoding="utf-8")
    assert refused("--address", address).startswith("--address must")
    assert refused("--config", str(file)).startswith(f"address in {file} must")
    monkeypatch.setenv("LADDER_SEARCH_OPTIONS", f"--address {address}")
    assert refused().startswith("--address in LADDER_SEARCH_OPTIONS must")
    assert refused("--address", address).startswith("--address must")
    monkeypatch.delenv("LADDER_SEARCH_OPTIONS")
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refused().startswith("the variable RAY_ADDRESS must")


def test_the_address_of_a_search_that_is_resumed(tmp_path: Path) -> None:
    settings = {"study": "digits-100", "address": "gone:6379"}
    StudyFolder(tmp_path / "first").create({"settings": settings, "store": "sqlite:///x"})
    line = ["--resume", "--name", "first", "--root", str(tmp_path)]
    resumed = parse_arguments([*line, "--gpus-per-trial", "auto"])
    for settings_of_search in (resumed, resumed.resolved(Request(), has_gpus=True)):
        assert settings_of_search.address_from == "address in the study.json of first"
    again = parse_arguments([*line, "--address", "local"])
    assert find_address(again.address, again.address_from) is None


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dashboard() -> Iterator[str]:
    """A port that speaks HTTP/1."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def other_grpc() -> Iterator[str]:
    """A port that begins as a gRPC server does, and is no cluster."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            while connection.recv(4096):
                pass

    def serve(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))  # Ray calls the loopback by the name of the node
        server.listen()
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _refused(address: str) -> str:
    begun = time.monotonic()
    with pytest.raises(ResourceError) as caught:
        check(RayAddress(address, "--address"))
    assert time.monotonic() - begun < 10
    assert not ray.is_initialized()
    told = str(caught.value)
    assert told.startswith(f"--address must name a running Ray cluster, {address!r} is none: ")
    remedy = "start one with `ray start --head`, name another, or use --address local for a private Ray of this search."
    assert re.sub(r"`\S*ray start", "`ray start", told).endswith(remedy)
    return told


def test_a_closed_port_and_one_that_is_no_cluster(silent: str, dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("no process is needed to refuse these")

    monkeypatch.setattr(ray_address.subprocess, "run", never)
    monkeypatch.setattr(ray_address, "_CONNECT_SECONDS", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "Connection refused" in _refused(f"127.0.0.1:{closed.getsockname()[1]}")
    assert "there was no answer within 1 s" in _refused(silent)
    assert "does not speak gRPC" in _refused(dashboard)
    assert "Name or service not known" in _refused("no-such-host.invalid:6379")


def test_a_server_that_is_no_cluster_is_given_up(other_grpc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_JOIN_SECONDS", 1)
    assert "it has not accepted a driver within 1 s" in _refused(other_grpc)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('noise'); print('RuntimeError: wrong version'); raise SystemExit(1)", "RuntimeError: wrong version"),
        ("import os; os._exit(7)", "joining it ended with exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "joining it ended with exit code -6"),
    ],
)  # fmt: skip
def test_the_reason_is_that_of_ray(program: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_JOIN", program)
    assert says in _refused("auto")


def test_what_can_be_joined_is_not_refused(other_grpc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_JOIN", "")
    check(RayAddress(other_grpc, "--address"))
