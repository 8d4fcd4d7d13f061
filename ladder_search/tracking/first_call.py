"""Call a server or a database with MLflow's own client, within a time limit.

``main`` runs in a separate process, because importing MLflow takes 1.5 s of CPU and 170 MB, and a process can always be
killed. It reads the address, which may contain a password, from standard input and prints ``Answer`` as JSON;
``tracking.address`` interprets it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ladder_search import environment

_PAGE = "/api/2.0/mlflow/experiments/search"
_BODY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    kind: Literal["page", "tables", "moved", "failed", "driver", "late"]
    """page: HTTP answer; tables: database; moved: redirection that loses the body; failed: no connection; driver: no
    Python driver; late: out of time."""
    status: int = 0
    body: str = ""
    reason: str = ""
    """Why there is no answer; the target of a redirection."""
    cause: Literal["", "proxy", "certificate"] = ""
    """The intermediary that made a connection fail."""
    tables: list[str] = field(default_factory=list)
    version: str | None = None


def ask(store: str, timeout_s: float, start_clock: Callable[[], None] = lambda: None) -> Answer:
    """Return the answer of a server or database.

    Args: ``start_clock`` is called after all imports, whose time does not count.
    """
    if (lacking := _import(store)) is not None:
        return lacking
    start_clock()
    try:
        return _page(store, timeout_s) if store.startswith(("http://", "https://")) else _tables(store)
    except Exception as error:
        return Answer(kind="failed", reason=_reason(error), cause=_cause(error))


def _import(store: str) -> Answer | None:
    if store.startswith(("http://", "https://")):
        import mlflow.tracking
        import mlflow.utils.rest_utils

        return None
    import mlflow.store.db.utils  # noqa: F401
    import sqlalchemy

    try:
        sqlalchemy.make_url(store).get_dialect().import_dbapi()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        return Answer(kind="driver", reason=str(error))
    return None


def _page(store: str, timeout_s: float) -> Answer:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = http_request(
        get_default_host_creds(store),  # type: ignore[no-untyped-call]
        _PAGE,
        "POST",  # most logging calls use POST
        max_retries=0,
        timeout=timeout_s,
        raise_on_status=False,
        json={"max_results": 1},
    )
    # The client turns these redirections into GETs without a body.
    if any(step.status_code in (301, 302, 303) for step in answer.history):
        return Answer(kind="moved", status=answer.status_code, reason=answer.url.removesuffix(_PAGE))
    return Answer(kind="page", status=answer.status_code, body=answer.text[:_BODY_BYTES])


def _tables(store: str) -> Answer:
    import sqlalchemy
    from mlflow.store.db.utils import create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(store)  # type: ignore[no-untyped-call]
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        version = "SELECT version_num FROM alembic_version"
        schema = connection.execute(sqlalchemy.text(version)).scalar() if "alembic_version" in tables else None
    return Answer(kind="tables", tables=tables, version=schema)


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an exception and its causes; MLflow and requests wrap one five times."""
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


def _reason(error: Exception) -> str:
    links = causes(error)
    system = [one for one in links if isinstance(one, OSError) and one.errno is not None]
    # SQLAlchemy's text has the statement and a link, the driver's has the reason.
    driver = [original for one in links if (original := getattr(one, "orig", None)) is not None]
    return str((system or driver or [links[-1]])[0])


def _cause(error: Exception) -> Literal["", "proxy", "certificate"]:
    names = {kind.__name__ for one in causes(error) for kind in type(one).__mro__}
    if "ProxyError" in names:
        return "proxy"
    return "certificate" if names & {"SSLError", "SSLCertVerificationError", "CertificateError"} else ""


def main() -> None:
    """Read ``{"store": …, "timeout_s": …}``, print an ``Answer``."""
    environment.settle()
    question: dict[str, Any] = json.load(sys.stdin)
    console = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the libraries print to standard output

    def end(answer: Answer) -> None:
        os.write(console, json.dumps(asdict(answer)).encode() + b"\n")
        os._exit(0)  # whatever still waits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = question["timeout_s"]
        clock = threading.Timer(seconds, lambda: end(Answer(kind="late")))
        clock.daemon = True
        end(ask(question["store"], seconds, clock.start))
