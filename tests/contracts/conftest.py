"""An empty SQLite store, a real MLflow server, and a bad line to it."""

from __future__ import annotations

import http.client
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.servers import MlflowServer, mlflow_server
from ladder_search.tracking.address import default_store
from ladder_search.tracking.mlflow_store import open_store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once."""
    root = tmp_path_factory.mktemp("empty")
    open_store(default_store(root), "unused", root / "a" / "spool", "")
    return root / "mlflow.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Iterator[MlflowServer]:
    """A real MLflow server as ``ladder-search ui`` starts it."""
    root = tmp_path_factory.mktemp("server")
    shutil.copy(empty, root / "mlflow.db")
    with mlflow_server(default_store(root), root) as running:
        yield running


FAULTS = ("500", "503", "login page", "reset", "late", "no answer", "answer lost", "answer cut", "done too late")


class BadLine:
    """Stands between a client and an MLflow server: every third request meets a fault, each kind in turn."""

    def __init__(self, server: MlflowServer) -> None:
        self.faults: Sequence[str] = FAULTS
        self.met: Counter[str] = Counter()
        self._requests, self._lock = 0, threading.Lock()
        line = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = line.next_fault()
                if fault in ("500", "503"):
                    return self.answer(int(fault), b'{"error_code": "INTERNAL_ERROR", "message": "trouble"}')
                if fault == "login page":
                    return self.answer(200, b"<html>Please log in</html>")
                if fault == "reset":
                    return self.reset()
                if fault in ("no answer", "done too late"):
                    time.sleep(3.0)  # longer than the client of these tests waits, and time to try again
                if fault == "no answer":
                    return self.reset()
                upstream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                try:
                    upstream.request(self.command, self.path, body, dict(self.headers))
                    found = upstream.getresponse()
                    content = found.read()
                except OSError:
                    return self.reset()
                finally:
                    upstream.close()
                if fault in ("answer lost", "done too late"):  # done, and the client cannot know
                    return self.reset()
                if fault == "late":
                    time.sleep(0.5)
                self.answer(found.status, content, cut=fault == "answer cut")

            do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

            def answer(self, status: int, content: bytes, cut: bool = False) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                except OSError:
                    return  # the client has given up
                if cut:
                    self.reset()

            def reset(self) -> None:
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

            def finish(self) -> None:
                with suppress(OSError):  # reset
                    super().finish()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # closing waits for what is under way
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def next_fault(self) -> str | None:
        with self._lock:
            self._requests += 1
            if not self.faults or self._requests % 3:
                return None
            fault = self.faults[self.met.total() % len(self.faults)]
            self.met[fault] += 1
            return fault

    def close(self) -> None:
        self.faults = ()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def bad_line(server: MlflowServer) -> Iterator[BadLine]:
    line = BadLine(server)
    yield line
    line.close()
