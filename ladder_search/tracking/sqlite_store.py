"""The file of a SQLite store: whether it can be used, which process has it locked, and where its artifacts are.

MLflow writes absolute addresses of artifacts into its tables. A results folder that was moved or copied has its
artifacts beside its store as before, so the addresses are corrected when the store is opened. Imports no MLflow.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ladder_search.errors import StoreBusyError, TrackingError

BUSY_PATIENCE_S = 10.0
"""How long a locked store is waited for."""
ARTIFACTS = "mlartifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""MLflow's columns that hold addresses of artifacts."""


def artifact_root(folder: Path) -> Path:
    """Return where artifacts go that no server takes: beside a SQLite store, or beside the study folders."""
    return folder / ARTIFACTS


def read_tables(path: Path, patience_s: float) -> tuple[set[str], str | None]:
    """Return the names of a database's tables and the version of MLflow's schema; a file that is absent has none.

    The file is opened for writing, because SQLite undoes the transaction of a writer that was killed only then.

    Raises:
        StoreBusyError: another process has had it locked for ``patience_s`` seconds.
        TrackingError: the file is no database, or cannot be written.
    """
    folder = next(parent for parent in path.parents if parent.exists())
    target = path if path.exists() else folder
    if not folder.is_dir() or not os.access(target, os.W_OK | (0 if target == path else os.X_OK)):
        raise TrackingError(f"the SQLite store must be writable, {target} is not: free it or name another file.")
    if not path.exists() or path.stat().st_size == 0:
        return set(), None
    try:
        with closing(_opened(path, patience_s)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = (
                database.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
    except sqlite3.Error as error:
        if _is_busy(error):
            raise StoreBusyError(
                f"the SQLite store must be free at times, {path} has been locked for {patience_s:g} s by "
                f"{lock_holders(path)}: wait, or end that process."
            ) from None
        raise TrackingError(
            f"the SQLite store must be a database, {path} is not readable as one ({error}): name another file."
        ) from None
    return tables, rows[0][0] if rows else None


def move_artifacts(path: Path, patience_s: float = BUSY_PATIENCE_S) -> None:
    """Let a store that was moved or copied together with its artifacts name them where they are now.

    Addresses in a folder ``mlartifacts`` elsewhere are replaced, unless the artifacts are still there and not here.

    Raises:
        TrackingError: the store cannot be changed.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    here = artifact_root(path.parent)
    try:
        with closing(_opened(path, patience_s)) as database, database:
            columns = list(_location_columns(database))
            moved = [prefix for prefix in _prefixes(database, columns) if _is_moved(prefix, here, path.name)]
            for prefix in moved:
                for table, column in columns:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here.as_uri(), len(prefix) + 1, prefix, len(prefix) + 1, prefix + "/"),
                    )
    except sqlite3.Error as error:
        kind = StoreBusyError if _is_busy(error) else TrackingError
        raise kind(
            f"the addresses of artifacts in {path} must be those of its folder and could not be changed ({error}), "
            f"locked by {lock_holders(path)}: free the store and repeat."
        ) from None


def lock_holders(path: Path) -> str:
    """Return the processes that have locked the database, for example "process 123 (sqlite3)", as Linux lists them."""
    inodes = set()
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-shm", "-wal"))):
        with suppress(OSError):
            inodes.add(str(file.stat().st_ino))
    pids = set()
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.replace("->", " ").split()  # 1: POSIX ADVISORY WRITE 1234 08:01:5678 0 EOF
            if len(words) > 5 and words[5].rpartition(":")[2] in inodes and words[4] != str(os.getpid()):
                pids.add(words[4])
    names = []
    for pid in sorted(pids, key=int):
        with suppress(OSError):
            names.append(
                f"process {pid} ({Path('/proc', pid, 'comm').read_text(encoding='utf-8', errors='replace').strip()})"
            )
    return " and ".join(names) or "another process"


def _opened(path: Path, patience_s: float) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=patience_s)


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _location_columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for table, column in _LOCATIONS:
        if column in {name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")}:
            yield table, column


def _prefixes(database: sqlite3.Connection, columns: list[tuple[str, str]]) -> set[str]:
    """Return the addresses of all folders ``mlartifacts`` that the tables name."""
    prefixes = set()
    for table, column in columns:
        for (location,) in database.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'"):
            before, separator, _ = f"{location}/".rpartition(f"/{ARTIFACTS}/")
            if separator:
                prefixes.add(f"{before}/{ARTIFACTS}")
    return prefixes


def _is_moved(prefix: str, here: Path, store_name: str) -> bool:
    """Whether artifacts of a store in the folder of ``here`` are named by the address of another folder.

    They are not where both are the same folder under two names, and where the store was moved without its artifacts.
    """
    there = unquote(urlsplit(prefix).path)
    if there == str(here):
        return False
    if not os.path.exists(there):  # or it cannot be reached
        return True
    if os.path.exists(here):
        return not os.path.samefile(there, here)
    return (Path(there).parent / store_name).exists()
