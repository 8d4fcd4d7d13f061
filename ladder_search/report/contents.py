"""The contents of a report: all searches and reproductions of a root folder, or those selected by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ladder_search.errors import LadderSearchError, StudyFolderError, command_line
from ladder_search.record.folder import StudyFolder, searches_of
from ladder_search.report.document import Search
from ladder_search.reproduction.reproduction import FILE, FOLDER, Reproduction, read_reproduction
from ladder_search.studies import find_study, study_of


def find_contents(
    root: Path, names: Sequence[str], notify: Callable[[str], None]
) -> tuple[list[Search], list[Reproduction]]:
    """Return the searches and reproductions selected by ``names``; without names, all readable ones in ``root``. Raise
    ``StudyFolderError`` if there are none or a named one is damaged, ``UnknownNameError`` if a name is neither a folder
    nor a study."""
    searches: dict[Path, Search] = {}
    reproductions: dict[Path, Reproduction] = {}
    for path in _all(root) if not names else [path for name in names for path in _named(root, name)]:
        try:
            if (path / FILE).is_file():
                reproductions[path.resolve()] = read_reproduction(path)
            else:
                folder = StudyFolder(path)
                description = folder.description()
                for note in folder.offer_plugins(description):
                    notify(f"note: {note}")
                study_of(description["settings"])
                folder.read_trials()
                searches[path.resolve()] = Search(folder=folder, description=description)
        except LadderSearchError as error:
            if names:
                raise
            notify(f"left out: {error}")
    if not searches and not reproductions:
        raise StudyFolderError(
            f"a report needs a search or a reproduction and {root} holds none; run "
            f"`{command_line('search', 'STUDY', root=root)}` or correct --root."
        )
    return list(searches.values()), list(reproductions.values())


def _all(root: Path) -> list[Path]:
    searches = sorted(path.parent for path in root.glob("*/study.json"))
    return [*searches, *_reproductions(root / FOLDER)]


def _named(root: Path, name: str) -> list[Path]:
    """Return the folders of ``name``: a search, a reproduction, a folder of several, or a study's latest ones."""
    for path in (Path(name), root / name, root / FOLDER / name):
        if (path / "study.json").is_file() or (path / FILE).is_file():
            return [path]
        if path.is_dir() and (folders := _reproductions(path) or _all(path)):
            return folders
    name = find_study(name, root).name
    latest = [folder.path for folder in searches_of(root, name)[:1]]
    folders = [*latest, *(path for path in _reproductions(root / FOLDER) if read_reproduction(path).study == name)]
    if not folders:
        raise StudyFolderError(
            f"{name} was neither searched nor reproduced in {root}; run "
            f"`{command_line('search', name, root=root)}` or correct --root."
        )
    return folders


def _reproductions(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{FILE}"))
