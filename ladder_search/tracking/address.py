"""Tracking addresses: what a store may be called, whether it answers, and how to look at it. Imports no MLflow.

A search checks its address here before it starts, within seconds, because MLflow itself would first retry for minutes.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ladder_search.errors import StoreBusyError, TrackingError, command_line, installation
from ladder_search.tracking.sqlite_store import BUSY_PATIENCE_S, artifact_root, read_tables

_STARTING = ("starting up", "recovery mode", "not yet accepting connections")
"""What PostgreSQL says while it starts, and while it repairs itself after a crash."""
DATABASES = ("postgresql", "mysql", "mssql")
"""Database servers that MLflow speaks to."""


def default_store(root: Path) -> str:
    """Return the address of the SQLite store in the folder ``root``, absolute because trials change their directory."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def normal_store(store: str) -> str:
    """Return the address in the form that all parts use (SQLite paths absolute, no slash at the end).

    Raises ``TrackingError`` for an address of a kind that cannot be used.
    """
    scheme, separator, rest = store.strip().partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or kind == "file":
        shown = redacted(store)
        plain = shown.removeprefix("file:").removeprefix("//") or "mlflow"
        raise TrackingError(
            f"a tracking store is a database or a server, {shown!r} is a plain folder, which MLflow no longer takes: "
            f"use sqlite:///{Path(plain).absolute() / 'mlflow.db'}."
        )
    if kind == "sqlite":
        path = rest.removeprefix("/")
        if not path or "?" in path or "%" in path or path == ":memory:":
            raise TrackingError(
                f"a SQLite store is a file whose path has no '?' and no '%', {store!r} is not: use sqlite:////folder/mlflow.db."
            )
        return f"sqlite:///{Path(path).absolute()}"
    try:
        parts = urlsplit(store.strip())
        names_host = bool(parts.hostname) and parts.port != 0  # reading a port that is no number raises
    except ValueError:
        names_host = False
    if kind not in (*DATABASES, "http", "https") or not names_host:
        raise TrackingError(
            "a tracking address starts with sqlite:///, http://, https://, postgresql://, mysql:// or mssql:// and "
            f"names a host, {redacted(store)!r} does not: use http://127.0.0.1:5000 or sqlite:////folder/mlflow.db."
        )
    return store.strip().rstrip("/")


def redacted(text: str) -> str:
    """Return an address, or a text with addresses, without the passwords that may be in it."""
    text = re.sub(r"(?:(?<=://)|^)([^/@:\s]*):(?!//)\S*@", r"\1:***@", text)
    return re.sub(r"(?i)(passw(?:or)?d=)[^&\s]+", r"\1***", text)


def without_password(store: str) -> tuple[str, str]:
    """Return an address as it may be printed in a command, and how to give the password that was in it, else "".

    ``postgresql://ann:secret@db/runs`` becomes ``postgresql://ann@db/runs`` and "set PGPASSWORD or write ~/.pgpass".
    """
    bare = re.sub(r"(?<=://)([^/@:\s]*):(?!//)\S*@", r"\1@", store)
    bare = re.sub(r"(?i)([?&])passw(?:or)?d=[^&\s]*&?", r"\1", bare).rstrip("?&")
    if bare == store:
        return store, ""
    if bare.lower().startswith("http"):  # its user goes with its password
        bare = re.sub(r"(?<=://)[^/@\s]*@", "", bare)
        return bare, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if bare.lower().startswith("postgres"):
        return bare, "set PGPASSWORD or write ~/.pgpass"
    return bare, "write it into the address, as in USER:PASSWORD@HOST"


def sqlite_path(store: str) -> Path | None:
    """Return the database file of a SQLite address, None for any other."""
    return Path(store.removeprefix("sqlite:///")) if store.startswith("sqlite:") else None


def is_loopback(store: str) -> bool:
    """Whether the address is that of a server on this machine."""
    host = urlsplit(store).hostname or ""
    return store.startswith(("http://", "https://")) and (host in ("localhost", "::1") or host.startswith("127."))


def check(store: str, timeout_s: float = 5.0) -> None:
    """Raise ``TrackingError``, one sentence with the remedy, unless the store can be used; ask it for ``timeout_s``."""
    store = normal_store(store)
    path = sqlite_path(store)
    if path is not None:
        check_sqlite(path)
    elif store.startswith(("http://", "https://")):
        _check_server(store, timeout_s)
    else:
        _check_database(store, timeout_s)


def check_or_wait(store: str) -> str | None:
    """Check a store as ``check`` does; return a sentence where it is only busy: what is recorded waits in the spool."""
    try:
        check(store)
    except StoreBusyError as error:
        return f"{error} What is recorded meanwhile is kept in the spool and sent when the store is free."
    return None


def ui_command(store: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """Return the command that serves MLflow's pages for ``store``, artifacts included; run it with ``ui_environment``.

    One worker, because the pages of one person need no more and each costs 250 MB. Experiments created by a search have
    ``file://`` artifacts, which the server reads itself; runs logged through this server put theirs in the same folder.
    Raises ``TrackingError`` for the address of a server, which has its pages already.
    """
    store = normal_store(store)
    if store.startswith(("http://", "https://")):
        raise TrackingError(f"{redacted(store)} is a server and shows its runs itself: open that address in a browser.")
    command = [sys.executable, "-m", "mlflow", "server"]
    path = sqlite_path(store)
    if path is not None:
        command += ["--artifacts-destination", artifact_root(path.parent).as_uri()]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment(store: str) -> dict[str, str]:
    """Return what ``ui_command`` needs in its environment.

    The address, because every user can read a command line and it may hold a password. No job runner, a second process
    of 230 MB that only MLflow's GenAI pages use.
    """
    return {
        "MLFLOW_BACKEND_STORE_URI": normal_store(store),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def check_sqlite(path: Path, patience_s: float = BUSY_PATIENCE_S) -> None:
    """Raise ``TrackingError`` unless ``path`` is MLflow's database of this version, or can become one.

    Raises:
        StoreBusyError: another process has had it locked for ``patience_s`` seconds.
    """
    _check_schema(f"sqlite:///{path}", *read_tables(path, patience_s))


def _check_schema(store: str, tables: Collection[str], found: str | None) -> None:
    """Raise ``TrackingError`` when a database is another program's, or another MLflow's."""
    shown = redacted(store)
    if tables and "alembic_version" not in tables:
        raise TrackingError(f"the tracking store must be MLflow's, {shown} holds something else: name another.")
    head = _schema_version()
    if head is not None and found is not None and found != head:
        bare, give_password = without_password(store)
        upgrade = command_line("mlflow", "db", "upgrade", bare)
        raise TrackingError(
            f"store and MLflow must have the same schema, {shown} has {found} and this MLflow {head}: stop all that "
            f"use the store, copy it, then {f'{give_password} and ' if give_password else ''}run `{upgrade}`."
        )


def _schema_version() -> str | None:
    """Return the newest schema of the installed MLflow, read from its migration files; None when they are unclear."""
    found = importlib.util.find_spec("mlflow")
    if found is None or not found.submodule_search_locations:
        raise TrackingError(f"tracking needs MLflow, which is not installed here: run `{installation()}`.")
    versions = Path(found.submodule_search_locations[0]) / "store" / "db_migrations" / "versions"
    ids: set[str] = set()
    parents: set[str] = set()
    for file in versions.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        ids.update(re.findall(r"^revision = [\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision = (.*)$", text, re.MULTILINE):
            parents.update(re.findall(r"[\"'](\w+)", line))
    heads = ids - parents
    return heads.pop() if len(heads) == 1 else None


def _check_server(store: str, timeout_s: float) -> None:
    shown = redacted(store)
    try:
        status, body = _get(f"{store}/api/2.0/mlflow/experiments/search?max_results=1", timeout_s)
    except TimeoutError:
        raise TrackingError(
            f"a tracking server answers within {timeout_s:g} s, {shown} did not: check host, port and firewall."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {timeout_s:g} s"
        raise TrackingError(
            f"a tracking server must be reachable, {shown} is not ({reason}): start it, or check host and port."
        ) from None
    if status == 403 and b"Host" in body:
        raise TrackingError(
            f"the server must accept the name it is called by, {shown} answered 403 'Invalid Host header': "
            f"restart it with --allowed-hosts {urlsplit(store).netloc.rpartition('@')[2]}, or use its IP address."
        )
    if status in (401, 403):
        raise TrackingError(
            f"the server must know the user, {shown} answered {status}: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if status >= 500:
        raise TrackingError(f"the tracking server must work, {shown} answered {status}: look at its log.")
    try:
        is_mlflow = status == 200 and isinstance(json.loads(body), dict)
    except ValueError:
        is_mlflow = False
    if not is_mlflow:
        raise TrackingError(
            f"the address must be that of an MLflow server, {shown} answered {status} and not in its manner: check it."
        )


def _get(url: str, timeout_s: float) -> tuple[int, bytes]:
    """Return status and the start of the body, with the credentials that MLflow's own client would use."""
    parts = urlsplit(url)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    context = None
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        context = ssl._create_unverified_context()
    elif certificate := os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
        context = ssl.create_default_context(cafile=certificate)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s, context=context) as answer:
            return answer.status, answer.read(1 << 16)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(1 << 16)


def _check_database(store: str, timeout_s: float) -> None:
    import sqlalchemy  # half a second that other stores need not spend

    shown, url = redacted(store), sqlalchemy.make_url(store)
    try:
        url.get_dialect().import_dbapi()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise TrackingError(
            f"a database store needs its Python driver, {shown} finds none ({error}): install it, or use a server."
        ) from None
    limit = "login_timeout" if url.get_backend_name() == "mssql" else "connect_timeout"
    engine = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.NullPool, connect_args={limit: max(1, round(timeout_s))}
    )
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            version = "SELECT version_num FROM alembic_version"
            found = connection.execute(sqlalchemy.text(version)).scalar() if "alembic_version" in tables else None
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(redacted(str(getattr(error, "orig", None) or error)).split())
        if any(words in reason for words in _STARTING):
            raise StoreBusyError(f"the database must be ready, {shown} is not yet ({reason}): wait.") from None
        raise TrackingError(
            f"the database must be reachable and let us in, {shown} does not ({reason}): start it, or check host, "
            "port, user, password and database."
        ) from None
    _check_schema(store, tables, found)
