"""Where a case of the net happens, and the records that are left there, without what differs between two runs."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shlex
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

OPAQUE = ("tuner.pkl", "*_state-*.json", "*.log", "*.lock", "lock", "writer.json")
"""Files of which only the name is compared: snapshots of Tune that nothing reads, logs, and what holds a process id."""
_OF_MACHINE = r"(?:search_)?(?:host|git)_\w+"
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d([T ]|_)\d\d[:-]\d\d([:-]\d\d)?(\.\d+)?(\+00:00|Z)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-\d+)?\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b(m-)?[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"(?<![\d.])1[6-9]\d{11}(?![\d.])"), "<ms>"),
    (re.compile(r'("(?:seconds|cpu_seconds|step_time_ms|position|pid)": ?)[-\d.e]+'), r"\1<number>"),
    (re.compile(r'(\["(?:seconds|step_time_ms)",)[-\d.e]+'), r"\1<number>"),
    (re.compile(rf'"{_OF_MACHINE}" ?: ?("(?:[^"\\]|\\.)*"|[\w.]+),?\s*'), ""),
    (re.compile(r'("compiler": )(true|false)'), r"\1<machine>"),
    (re.compile(r'("commits": )\[[^\]]*\]'), r"\1<machine>"),
    (re.compile(r'("collected_utc"|"command"|"host"|"user") ?: ?("(?:[^"\\]|\\.)*"|[\w.]+)'), r"\1:<machine>"),
    (re.compile(rf"<tr>\n<td>{_OF_MACHINE}</td>\n<td>.*</td>\n</tr>\n"), ""),
    (re.compile(r"\| (?:search\\_)?(?:host|git)\\_.*\n"), ""),
    (re.compile(r"(?<![\d.])\d+(\.\d+)? (s|min|h)\b"), "<duration>"),
)


FOLDERS = ("work", "home", "tmp", "cache")


@dataclass(kw_only=True)
class Place:
    """The folders of one case, all below one, so that whatever is left anywhere is seen."""

    base: Path
    folders: Mapping[str, str] = field(default_factory=dict)
    """Those that are not named as the case's attributes are."""
    work: Path = field(init=False)
    home: Path = field(init=False)
    tmp: Path = field(init=False)
    cache: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in FOLDERS:
            setattr(self, name, self.base / self.folders.get(name, name))

    @property
    def results(self) -> Path:
        return self.work / "results"


def canonical(text: str, place: Place) -> str:
    """Return a text without times, ids, and the places of the case."""
    if place.results.is_symlink():
        text = text.replace(str(place.results.resolve()), "<work>/results")
    # The longest first: one may lie in another.
    for name in sorted((*FOLDERS, "base"), key=lambda name: -len(str(getattr(place, name)))):
        for path in _spellings(str(getattr(place, name))):
            text = text.replace(path, f"<{name}>")
    for pattern, stand_in in _CHANGING:
        text = pattern.sub(stand_in, text)
    return text


def _spellings(path: str) -> list[str]:
    """Return how a path is written: as it is, in JSON, in an address, on a page, in a shell."""
    in_json = [json.dumps(path, ensure_ascii=short)[1:-1] for short in (True, False)]
    ways = [path, *in_json, *(json.dumps(one)[1:-1] for one in in_json), quote(os.fsencode(path)), html.escape(path)]
    return sorted({*ways, html.escape(path, quote=False), shlex.quote(path)}, key=len, reverse=True)


def records(place: Place) -> dict[str, list[str]]:
    """Return all files of a case: canonical path -> canonical contents, in order, of the files that have it."""
    found: dict[str, list[str]] = {}
    for name in FOLDERS:
        folder = getattr(place, name)
        for path in _files(folder):
            shown = canonical(str(path), place)
            # Else it is in another of the folders, too. Where there is no compiler, no folder of programs is made.
            if shown.startswith(f"<{name}>") and shown != "<cache>/programs":
                found.setdefault(shown, []).append(_content(path, place))
    return {path: sorted(contents) for path, contents in sorted(found.items())}


def modes(place: Place) -> dict[str, int]:
    """Return the permissions of all files and folders in the working directory, by canonical path."""
    return {
        canonical(str(path.relative_to(place.work)), place): stat.S_IMODE(path.lstat().st_mode)
        for path in sorted(place.work.rglob("*"))
        if not path.is_symlink()
    }


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        for name in sorted((*files, *(f for f in folders if not os.listdir(os.path.join(parent, f))))):
            yield Path(parent, name)


def _content(path: Path, place: Place) -> str:
    if path.is_symlink():
        return f"-> {canonical(os.readlink(path), place)}"
    if path.is_fifo():
        return "a pipe"
    if path.is_dir():
        return "an empty folder"
    if any(path.match(pattern) for pattern in OPAQUE):
        return "not compared"
    if path.suffix == ".db":
        return "\n".join(_rows(path, place))
    content = path.read_bytes()
    if path.suffix == ".js" or b"\0" in content:
        return hashlib.sha256(content).hexdigest()
    return canonical(os.fsdecode(content), place)


_QUERIES = {
    "run": "SELECT k.value, r.status, r.lifecycle_stage FROM runs r JOIN tags k USING (run_uuid) "
    "WHERE k.key = 'ladder.key'",
    "metric": "SELECT k.value, m.key, m.step, m.value FROM metrics m JOIN tags k USING (run_uuid) "
    "WHERE k.key = 'ladder.key' AND m.key NOT IN ('seconds', 'step_time_ms')",
    "param": "SELECT k.value, p.key, p.value FROM params p JOIN tags k USING (run_uuid) WHERE k.key = 'ladder.key'",
    "tag": "SELECT k.value, t.key, t.value FROM tags t JOIN tags k USING (run_uuid) WHERE k.key = 'ladder.key' "
    "AND t.key NOT LIKE 'host%' AND t.key NOT LIKE 'git_%' AND t.key NOT IN ('command', 'mlflow.user')",
    "model": "SELECT name, version, source FROM model_versions",
}


def _rows(path: Path, place: Place) -> list[str]:
    with tempfile.NamedTemporaryFile() as copy:  # SQLite takes no path of more than 512 bytes
        shutil.copyfile(path, copy.name)
        database = sqlite3.connect(copy.name)
        rows = [(name, *row) for name, query in _QUERIES.items() for row in database.execute(query)]
        database.close()
    return sorted(canonical(json.dumps(row), place) for row in rows)
