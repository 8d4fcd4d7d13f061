"""Store of runs in MLflow. Importing it imports MLflow (about a second), so only writers and ``sync`` do.

It uses ``MlflowClient`` with run ids throughout, because the fluent API has a global active run.
"""

from __future__ import annotations

import errno
import getpass
import json
import logging
import os
import re
import secrets
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ladder_search import environment

with warnings.catch_warnings(), environment.ours():  # MLflow reads some variables on import
    warnings.simplefilter("ignore")
    import requests
    from mlflow.entities import Dataset, Experiment, InputTag, Metric, Param, Run, RunTag, ViewType
    from mlflow.entities import DatasetInput as MlflowDatasetInput
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.tracking import MlflowClient

from ladder_search.disk.files import copy_content, sync_file
from ladder_search.errors import TrackingError
from ladder_search.tracking.address import check_sqlite, is_loopback, normal_store, redacted, sqlite_path
from ladder_search.tracking.first_call import causes
from ladder_search.tracking.limits import safe_value
from ladder_search.tracking.protocol import Batch, DatasetInput, RejectedError, RunStatus, UnavailableError
from ladder_search.tracking.sqlite_store import artifact_root, move_artifacts

_NO_MODES = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of setting a copy's mode or time, as MLflow does, on some mounts of SMB, exFAT and FUSE."""
_FAILED_REQUESTS = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)
"""Errors of requests; RetryError replaces an answer with 429 or 500 to 504, whose body MLflow's client discards."""
_UNAVAILABLE = "too many 503 error responses"
KEY, SPOOL = "ladder.key", "ladder.spool"
"""Tags that make creating a run idempotent; the second separates two searches of one name in one store."""
_DATASET_NAME = 500
"""Characters of a data set's name that MLflow allows; names of files contain their path and settings."""
INTERRUPTED = "ladder.interrupted"
REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
"""MLflow's codes for permanent refusals; all others are retried."""


def open_store(store: str, experiment: str, spool: Path, spool_id: str) -> MlflowStore:
    """Open a store for the runs of one spool; create database and experiment if needed. Raises ``TrackingError``."""
    return MlflowStore(normal_store(store), experiment, spool, spool_id)


_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages open on runs and charts instead of those for language models."""


class MlflowStore:
    """Runs of one spool in one experiment of an MLflow store; implements ``RunStore``."""

    def __init__(self, store: str, experiment: str, spool: Path, spool_id: str) -> None:
        self._address = redacted(store)
        self._name, self._spool = experiment, spool_id
        path = sqlite_path(store)
        # A server defines the location of artifacts; a database does not. It must be a URI, because a '#' in a path is
        # ambiguous.
        root = path.parent if path is not None else spool.absolute().parents[1]
        self._elsewhere = path is None and not is_loopback(store)
        self._artifacts: Path | None = None
        self._location = None if store.startswith(("http://", "https://")) else artifact_root(root).as_uri()
        with self._calls():
            for name in ("mlflow", "alembic", "sqlalchemy"):  # they print migrations; errors are raised as exceptions
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if path is not None:
                check_sqlite(path)  # MLflow would retry to open an invalid file for two minutes
                if not path.exists():
                    _create_database(path)
                move_artifacts(path)
            self.client = MlflowClient(store, registry_uri=store)
            self.experiment_id = self._experiment()

    def create_run_once(self, key: str, *, name: str, parent_id: str | None, time_ms: int) -> str:
        with self._calls():
            existing = self._find(key)
            if existing is not None:
                if existing.info.status != "RUNNING":
                    self.client.update_run(existing.info.run_id, status="RUNNING")
                if existing.data.tags.get(INTERRUPTED) == "true":
                    self.client.set_tag(existing.info.run_id, INTERRUPTED, "false")
                return str(existing.info.run_id)
            tags = {KEY: key, SPOOL: self._spool, "mlflow.user": _user()}
            tags |= {"mlflow.source.name": "search.py", "mlflow.source.type": "LOCAL"}
            if parent_id is not None:
                tags["mlflow.parentRunId"] = parent_id
            run = self.client.create_run(self.experiment_id, start_time=time_ms, tags=tags, run_name=name)
            return str(run.info.run_id)

    def find_run(self, key: str) -> str | None:
        with self._calls():
            run = self._find(key)
            return None if run is None else str(run.info.run_id)

    def still_has(self, run_id: str) -> bool:
        with self._calls():
            self.experiment_id = self._experiment()
        try:
            with self._calls():
                self.client.get_run(run_id)
        except RejectedError:
            return False
        return True

    def log_batch(self, run_id: str, batch: Batch) -> None:
        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in batch.points]
        with self._calls():
            self.client.log_batch(
                run_id, metrics, [Param(*item) for item in batch.params], [RunTag(*item) for item in batch.tags]
            )

    def log_dataset(self, run_id: str, dataset: DatasetInput) -> None:
        """Log the name and the first 32 digits of the digest (MLflow allows 36); the tag ``data.sha256`` has all 64."""
        entity = Dataset(
            name=dataset.name[:_DATASET_NAME],
            digest=dataset.digest[:32],
            source_type="local",
            source=json.dumps({"sha256": dataset.digest}),
            profile=json.dumps(dict(dataset.rows)),
        )
        with self._calls():
            self.client.log_inputs(run_id, [MlflowDatasetInput(entity, [InputTag("mlflow.data.context", "training")])])

    def log_artifact(self, run_id: str, path: Path, folder: str) -> None:
        """Raise ``RejectedError`` for permanent errors: a missing library, no permission, no such bucket."""
        # MLflow would create the folder here and store files that the server cannot find. Only the folder of a new
        # experiment may be missing.
        if self._elsewhere and self._artifacts is not None and not self._artifacts.parent.is_dir():
            raise RejectedError(
                f"the artifacts of {self._address} are in the folder {self._artifacts}, which this machine does not "
                "have: share the folder, or start the server with --serve-artifacts."
            )
        with self._calls():
            try:
                self.client.log_artifact(run_id, str(path), folder or None)
            except Exception as error:
                if _is_outage(error):
                    raise
                if not (getattr(error, "errno", None) in _NO_MODES and self._copy(run_id, path, folder)):
                    raise RejectedError(f"{self._address} did not accept a file: {_brief(error)}") from error

    def _copy(self, run_id: str, path: Path, folder: str) -> bool:
        """Copy a file or folder to the run's artifacts; return False if they are not in a folder."""
        place = urlsplit(str(self.client.get_run(run_id).info.artifact_uri))
        if place.scheme not in ("", "file"):
            return False
        target = Path(unquote(place.path)) / folder
        target.mkdir(parents=True, exist_ok=True)
        copy_content(path, target / path.name)
        return True

    def set_terminated(self, run_id: str, status: RunStatus, time_ms: int) -> None:
        with self._calls():
            self.client.set_terminated(run_id, status, time_ms)

    def close_stale_runs(self, prefix: str, live: Collection[str], time_ms: int) -> int:
        keep = set(live)

        def close(run: Run) -> None:
            self.client.set_tag(run.info.run_id, INTERRUPTED, "true")
            self.client.set_terminated(run.info.run_id, "FAILED", time_ms)

        with self._calls():
            running = list(self._search(f"attributes.status = 'RUNNING' and tags.`{KEY}` LIKE '{prefix}%'"))
        keys = [(run, run.data.tags.get(KEY, "")) for run in running]
        return self._each(close, (run for run, key in keys if key.startswith(prefix) and key not in keep))

    def drop_twins(self, runs: Mapping[str, str]) -> None:
        with self._calls():
            running = list(self._search("attributes.status = 'RUNNING'"))
        twins = (run for run in running if runs.get(run.data.tags.get(KEY, ""), run.info.run_id) != run.info.run_id)
        self._each(lambda run: self.client.delete_run(run.info.run_id), twins)

    def _each(self, change: Callable[[Run], None], runs: Iterable[Run]) -> int:
        """Change runs and return their number; runs that another process deleted are skipped."""
        changed = 0
        for run in runs:
            with suppress(RejectedError), self._calls():
                change(run)
                changed += 1
        return changed

    def _experiment(self) -> str:
        """Return the experiment's id; create or restore the experiment if needed."""
        name = self._name
        experiment: Experiment | None = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                self.client.create_experiment(name, artifact_location=self._location, tags=_KIND)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # otherwise another search created it first
                    raise
            experiment = self.client.get_experiment_by_name(name)
            assert experiment is not None
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        location = urlsplit(str(experiment.artifact_location))
        self._artifacts = Path(unquote(location.path)) if location.scheme in ("", "file") else None
        return str(experiment.experiment_id)

    def _find(self, key: str) -> Run | None:
        """Return the run of ``key``; of duplicates, always the same one, preferably with metrics."""
        runs = self._search(f"tags.`{KEY}` = '{key}'")
        return min(runs, key=lambda run: (not run.data.metrics, run.info.run_id), default=None)

    def _search(self, query: str) -> Iterator[Run]:
        query, token = f"tags.`{SPOOL}` = '{self._spool}' and {query}", None
        while True:
            page = self.client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY, 1000, None, token)
            yield from page
            token = page.token
            if not token:
                return

    @contextmanager
    def _calls(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings(), environment.ours():  # and others at each call
                warnings.simplefilter("ignore")
                yield
        except TrackingError:
            raise
        except MlflowException as error:
            refused = error.error_code in REFUSALS
            # MLflow's code for a database that is full, locked or unreachable. A server sends it as a 503, whose body
            # MLflow's client discards.
            unavailable = error.error_code == "TEMPORARILY_UNAVAILABLE" or _UNAVAILABLE in str(error.message)
            if not isinstance(error, RestException) and str(error.message).startswith("API request to endpoint"):
                refused = False  # an answer of a proxy or login page, not of MLflow
            if (cause := _connection_error(error)) is not None:
                raise TrackingError(f"{self._address} cannot be reached: {_brief(cause)}") from error
            kind = RejectedError if refused else UnavailableError if unavailable else TrackingError
            raise kind(f"{self._address} answered: {_brief(error.message)}") from error
        except Exception as error:
            invalid = isinstance(error, (ValueError, TypeError)) and not isinstance(error, OSError)
            raise (RejectedError if invalid else TrackingError)(f"{self._address} failed: {_brief(error)}") from error


def _create_database(path: Path) -> None:
    """Create MLflow's tables in a temporary file and move it into place, so that a kill leaves no incomplete store.

    Each of MLflow's 60-odd migrations makes SQLite wait for the disk: 6 to 7 s on a busy disk of a 2-core machine.
    Waiting once at the end takes 1 to 2 s.
    """
    import sqlalchemy
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    def do_not_wait(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        draft.touch(exist_ok=False)  # SQLite itself would remove group permissions that the umask allows
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", do_not_wait)
        try:
            tables = SqlAlchemyStore(f"sqlite:///{draft}", artifact_root(path.parent).as_uri())  # type: ignore[no-untyped-call]
            tables.engine.dispose()
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "connect", do_not_wait)
        with draft.open("rb") as file:
            sync_file(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, it does not replace the store of a concurrent search
        except FileExistsError:
            pass
        except OSError:  # the file system has no hard links
            if not path.exists():
                draft.rename(path)
    finally:
        with suppress(OSError):
            draft.unlink()


def _is_outage(failure: BaseException) -> bool:
    """Whether a server was unreachable or overloaded, so that the file may be accepted later."""
    for error in takewhile(lambda one: not isinstance(one, TrackingError), causes(failure)):  # of an earlier call
        if isinstance(error, MlflowException):
            status = re.search(r"^API request to endpoint .* failed with error code (\d+)", str(error.message))
            if status is not None:
                return status[1] == "429" or status[1].startswith("5")
            if error.error_code in ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
                return True
            if isinstance(error, RestException):
                return bool(error.error_code == "INTERNAL_ERROR")
        if isinstance(error, requests.HTTPError) and error.response is not None:
            return error.response.status_code == 429 or error.response.status_code >= 500
        if isinstance(error, (ConnectionError, TimeoutError, *_FAILED_REQUESTS)):
            return True
    return False


def _connection_error(error: BaseException) -> OSError | None:
    """Return the operating system's error of a connection, which MLflow and requests wrap five times."""
    system = (one for one in causes(error) if isinstance(one, OSError))
    return next((one for one in system if one.errno is not None or isinstance(one, TimeoutError)), None)


def _user() -> str:
    try:
        return safe_value(getpass.getuser(), 250)  # the store would refuse a name in an old encoding
    except (OSError, KeyError):  # a container without a user name
        return "unknown"


def _brief(error: object) -> str:
    text = " ".join(redacted(str(error)).split())
    return text if len(text) <= 300 else text[:300] + " …"
