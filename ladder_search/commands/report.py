"""``ladder-search report``: searches and reproductions as Markdown and HTML, with their pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladder_search.console import Console
from ladder_search.errors import LadderSearchError, StudyFolderError, command_line
from ladder_search.record.folder import StudyFolder, searches_of
from ladder_search.report.document import Search, write_report
from ladder_search.reproduction.reproduction import FILE, FOLDER, Reproduction, read_reproduction
from ladder_search.studies import find_study


def run(arguments: argparse.Namespace) -> None:
    console = Console()
    searches: dict[Path, Search] = {}
    reproductions: dict[Path, Reproduction] = {}
    root: Path = arguments.root
    for path in _all(root) if not arguments.name else [p for name in arguments.name for p in _meant(root, name)]:
        try:
            if (path / FILE).is_file():
                reproductions[path.resolve()] = read_reproduction(path)
            else:
                folder = StudyFolder(path)
                description = folder.description()
                find_study(description["settings"]["study"])
                folder.read_trials()
                searches[path.resolve()] = Search(folder=folder, description=description)
        except LadderSearchError as error:
            if arguments.name:
                raise
            console.say(f"left out: {error}")
    if not searches and not reproductions:
        raise StudyFolderError(
            f"a report needs a search or a reproduction and {root} holds none; run "
            f"`{command_line('search', 'STUDY', root=root)}` or correct --root."
        )
    for path in write_report(arguments.output, list(searches.values()), list(reproductions.values()), root=root):
        console.say(f"{path}")


def _all(root: Path) -> list[Path]:
    searches = sorted(path.parent for path in root.glob("*/study.json"))
    return [*searches, *_reproductions(root / FOLDER)]


def _meant(root: Path, name: str) -> list[Path]:
    """Return the folders that ``name`` means: a search, a reproduction, a folder of some, or a study's latest ones."""
    for path in (Path(name), root / name, root / FOLDER / name):
        if (path / "study.json").is_file() or (path / FILE).is_file():
            return [path]
        if path.is_dir() and (found := _reproductions(path) or _all(path)):
            return found
    find_study(name)
    latest = [folder.path for folder in searches_of(root, name)[:1]]
    found = [*latest, *(path for path in _reproductions(root / FOLDER) if _study(path) == name)]
    if not found:
        raise StudyFolderError(
            f"{name} was neither searched nor reproduced in {root}; run "
            f"`{command_line('search', name, root=root)}` or correct --root."
        )
    return found


def _reproductions(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{FILE}"))


def _study(path: Path) -> str:
    return read_reproduction(path).study
