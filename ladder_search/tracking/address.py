"""Addresses of tracking stores: forms, checks, and the command that serves their pages. Does not import MLflow.

A search checks its address within seconds before it starts, because MLflow would retry for minutes. Servers and
databases are called by MLflow's client in a separate process (``first_call``).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import ladder_search
from ladder_search import environment
from ladder_search.errors import StoreBusyError, TrackingError, command_line, installation
from ladder_search.paths import expanded_address
from ladder_search.tracking.first_call import Answer
from ladder_search.tracking.sqlite_store import BUSY_PATIENCE_S, artifact_root, read_tables

_STARTING = ("starting up", "recovery mode", "not yet accepting connections")
"""Messages of PostgreSQL while it starts or recovers from a crash."""
DATABASES = ("postgresql", "mysql", "mssql")
VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's variable, the default of ``--tracking``."""


_LONGEST_SQLITE = 480
"""SQLite allows 512 characters, including the suffixes of temporary and journal files."""


def default_store(root: Path) -> str:
    """Return the address of the SQLite store in ``root``, absolute because trials change their directory."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def variable_store() -> str | None:
    """Return the address in ``MLFLOW_TRACKING_URI``, or None; raise ``TrackingError`` if it is not supported."""
    named = os.environ.get(VARIABLE, "").strip()
    try:
        return normal_store(expanded_address(named, VARIABLE)) if named else None
    except TrackingError as error:
        raise TrackingError(
            f"{str(error).rstrip('.')}; it comes from {VARIABLE}, which can be unset, or name a store with --tracking."
        ) from None


def of_variable(store: str) -> str:
    return f"Tracking store {redacted(store)}, as {VARIABLE} says."


def with_login(store: str) -> str:
    """Return the address of a store with its login, if known.

    Recorded and printed addresses have no password. If ``MLFLOW_TRACKING_URI`` is the same address apart from the
    login, it is returned. Otherwise MLflow or the database's driver read the login from their variables or files of
    mode 600 (``MLFLOW_TRACKING_USERNAME``, ``~/.mlflow/credentials``, ``~/.netrc``, ``PGPASSWORD``, ``~/.pgpass``).
    """
    bare = without_password(store)[0]
    if bare != store and "***" not in store:
        return store  # it has its own login
    with suppress(TrackingError):
        named = variable_store()
        if named is not None and without_password(named)[0] == normal_store(bare):
            return named
    return bare


def normal_store(store: str) -> str:
    """Return the address in normal form: absolute SQLite path, no trailing slash. Raises ``TrackingError``."""
    scheme, separator, rest = store.strip().partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or kind == "file":
        text = redacted(store)
        plain = text.removeprefix("file:").removeprefix("//") or "mlflow"
        raise TrackingError(
            f"a tracking store is a database or a server, {text!r} is a plain folder, which MLflow no longer takes: "
            f"use sqlite:///{Path(plain).absolute() / 'mlflow.db'}."
        )
    if kind == "sqlite":
        path = rest.removeprefix("/")
        if not path or "?" in path or "%" in path or path == ":memory:":
            raise TrackingError(
                f"a SQLite store is a file whose path has no '?' and no '%', {store!r} is not: use sqlite:////folder/mlflow.db."
            )
        whole = str(Path(path).absolute())
        if len(os.fsencode(whole)) > _LONGEST_SQLITE:
            raise TrackingError(
                f"the path of a SQLite store may have {_LONGEST_SQLITE} bytes, {whole[:60]}… has "
                f"{len(os.fsencode(whole))}: choose a shorter --root, or name another store with --tracking."
            )
        return f"sqlite:///{whole}"
    try:
        parts = urlsplit(store.strip())
        names_host = bool(parts.hostname) and parts.port != 0  # raises for a port that is not a number
    except ValueError:
        names_host = False
    if kind not in (*DATABASES, "http", "https") or not names_host:
        raise TrackingError(
            "a tracking address starts with sqlite:///, http://, https://, postgresql://, mysql:// or mssql:// and "
            f"names a host, {redacted(store)!r} does not: use http://127.0.0.1:5000 or sqlite:////folder/mlflow.db."
        )
    return f"{scheme.lower()}://{rest}".rstrip("/")  # MLflow and this project compare schemes in lower case


def redacted(text: str) -> str:
    """Return an address, or a text with addresses, without passwords."""
    text = re.sub(r"(?:(?<=://)|^)([^/@:\s]*):(?!//)\S*@", r"\1:***@", text)
    return re.sub(r"(?i)(passw(?:or)?d=)[^&\s]+", r"\1***", text)


def without_password(store: str) -> tuple[str, str]:
    """Return an address without its password, and how to set the password in the environment, or "".

    ``postgresql://ann:secret@db/runs`` becomes ``postgresql://ann@db/runs`` and "set PGPASSWORD or write ~/.pgpass".
    """
    bare = re.sub(r"(?<=://)([^/@:\s]*):(?!//)\S*@", r"\1@", store)
    bare = re.sub(r"(?i)([?&])passw(?:or)?d=[^&\s]*&?", r"\1", bare).rstrip("?&")
    if bare == store:
        return store, ""
    if bare.lower().startswith("http"):  # the user is removed with the password
        bare = re.sub(r"(?<=://)[^/@\s]*@", "", bare)
        return bare, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if bare.lower().startswith("postgres"):
        return bare, "set PGPASSWORD or write ~/.pgpass"
    return bare, "write it into the address, as in USER:PASSWORD@HOST"


def sqlite_path(store: str) -> Path | None:
    return Path(store.removeprefix("sqlite:///")) if store.startswith("sqlite:") else None


def is_loopback(store: str) -> bool:
    host = urlsplit(store).hostname or ""
    return store.startswith(("http://", "https://")) and (host in ("localhost", "::1") or host.startswith("127."))


def check(store: str, timeout_s: float = 5.0) -> None:
    """Raise ``TrackingError`` unless the store can be used within ``timeout_s``."""
    store = normal_store(store)
    path = sqlite_path(store)
    if path is not None:
        check_sqlite(path)
    else:
        _check_answer(store, timeout_s)


def check_or_wait(store: str) -> str | None:
    """Check a store as ``check`` does; return a sentence if it is only busy, as events wait in the spool."""
    try:
        check(store)
    except StoreBusyError as error:
        return f"{error} What is recorded meanwhile is kept in the spool and sent when the store is free."
    return None


def ui_command(store: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """Return the command that serves MLflow's pages and artifacts for ``store``; run it with ``ui_environment``.

    One worker suffices for one user and takes 250 MB. Experiments created by a search have ``file://`` artifacts, which
    the server reads; runs logged through it use the same folder. Raises ``TrackingError`` for a server's address.
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
    """Return the environment of ``ui_command``.

    It passes the address, which may contain a password, because command lines are visible to all users. The job runner
    is disabled: 230 MB that only MLflow's GenAI pages use.
    """
    return {
        "MLFLOW_BACKEND_STORE_URI": normal_store(store),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def check_sqlite(path: Path, patience_s: float = BUSY_PATIENCE_S) -> None:
    """Raise ``TrackingError`` unless ``path`` is, or can become, a database of this version of MLflow; raise
    ``StoreBusyError`` if another process holds its lock for ``patience_s`` seconds."""
    _check_schema(f"sqlite:///{path}", *read_tables(path, patience_s))


def _check_schema(store: str, tables: Collection[str], found: str | None) -> None:
    """Raise ``TrackingError`` for the database of another program or another version of MLflow."""
    text = redacted(store)
    if tables and "alembic_version" not in tables:
        raise TrackingError(f"the tracking store must be MLflow's, {text} holds something else: name another.")
    head = _schema_version()
    if head is not None and found is not None and found != head:
        bare, give_password = without_password(store)
        upgrade = command_line("mlflow", "db", "upgrade", bare)
        raise TrackingError(
            f"store and MLflow must have the same schema, {text} has {found} and this MLflow {head}: stop all that "
            f"use the store, copy it, then {f'{give_password} and ' if give_password else ''}run `{upgrade}`."
        )


def _schema_version() -> str | None:
    """Return the newest schema of the installed MLflow from its migration files; None if unclear."""
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


def _check_answer(store: str, timeout_s: float) -> None:
    """Check a server or a database by a call of MLflow's own client in a separate process."""
    text, answer = redacted(store), _first_call(store, timeout_s)
    reason = " ".join(redacted(answer.reason).split())
    database = not store.startswith(("http://", "https://"))
    match answer.kind:
        case "tables":
            _check_schema(store, answer.tables, answer.version)
        case "driver":
            raise TrackingError(
                f"a database store needs its Python driver, {text} finds none ({reason}): install it, or use a server."
            )
        case "late":
            raise TrackingError(
                f"a tracking {'database' if database else 'server'} answers within {timeout_s:g} s, {text} did not: "
                "check host, port and firewall."
            )
        case "failed" if database and any(words in reason for words in _STARTING):
            raise StoreBusyError(f"the database must be ready, {text} is not yet ({reason}): wait.")
        case "failed" if database:
            raise TrackingError(
                f"the database must be reachable and accept the login, {text} does not ({reason}): start it, or "
                "check host, port, user, password and database."
            )
        case "failed" if answer.cause == "proxy":
            raise TrackingError(
                f"the proxy must forward to the tracking server, and it does not reach {text} ({reason}): name the "
                "host in NO_PROXY, or correct HTTP_PROXY and HTTPS_PROXY."
            )
        case "failed" if answer.cause == "certificate":
            raise TrackingError(
                f"the certificate of the server must be trusted, that of {text} is not ({reason}): name its authority "
                "in MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE, and a client's own certificate in "
                "MLFLOW_TRACKING_CLIENT_CERT_PATH."
            )
        case "failed":
            raise TrackingError(
                f"a tracking server must be reachable, {text} is not ({reason}): start it, or check host and port."
            )
        case "moved":
            raise TrackingError(f"the address must be the server's final one, {text} leads to {reason}: name that one.")
        case "page":
            _check_page(store, answer.status, answer.body)


def _check_page(store: str, status: int, body: str) -> None:
    text = redacted(store)
    if status == 403 and "Host" in body:
        raise TrackingError(
            f"the server must accept the host name of the address, {text} answered 403 'Invalid Host header': "
            f"restart it with --allowed-hosts {urlsplit(store).netloc.rpartition('@')[2]}, or use its IP address."
        )
    if status in (401, 403):
        raise TrackingError(
            f"the server must accept the login, {text} answered {status}: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or keep a login in ~/.mlflow/credentials or ~/.netrc."
        )
    if status >= 500:
        raise TrackingError(f"the tracking server must work, {text} answered {status}: look at its log.")
    try:
        is_mlflow = status == 200 and isinstance(json.loads(body), dict)
    except ValueError:
        is_mlflow = False
    if not is_mlflow:
        raise TrackingError(
            f"the address must be that of an MLflow server, {text} answered {status}, "
            "which MLflow does not: check the address."
        )


def _first_call(store: str, timeout_s: float) -> Answer:
    home = str(Path(ladder_search.__file__).parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"from {Answer.__module__} import main; main()"],
        input=json.dumps({"store": store, "timeout_s": timeout_s}),
        env={**environment.settled(os.environ), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    try:
        return Answer(**json.loads(done.stdout))
    except (ValueError, TypeError):
        last = [*done.stderr.splitlines(), f"code {done.returncode}"][-1 if not done.stderr else -2]
        raise TrackingError(
            f"tracking needs MLflow's client, which does not start here ({last}): run `{installation()}`."
        ) from None
