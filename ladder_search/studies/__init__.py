"""The papers' tables as data, one study per published row, and the studies of files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ladder_search import plugins
from ladder_search.errors import LadderSearchError, UnknownNameError
from ladder_search.studies import (
    conv_ladder,
    deconstruction,
    grouping,
    grouping_digits,
    ladder,
    music,
    progressive,
    progressive_conv,
    recurrent,
)
from ladder_search.studies.copies import definitions
from ladder_search.studies.study import SpaceConfig, StopConfig, Study, Target
from ladder_search.studies.study_file import as_definition, difference, is_study_file, read_study_file, study_from

_TABLES = (
    ladder.STUDIES, conv_ladder.STUDIES, deconstruction.STUDIES, progressive.STUDIES, progressive_conv.STUDIES,
    recurrent.STUDIES, music.STUDIES, grouping.STUDIES, grouping_digits.STUDIES,
)  # fmt: skip
STUDIES: dict[str, Study] = {study.name: study for table in _TABLES for study in table}
assert len(STUDIES) == sum(map(len, _TABLES)), "two studies have the same name"


_owners: dict[str, plugins.Plugin | None] = dict.fromkeys(STUDIES)
"""The plugins of the studies; None: built in, or registered by a running program."""


def register(study: Study) -> None:
    """Add a study of a plugin; raise ``PluginError`` if its name is taken."""
    plugins.check_free("study", study.name, _owners)
    STUDIES[study.name], _owners[study.name] = study, plugins.importing()
    plugins.registered(lambda: (STUDIES.pop(study.name), _owners.pop(study.name)))


def find_study(name: str, root: Path | None = None) -> Study:
    """Return a study: a row of the table, that of a file (``NAME.yaml``), or one whose copy is in a study folder.

    Args: ``root`` is the folder of the study folders; the latest search of the study has its copy. Raise
    ``UnknownNameError`` for an unknown name, and ``SettingError`` if a file cannot be read or a setting is invalid.
    """
    if name not in STUDIES:
        plugins.load_offered()
    if is_study_file(name):
        return read_study_file(Path(name), STUDIES)
    if name in STUDIES:
        return STUDIES[name]
    copies = {} if root is None else definitions(root)
    if name in copies:
        return study_from(copies[name], STUDIES)
    raise UnknownNameError("study", name, [*STUDIES, *copies])


def study_of(settings: Mapping[str, Any]) -> Study:
    """Return the study of a search or a reproduction from its stored ``study`` and ``definition``."""
    definition = settings.get("definition")
    return find_study(settings["study"]) if definition is None else study_from(definition, STUDIES)


def baseline_of(study: Study) -> Study | None:
    """Return the study of the supervised baseline; None without one."""
    if study.baseline is None or isinstance(study.baseline, str):
        return None if study.baseline is None else find_study(study.baseline)
    return study.with_overrides(study.baseline)


def own_studies(root: Path) -> dict[str, Study]:
    """Return the studies whose copies lie in study folders of ``root``, by name; damaged copies are left out."""
    studies = {}
    for name, definition in definitions(root).items():
        with suppress(LadderSearchError):
            studies[name] = study_from(definition, STUDIES)
    return studies


__all__ = [
    "STUDIES", "SpaceConfig", "StopConfig", "Study", "Target", "as_definition", "baseline_of", "definitions",
    "difference", "find_study", "is_study_file", "own_studies", "register", "study_of",
]  # fmt: skip
