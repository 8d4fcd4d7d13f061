from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ladder_search import environment
from ladder_search.errors import TrackingError
from ladder_search.tracking import address, first_call
from ladder_search.tracking.address import (
    check,
    default_store,
    normal_store,
    of_variable,
    redacted,
    sqlite_path,
    ui_command,
    variable_store,
    with_login,
    without_password,
)
from ladder_search.tracking.first_call import Answer


def test_the_default_store_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_store(Path("results")) == f"sqlite:///{tmp_path}/results/mlflow.db"
    assert default_store(Path("results")).startswith("sqlite:////")
    assert normal_store("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert sqlite_path(normal_store("sqlite:////a/b.db")) == Path("/a/b.db")


@pytest.mark.parametrize(
    "store",
    ["http://127.0.0.1:5000", "https://user:pw@host/prefix", "postgresql://u:p@db/x", "mysql+pymysql://db:3306/x"],
)
def test_good_addresses_are_kept(store: str) -> None:
    assert normal_store(f" {store}/") == store
    scheme, _, rest = store.partition("://")
    assert normal_store(f"{scheme.upper()}://{rest}") == store


@pytest.mark.parametrize("store", ["mlruns", "./mlruns", "file:///tmp/mlruns", "file:mlruns", ""])
def test_folders_are_refused_with_the_remedy(store: str) -> None:
    with pytest.raises(TrackingError, match=r"no longer takes: use sqlite:////.*mlflow\.db\.$"):
        normal_store(store)


@pytest.mark.parametrize(
    "store", ["ftp://host/x", "htp://host", "http://", "databricks://x", "http://host:port", "http://[::1"]
)
def test_other_kinds_are_refused(store: str) -> None:
    with pytest.raises(TrackingError, match="a tracking address starts with"):
        normal_store(store)


def test_sqlite_paths_that_sqlite_would_not_open() -> None:
    assert normal_store(f"sqlite:////{'a/' * 230}mlflow.db")
    with pytest.raises(TrackingError, match=r"may have 480 bytes, /ä/ä/.* has 790: choose a shorter --root"):
        normal_store(f"sqlite:////{'ä/' * 260}mlflow.db")


@pytest.mark.parametrize(
    "store", ["sqlite:///", "sqlite://", "sqlite:///:memory:", "sqlite:////a/b?c.db", "sqlite:////a%20b.db"]
)
def test_sqlite_addresses_that_mlflow_would_misread(store: str) -> None:
    with pytest.raises(TrackingError, match="no '\\?' and no '%'"):
        normal_store(store)


@pytest.mark.parametrize(
    "store",
    [
        "ftp://me:secret@host/x",
        "http://me:secret/secret@host",
        "postgresql://me@/x?password=secret",
        "me:secret@host:5000",
        "file://me:secret@host/runs",
    ],
)
def test_passwords_are_not_shown(store: str) -> None:
    assert "***" in redacted(store) and "secret" not in redacted(store)
    with pytest.raises(TrackingError) as caught:
        normal_store(store)
    assert "secret" not in str(caught.value)


def test_addresses_without_a_password_are_shown_as_they_are() -> None:
    for store in ("http://me@host:5000/a", "http://127.0.0.1:5000", "sqlite:////a/b.db", "postgresql://db/x?user=me"):
        assert redacted(store) == store
    assert redacted("no answer from http://me:secret@a/x, ask b@c") == "no answer from http://me:***@a/x, ask b@c"


class TestSqlite:
    def test_a_new_file_in_a_new_folder_is_fine(self, tmp_path: Path) -> None:
        check(f"sqlite:///{tmp_path}/new/folder/mlflow.db")
        assert not (tmp_path / "new").exists()

    def test_mlflows_own_database_is_fine(self, sqlite_store: str) -> None:
        check(sqlite_store)

    def test_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "notes.db").write_text("hello " * 100)
        with pytest.raises(TrackingError, match="not readable as one"):
            check(f"sqlite:///{tmp_path}/notes.db")

    def test_another_programs_database(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "other.db")) as database:
            database.execute("CREATE TABLE t (x)")
        with pytest.raises(TrackingError, match="holds something else"):
            check(f"sqlite:///{tmp_path}/other.db")

    def test_a_database_of_another_mlflow(self, sqlite_store: str) -> None:
        path = sqlite_path(sqlite_store)
        assert path is not None
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE alembic_version SET version_num = 'deadbeef'")
        with pytest.raises(TrackingError, match=r"has deadbeef and this MLflow \w+: .*mlflow db upgrade sqlite:"):
            check(sqlite_store)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(TrackingError, match="must be writable"):
            check(f"sqlite:///{tmp_path}/mlflow.db")

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(TrackingError, match="must be writable"):
            check(f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call is made in this process: a process of its own, as in two tests below, imports MLflow again."""

    def ask(store: str, timeout_s: float) -> Answer:
        with environment.ours(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return first_call.ask(store, timeout_s)

    monkeypatch.setattr(address, "_first_call", ask)


class TestServer:
    def test_a_server_that_answers(self, flaky: Any) -> None:
        check(flaky.address)
        assert flaky.requests == ["experiments/search"]

    @pytest.mark.usefixtures("here")
    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(
            TrackingError, match=r"must be reachable, http://127.0.0.1:\d+ is not \(.*refused\): start it"
        ):
            check(f"http://127.0.0.1:{port}")

    @pytest.mark.usefixtures("here")
    def test_no_such_host(self) -> None:
        with pytest.raises(TrackingError, match="must be reachable"):
            check("http://no-such-host.invalid:5000")

    def test_a_server_that_says_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            begin = time.monotonic()
            with pytest.raises(TrackingError, match=r"0\.3 s"):
                check(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3)
            assert time.monotonic() - begin < 30.0  # of which importing MLflow is all but the first third of a second

    @pytest.mark.usefixtures("here")
    def test_a_user_that_the_server_does_not_know(self, flaky: Any) -> None:
        flaky.always = 401
        with pytest.raises(TrackingError, match=r"answered 401: set MLFLOW_TRACKING_USERNAME .*~/\.mlflow/credentials"):
            check(flaky.address)

    @pytest.mark.parametrize(
        ("answer", "sentence"),
        [
            (Answer(kind="page", status=403), "MLFLOW_TRACKING_USERNAME"),
            (Answer(kind="page", status=500), "look at its log"),
            (Answer(kind="page", status=404, body="{}"), "MLflow server"),
            (Answer(kind="page", status=200, body="<html>log in</html>"), "answered 200, which MLflow does not"),
            (Answer(kind="page", status=200, body="[]"), "answered 200, which MLflow does not"),
            (
                Answer(kind="page", status=403, body="Invalid Host header - possible DNS rebinding attack detected"),
                r"--allowed-hosts example:5000,",
            ),
            (Answer(kind="moved", reason="https://me:secret@b"), r"leads to https://me:\*\*\*@b: name that one"),
            (Answer(kind="failed", reason="no route", cause="proxy"), "does not reach http.* .no route.*NO_PROXY"),
            (Answer(kind="failed", reason="unknown", cause="certificate"), "unknown.*REQUESTS_CA_BUNDLE"),
            (Answer(kind="late"), "answers within 5 s, http"),
        ],
    )
    def test_answers_other_than_well(self, answer: Answer, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(address, "_first_call", lambda store, timeout_s: answer)
        with pytest.raises(TrackingError, match=sentence) as caught:
            check("http://me:secret@example:5000")
        assert "secret" not in str(caught.value)

    def test_a_client_that_does_not_start(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "mlflow").mkdir()
        (tmp_path / "mlflow" / "__init__.py").write_text("raise ImportError('a broken installation')")
        monkeypatch.setattr(address.environment, "settled", lambda given: {**given, "PYTHONPATH": ""})
        monkeypatch.setattr(address.ladder_search, "__file__", str(tmp_path / "ladder_search" / "__init__.py"))
        (tmp_path / "ladder_search").symlink_to(Path(environment.__file__).parent)
        with pytest.raises(TrackingError, match="not start here .ImportError: a broken installation.: run `.*pip"):
            check("http://127.0.0.1:9")

    @pytest.mark.usefixtures("here")
    @pytest.mark.parametrize("store", ["mysql+pymysql://me:secret@127.0.0.1:1/x", "postgresql+nothing://127.0.0.1/x"])
    def test_a_database_server_whose_driver_is_missing(self, store: str) -> None:
        with pytest.raises(TrackingError, match=r"needs its Python driver, .*(pymysql|nothing).*: install") as caught:
            check(store)
        assert "secret" not in str(caught.value)

    @pytest.mark.usefixtures("here")
    def test_a_database_server_that_is_not_there(self) -> None:
        with pytest.raises(TrackingError, match=r"must be reachable .*, postgresql://me:\*\*\*@127.*refused.*start it"):
            check("postgresql://me:secret@127.0.0.1:1/x")


def test_mlflows_variable_names_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert variable_store() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert variable_store() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "HTTP://me:secret@host:5000/")
    assert variable_store() == "http://me:secret@host:5000"
    assert of_variable("http://me:secret@host") == "Tracking store http://me:***@host, as MLFLOW_TRACKING_URI says."
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/mlflow.db")
    assert variable_store() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(TrackingError, match=r"is a plain folder.*comes from MLFLOW_TRACKING_URI, which can be unset"):
        variable_store()


def test_an_address_gets_the_login_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for store in (
        "http://host:5000",
        "sqlite:////a/b.db",
        "postgresql://me@db/x",
        "http://me:secret@host",
        "no address",
    ):
        assert with_login(store) == store
    assert with_login("http://me:***@127.0.0.1:5000/x") == "http://127.0.0.1:5000/x"
    assert with_login("postgresql://me:***@db:5432/x") == "postgresql://me@db:5432/x"
    assert with_login("postgresql://db/x?user=me&password=***") == "postgresql://db/x?user=me"
    assert with_login("postgresql://db/x?password=***&user=me") == "postgresql://db/x?user=me"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "HTTP://me:secret@host/")
    for store in ("http://me:***@host", "http://host", "HTTP://host/"):
        assert with_login(store) == "http://me:secret@host"
    for store in ("http://you:other@host", "http://elsewhere", "sqlite:////a/b.db", "no address"):
        assert with_login(store) == store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/x")
    assert with_login("postgresql://me:***@db/x") == with_login("postgresql://me@db/x") == "postgresql://me:secret@db/x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no address")
    assert with_login("http://me:***@host") == "http://host"


def test_the_ui_command(tmp_path: Path) -> None:
    command = ui_command(f"sqlite:///{tmp_path}/mlflow.db", port=5001)
    text = " ".join(command[1:])
    assert text == (
        f"-m mlflow server "
        f"--artifacts-destination file://{tmp_path}/mlartifacts --host 127.0.0.1 --port 5001 --workers 1"
    )
    with pytest.raises(TrackingError, match="open that address in a browser"):
        ui_command("http://127.0.0.1:5000")


@pytest.mark.parametrize(
    ("store", "bare", "how"),
    [
        ("sqlite:////a b/mlflow.db", "sqlite:////a b/mlflow.db", ""),
        ("http://host:5000", "http://host:5000", ""),
        ("postgresql://ann@db/runs", "postgresql://ann@db/runs", ""),
        ("postgresql://ann:s3cret@db:5432/runs", "postgresql://ann@db:5432/runs", "PGPASSWORD"),
        ("postgresql+psycopg://ann:s3:cr@et/x@db/runs", "postgresql+psycopg://ann@db/runs", "PGPASSWORD"),
        ("postgresql://db/runs?user=ann&password=s3cret", "postgresql://db/runs?user=ann", "PGPASSWORD"),
        ("postgresql://db/runs?password=s3cret&user=ann", "postgresql://db/runs?user=ann", "PGPASSWORD"),
        ("https://ann:s3cret@host/x", "https://host/x", "MLFLOW_TRACKING_PASSWORD"),
        ("mysql://ann:s3cret@db/runs", "mysql://ann@db/runs", "USER:PASSWORD@HOST"),
        ("postgresql://ann:***@db/runs", "postgresql://ann@db/runs", "PGPASSWORD"),
    ],
)
def test_a_printed_address_has_no_password(store: str, bare: str, how: str) -> None:
    printed, give_password = without_password(store)
    assert printed == bare and how in give_password and bool(how) == bool(give_password)


def test_the_upgrade_that_is_proposed_runs_as_it_is_printed(tmp_path: Path) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    (tmp_path / "it's old").mkdir()
    store = f"sqlite:///{tmp_path}/it's old/mlflow.db"
    engine = sqlalchemy.create_engine(store)
    Base.metadata.create_all(engine)
    engine.dispose()
    config = _get_alembic_config(store)
    newest = ScriptDirectory.from_config(config).get_revision("head")
    assert newest is not None and isinstance(newest.down_revision, str)
    command.upgrade(config, newest.down_revision)
    with pytest.raises(TrackingError, match="must have the same schema") as refusal:
        check(store)
    (remedy,) = re.findall(r"`([^`]+)`", str(refusal.value))
    done = subprocess.run(["bash", "-c", remedy], capture_output=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stderr
    check(store)
