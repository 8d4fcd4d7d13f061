"""The file of a SQLite store: its validity, the processes that lock it, and the addresses of its artifacts.

MLflow stores absolute addresses of artifacts, so they are corrected when a moved or copied store is opened. Does not
import MLflow.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ladder_search.errors import StoreBusyError, TrackingError

BUSY_PATIENCE_S = 10.0
ARTIFACTS = "mlartifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""MLflow's columns with addresses of artifacts."""


def artifact_root(folder: Path) -> Path:
    """Return the folder for artifacts without a server: beside a SQLite store or the study folders."""
    return folder / ARTIFACTS


def read_tables(path: Path, patience_s: float) -> tuple[set[str], str | None]:
    """Return the names of a database's tables and the version of MLflow's schema; an absent file has none.

    The file is opened for writing, because only then SQLite rolls back the transaction of a killed writer.

    Raises:
        StoreBusyError: another process holds the lock for ``patience_s`` seconds.
        TrackingError: the file is not a database, or cannot be written.
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


def move_artifacts(path: Path) -> None:
    """Correct the addresses of artifacts in a store that was moved or copied together with them.

    Addresses in another folder ``mlartifacts`` are replaced, unless the artifacts are still there and not here. Raises
    ``TrackingError`` if the store cannot be changed.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    here = artifact_root(path.parent)
    try:
        with closing(_opened(path, BUSY_PATIENCE_S)) as database, database:
            columns = [
                (table, column)
                for table, column in _LOCATIONS
                if column in {name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")}
            ]
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
    """Return the processes that lock the database, for example "process 123 (sqlite3)", as listed by Linux."""
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


def _prefixes(database: sqlite3.Connection, columns: list[tuple[str, str]]) -> set[str]:
    prefixes = set()
    for table, column in columns:
        for (location,) in database.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'"):
            before, separator, _ = f"{location}/".rpartition(f"/{ARTIFACTS}/")
            if separator:
                prefixes.add(f"{before}/{ARTIFACTS}")
    return prefixes


def _is_moved(prefix: str, here: Path, store_name: str) -> bool:
    """Whether ``prefix`` is an outdated address of the artifacts in ``here``.

    It is not if both are the same folder under two names, or if the store was moved without its artifacts.
    """
    there = unquote(urlsplit(prefix).path)
    if there == str(here):
        return False
    if not os.path.exists(there):  # or it cannot be reached
        return True
    if os.path.exists(here):
        return not os.path.samefile(there, here)
    return (Path(there).parent / store_name).exists()
