"""The study folder.

::

    study.json      settings of the search, versions, state of the code: written before the first trial
    optuna.journal  Optuna's journal: every suggestion, intermediate value and state
    trials/         one JSON file per ended trial, ``t0007.json``, written atomically
    plugins/        copies of the search's plugins, from which a resume and an export import their families
    running/        reports of unfinished trials; removed when the search is complete
    checkpoints/    Ray's experiment folder: logs and checkpoints of trials
    spool/          tracking events, stored and waiting
    pictures/       PNG and interactive HTML
    leaderboard.md  table of the results
    lock            held while a search runs
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ladder_search.config import as_mapping, build
from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_json
from ladder_search.disk.lock import hold, let_go
from ladder_search.errors import PluginError, StudyFolderError, command_line
from ladder_search.plugins import Plugin, offer, read
from ladder_search.record.trial import TrialRecord, files_by_key, number_of

FORMAT = "ladder-search study 1"
_LIMIT = 1 << 28  # bytes per file; a trial of 100,000 epochs needs about 30 MB
ROOT = Path("{root}")
"""Placeholder in ``study.json`` for the folder of the study folders."""
_SQLITE = "sqlite:///"


class FolderInUseError(StudyFolderError):
    """Another search holds the study folder."""


class StudyFolder:
    """Paths of one study folder, and methods that read and write its files."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.journal = self.path / "optuna.journal"
        self.trials = self.path / "trials"
        self.running = self.path / "running"
        self.checkpoints = self.path / "checkpoints"
        self.spool = self.path / "spool"
        self.pictures = self.path / "pictures"
        self.plugins = self.path / "plugins"
        self.notes: list[str] = []
        """Notes on the file system, once the folder is locked."""

    def create(self, description: dict[str, Any]) -> None:
        """Create the folder and write ``study.json``; raise ``StudyFolderError`` if that is impossible."""
        self.check_free()
        try:
            self.describe(description)
        except StudyFolderError:
            with suppress(OSError):  # remove what a search that cannot begin has created
                self.journal.unlink(missing_ok=True)
                self.trials.rmdir()
                self.running.rmdir()
            raise

    def describe(self, description: dict[str, Any]) -> None:
        """Write ``study.json``: ``description`` and the format; raise ``StudyFolderError`` if it cannot be written."""
        try:
            for folder in (self.trials, self.running):
                folder.mkdir(parents=True, exist_ok=True)
            self._write_json(self.path / "study.json", {"format": FORMAT, **description})
        except OSError as error:
            raise StudyFolderError(
                f"a study folder must be writable, {self.path} is not: {error}; choose another --root."
            ) from error

    def keep_plugins(self, plugins: Iterable[Plugin]) -> list[dict[str, str]]:
        """Write copies of plugins' files and return their rows in ``study.json``; raise ``StudyFolderError`` if a copy
        cannot be written."""
        rows = []
        for plugin in plugins:
            rows.append({"name": plugin.name, "sha256" if plugin.is_file else "version": plugin.version})
            try:
                if plugin.is_file:
                    self.plugins.mkdir(parents=True, exist_ok=True)
                    write_atomically(self.plugins / plugin.name, plugin.source.encode())
            except OSError as error:
                raise StudyFolderError(
                    f"a study folder must be writable, {self.path} is not: {error}; choose another --root."
                ) from error
        return rows

    def offer_plugins(self, description: Mapping[str, Any]) -> list[str]:
        """Let this process import the plugins of the search, from the copies in the folder; return notes on packages
        of other versions.

        Raises ``StudyFolderError`` if a copy is missing or altered, ``PluginError`` if the process uses another one.
        """
        notes = []
        for row in description.get("plugins", ()):
            name, digest = Path(str(row["name"])).name, row.get("sha256")
            if digest is None:
                try:
                    version = importlib.metadata.version(name)
                except importlib.metadata.PackageNotFoundError:
                    raise StudyFolderError(
                        f"{self.path} has a family of the package {name}, which is not installed; install its version "
                        f"{row.get('version')}."
                    ) from None
                if version != row.get("version"):
                    notes.append(f"The package {name} was of version {row.get('version')} and is now of {version}.")
                continue
            try:
                plugin = read(self.plugins / name)
            except PluginError as error:
                raise StudyFolderError(
                    f"{self.path} must hold a copy of its plugin {name}: {str(error).rstrip('.')}; restore it."
                ) from error
            if plugin.version != digest:
                raise StudyFolderError(
                    f"{self.plugins / name} must have the sha256 {digest}, found {plugin.version}; restore it or start "
                    "a new search."
                )
            offer([plugin])
        return notes

    def description(self) -> dict[str, Any]:
        """Return the content of ``study.json``; raise ``StudyFolderError`` if it is missing or has another format."""
        try:
            content = read_json(self.path / "study.json", _LIMIT)
        except FileNotFoundError as error:
            search = command_line("search", "STUDY", root=self.path.parent, name=self.path.name)
            raise StudyFolderError(
                f"{self.path} holds no study (no study.json); run `{search}` first or name another."
            ) from error
        except (OSError, ValueError) as error:
            raise StudyFolderError(
                f"{self.path / 'study.json'} must be readable JSON: {error}; restore it or start a new search."
            ) from error
        has = content.get("format") if isinstance(content, dict) else None
        if has != FORMAT:
            raise StudyFolderError(
                f"study folders have the format {FORMAT!r}, {self.path} has {has!r:.80}; use the version that wrote it."
            )
        settings = content.get("settings")
        names = (content.get("store"), settings.get("study") if isinstance(settings, dict) else None)
        if not all(isinstance(name, str) for name in names):
            raise StudyFolderError(
                f"{self.path / 'study.json'} must name its study and its store; restore it or start a new search."
            )
        return dict(content)

    def write_trial(self, record: TrialRecord) -> None:
        self._write_json(self.trials / f"{record.key}.json", as_mapping(record))

    def read_trials(self) -> list[TrialRecord]:
        """Return the ended trials by number; raise ``StudyFolderError`` if a file is damaged."""
        records = []
        for key, path in files_by_key(self.trials, ".json").items():
            try:
                raw = read_json(path, _LIMIT)
                raw["epochs"] = tuple(raw["epochs"])
                record = build(TrialRecord, raw)
                if (record.key, record.number) != (key, number_of(key)):
                    raise ValueError(f"its key must be {key}, found {record.key!r:.80} with number {record.number}")
                records.append(record)
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise StudyFolderError(
                    f"{path} must be a trial's record: {error}; delete that file to leave the trial out."
                ) from error
        return records

    @contextmanager
    def locked(self) -> Iterator[StudyFolder]:
        """Lock the folder while active and yield it; create it if needed, and remove it if no study was begun in it.
        Raise ``StudyFolderError`` if another search holds it or it cannot be written."""
        try:
            lock = hold(self.path)
        except BlockingIOError as error:
            raise FolderInUseError(
                f"one search at a time may use a study folder and {self.path} is in use; "
                "wait for it or choose another --name."
            ) from error
        except OSError as error:
            raise StudyFolderError(
                f"a study folder must be writable, {self.path} is not: {error}; choose another --root."
            ) from error
        self.notes = [lock.note] if lock.note else []
        try:
            yield self
        finally:
            let_go(lock, unused=not self.holds_study())

    def check_free(self) -> None:
        """Raise ``StudyFolderError`` if a search was begun here."""
        if self.holds_study():
            raise StudyFolderError(
                f"a study folder is never overwritten and {self.path} holds a study; "
                "choose another --name or delete it."
            )

    def holds_study(self) -> bool:
        return (self.path / "study.json").exists()

    @staticmethod
    def _write_json(path: Path, content: Any) -> None:
        text = json.dumps(content, indent=1).encode()
        write_atomically(path, text)


def relative_place(place: str, root: Path) -> str:
    """Return an address or a folder as stored in ``study.json``, with ``{root}`` for the results folder.

    This allows moving the results folder. Locations elsewhere are unchanged.
    """
    scheme, path = _split(place)
    for folder in (root, root.resolve()):
        if path.is_relative_to(folder):
            return f"{scheme}{ROOT / path.relative_to(folder)}"
    return place


def absolute_place(place: str, root: Path) -> str:
    """Return the address or folder that ``relative_place`` has encoded, for the present results folder.

    Earlier versions stored absolute addresses: if a SQLite file is missing, it is searched in ``root``.
    """
    scheme, path = _split(place)
    if path.is_relative_to(ROOT):
        return f"{scheme}{root.absolute() / path.relative_to(ROOT)}"
    here = root.absolute() / path.name
    return f"{scheme}{here}" if scheme == _SQLITE and not path.exists() and here.exists() else place


def _split(place: str) -> tuple[str, Path]:
    scheme = next((prefix for prefix in (_SQLITE, "file://") if place.startswith(prefix)), "")
    return scheme, Path(place.removeprefix(scheme))


def latest(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings and provenance of a search's latest execution from its ``study.json``."""
    lives: list[dict[str, Any]] = [dict(description), *description.get("resumed", [])]
    return lives[-1]


def find_folder(root: Path, name: str) -> StudyFolder:
    """Return the study folder for ``name``: a path, a folder in ``root``, or the latest search of a study or study
    file; raise ``StudyFolderError`` if there is none."""
    for path in (Path(name), root / name):
        if (path / "study.json").is_file():
            return StudyFolder(path)
    from ladder_search.studies import find_study, is_study_file  # imports torch, which takes seconds

    study = find_study(name).name if is_study_file(name) else name
    for folder in searches_of(root, study):
        return folder
    have = sorted(path.parent.name for path in root.glob("*/study.json"))
    searches = f"there are {', '.join(have)}" if have else "there is none yet"
    raise StudyFolderError(
        f"{name!r} must be a study folder or a study that was searched, in {root} {searches}; "
        f"run `{command_line('search', 'STUDY', root=root)}` or correct --root."
    )


def searches_of(root: Path, study: str) -> list[StudyFolder]:
    """Return the folders of all searches of ``study`` in ``root``, latest first."""
    searches = []
    for path in root.glob("*/study.json"):
        with suppress(StudyFolderError):  # skip damaged folders
            folder = StudyFolder(path.parent)
            if folder.description()["settings"]["study"] == study:
                searches.append((path.stat().st_mtime_ns, path.parent.name, folder))
    return [folder for *_, folder in sorted(searches, key=lambda search: search[:2], reverse=True)]


@contextmanager
def claim_folder(root: Path, name: str | None, otherwise: str) -> Iterator[StudyFolder]:
    """Lock a folder in ``root`` for a new search: ``name``; if None, the first free one of ``otherwise``, ``-2``, …
    Raise ``StudyFolderError`` if the folder is in use, holds a study or cannot be written."""
    for attempt in itertools.count(1):
        folder = StudyFolder(root / (name or (otherwise if attempt == 1 else f"{otherwise}-{attempt}")))
        with ExitStack() as stack:
            try:
                stack.enter_context(folder.locked())
            except FolderInUseError:
                if name:
                    raise
                continue
            if name:
                folder.check_free()
            elif folder.holds_study():
                continue
            yield folder
            return
