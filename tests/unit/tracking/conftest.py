"""A store in memory and an MLflow server, both failing on schedule, and an empty SQLite store to copy."""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ladder_search.tracking.protocol import Batch, DatasetInput, RejectedError


class FakeRun:
    def __init__(self, run_id: str, key: str, name: str, parent_id: str | None) -> None:
        self.id, self.key, self.name, self.parent_id = run_id, key, name, parent_id
        self.status = "RUNNING"
        self.end_ms: int | None = None
        self.points: set[tuple[str, float, int, int]] = set()
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.datasets: set[str] = set()
        self.artifacts: dict[str, bytes] = {}


class FakeStore:
    """Satisfies ``RunStore`` in memory. ``failures`` are raised one per call; ``poison`` names are refused for good."""

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.calls: list[str] = []
        self.failures: deque[Exception | None] = deque()
        self.poison: set[str] = set()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.failures and (failure := self.failures.popleft()) is not None:
            raise failure

    def by_key(self, key: str) -> FakeRun:
        (run,) = (run for run in self.runs.values() if run.key == key)
        return run

    def create_run_once(self, key: str, *, name: str, parent_id: str | None, time_ms: int) -> str:
        self._call("create_run_once")
        for run in self.runs.values():
            if run.key == key:
                run.status = "RUNNING"
                return run.id
        run = FakeRun(f"id{len(self.runs)}", key, name, parent_id)
        self.runs[run.id] = run
        return run.id

    def find_run(self, key: str) -> str | None:
        self._call("find_run")
        return next((run.id for run in self.runs.values() if run.key == key), None)

    def still_has(self, run_id: str) -> bool:
        self._call("still_has")
        return run_id in self.runs

    def log_batch(self, run_id: str, batch: Batch) -> None:
        self._call("log_batch")
        assert len(batch) <= 1000 and len(batch.params) <= 100 and len(batch.tags) <= 100
        names = [p.name for p in batch.points] + [name for name, _ in (*batch.params, *batch.tags)]
        if self.poison.intersection(names):
            raise RejectedError(f"refused: {sorted(self.poison.intersection(names))}")
        run = self.runs[run_id]
        run.points.update((p.name, p.value, p.step, p.time_ms) for p in batch.points)
        run.params.update(batch.params)
        run.tags.update(batch.tags)

    def log_dataset(self, run_id: str, dataset: DatasetInput) -> None:
        self._call("log_dataset")
        self.runs[run_id].datasets.add(dataset.digest)

    def log_artifact(self, run_id: str, path: Path, folder: str) -> None:
        self._call("log_artifact")
        self.runs[run_id].artifacts[f"{folder}/{path.name}"] = path.read_bytes()

    def set_terminated(self, run_id: str, status: str, time_ms: int) -> None:
        self._call("set_terminated")
        self.runs[run_id].status, self.runs[run_id].end_ms = status, time_ms

    def close_stale_runs(self, prefix: str, live: Any, time_ms: int) -> int:
        self._call("close_stale_runs")
        stale = [
            r for r in self.runs.values() if r.status == "RUNNING" and r.key.startswith(prefix) and r.key not in live
        ]
        for run in stale:
            run.status = "FAILED"
        return len(stale)

    def drop_twins(self, runs: Any) -> None:
        self._call("drop_twins")


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: that takes a second or two."""
    from ladder_search.tracking.mlflow_store import open_store

    root = tmp_path_factory.mktemp("empty-store")
    open_store(f"sqlite:///{root}/mlflow.db", "unused", Path("results/a/spool"), "spool")
    return root / "mlflow.db"


@pytest.fixture
def sqlite_store(_empty_database: Path, tmp_path: Path) -> str:
    """Address of an empty SQLite store of the test's own."""
    shutil.copy(_empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


class FlakyMlflow:
    """The few answers of an MLflow server that a writer needs, and trouble on schedule.

    ``trouble`` holds one entry per request to come: None (be well), a status (answer so and do nothing), or the
    negative of a status (do what was asked, then answer so: the client cannot know). ``error_code`` is MLflow's
    code in the JSON of an error.
    """

    def __init__(self) -> None:
        self.trouble: deque[int | None] = deque()
        self.always: int | None = None
        self.error_code = "INTERNAL_ERROR"
        self.delay_s = 0.0
        self.requests: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                self._answer(query)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer({})

            def _answer(self, body: dict[str, Any]) -> None:
                threading.Event().wait(flaky.delay_s)
                status, answer = flaky.handle(urlsplit(self.path).path.removeprefix("/api/2.0/mlflow/"), body)
                data = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client has given up

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def handle(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.requests.append(path)
            trouble = self.trouble.popleft() if self.trouble else self.always
            if trouble is not None and trouble > 0:
                return trouble, {"error_code": self.error_code, "message": "trouble"}
            answer = getattr(self, path.replace("/", "_").replace("-", "_"))(body)
            if trouble is not None:
                return -trouble, {"error_code": "INTERNAL_ERROR", "message": "trouble after the deed"}
            return 200, answer

    def experiments_get_by_name(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"experiment": {"experiment_id": "1", "name": body["experiment_name"], "lifecycle_stage": "active"}}

    def experiments_search(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"experiments": []}

    def runs_create(self, body: dict[str, Any]) -> dict[str, Any]:
        run_id = uuid.uuid4().hex  # MLflow's client remembers the artifact address of each run id
        tags = {tag["key"]: tag["value"] for tag in body["tags"]}
        info = {
            "run_id": run_id,
            "run_uuid": run_id,
            "experiment_id": "1",
            "status": "RUNNING",
            "lifecycle_stage": "active",
        }
        info |= {"start_time": body["start_time"], "artifact_uri": "mlflow-artifacts:/x", "user_id": "me"}
        self.runs[run_id] = {"info": info, "tags": tags, "metrics": [], "params": {}}
        return {"run": self._run(run_id)}

    def runs_search(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = dict(re.findall(r"(?:tags\.|attributes\.)`?([\w.]+)`? = '([^']*)'", body["filter"]))
        found = [
            run_id
            for run_id, run in self.runs.items()
            if run["info"]["lifecycle_stage"] == "active"
            and all({**run["tags"], **run["info"]}.get(name) == value for name, value in wanted.items())
        ]
        return {"runs": [self._run(run_id) for run_id in found]}

    def runs_get(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"run": self._run(body["run_id"])}

    def runs_log_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[body["run_id"]]
        for point in body.get("metrics", ()):
            row = (point["key"], point["timestamp"], point["step"], point["value"])
            if row not in run["metrics"]:
                run["metrics"].append(row)
        run["params"] |= {param["key"]: param["value"] for param in body.get("params", ())}
        run["tags"] |= {tag["key"]: tag["value"] for tag in body.get("tags", ())}
        return {}

    def runs_set_tag(self, body: dict[str, Any]) -> dict[str, Any]:
        self.runs[body["run_id"]]["tags"][body["key"]] = body["value"]
        return {}

    def runs_update(self, body: dict[str, Any]) -> dict[str, Any]:
        self.runs[body["run_id"]]["info"] |= {k: body[k] for k in ("status", "end_time") if k in body}
        return {"run_info": self.runs[body["run_id"]]["info"]}

    def runs_delete(self, body: dict[str, Any]) -> dict[str, Any]:
        self.runs[body["run_id"]]["info"]["lifecycle_stage"] = "deleted"
        return {}

    def _run(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        tags = [{"key": key, "value": value} for key, value in run["tags"].items()]
        return {"info": run["info"], "data": {"tags": tags}}

    def active(self) -> list[dict[str, Any]]:
        return [run for run in self.runs.values() if run["info"]["lifecycle_stage"] == "active"]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@pytest.fixture
def flaky() -> Iterator[FlakyMlflow]:
    server = FlakyMlflow()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Clock:
    """Time that passes only when someone sleeps."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds
        self.on_sleep()
