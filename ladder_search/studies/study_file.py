"""Studies as files: a YAML document with the settings of one study.

A file may name a study of the table as ``based_on`` and list only what differs; everything else must be stated, except
what has a default. ``as_yaml`` writes a study in full; reading that text returns the same study.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ladder_search.config import as_mapping, build, flat, merge, read_yaml, write_yaml
from ladder_search.data.config import DataConfig
from ladder_search.disk.foreign import read_file
from ladder_search.errors import LadderSearchError, SettingError, UnknownNameError
from ladder_search.models import Space, find_family
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.paths import expanded_address
from ladder_search.studies.study import StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import build_sources

SUFFIXES = (".yaml", ".yml")
BASED_ON = "based_on"
_LIMIT = 1 << 20  # bytes of a file; the longest study of the table needs 3 kB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_DATA_PATHS = ("file", "test_file", "unlabelled_file")
_DERIVED = ("changes", "proposed")
"""Fields of ``Study`` that a file does not have."""
KEYS = (BASED_ON, *(field.name for field in fields(Study) if field.name not in _DERIVED))


def is_study_file(name: str) -> bool:
    """Return whether ``name`` denotes a study file, existing or not, rather than a study."""
    return name.lower().endswith(SUFFIXES)


def read_study_file(path: Path, table: Mapping[str, Study]) -> Study:
    """Return the study that a file defines; relative paths in it start at its folder.

    Args: ``table`` has the built-in studies, for ``based_on``; a file cannot define a study with the name of one.

    Raises ``SettingError`` with one sentence that names the file and the setting.
    """
    try:
        text = read_file(path, _LIMIT).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"a study file must be a readable file in UTF-8 on the machine that runs the search, {path} is not "
            f"({reason}); correct the path or copy the file there."
        ) from error
    return parse_study_file(text, path, table)


def parse_study_file(text: str, path: Path, table: Mapping[str, Study]) -> Study:
    """Return the study that the content of a file at ``path`` defines, see ``read_study_file``."""
    mapping = read_yaml(text, what=str(path))
    if not isinstance(mapping, dict):
        raise SettingError(
            f"a study file must hold settings, {path} holds {type(mapping).__name__}; write name: value lines."
        )
    try:
        return study_from(_located({"name": path.stem, **mapping}, path.absolute().parent), table)
    except LadderSearchError as error:
        raise SettingError(f"in {path}: {error}") from error


def as_definition(study: Study) -> dict[str, Any]:
    """Return plain nested settings of the whole study, with everything that has a default and differs from it."""
    mapping = {name: value for name, value in as_mapping(study).items() if name not in _DERIVED}
    unused = {"target": None, "baseline": None, "sources": {}, "teacher": as_mapping(TeacherConfig())}
    return {name: value for name, value in mapping.items() if name not in unused or value != unused[name]}


def as_yaml(study: Study) -> str:
    """Return the whole study as a study file."""
    return write_yaml(as_definition(study))


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first setting in which two definitions differ, with both values; "" if they are equal."""
    was, is_ = ({key.replace("/", "."): value for key, value in flat(one).items()} for one in (before, now))
    for key in (*was, *is_):
        if was.get(key) != is_.get(key):
            return f"{key} was {was.get(key, 'absent')} and is now {is_.get(key, 'absent')}"
    return ""


def study_from(mapping: Mapping[str, Any], table: Mapping[str, Study]) -> Study:
    """Return the study of plain nested settings, of a file or of ``as_definition``; raise ``LadderSearchError`` if they
    are invalid."""
    raw = dict(mapping)
    for key in raw:
        if key not in KEYS:
            raise UnknownNameError("setting", str(key), KEYS)
    base = raw.pop(BASED_ON, None)
    if base is not None:
        raw = _changed(base, raw, table)
    check_name(raw.get("name"), table)
    for key in ("family", "data", "model", "training", "stop"):
        if key not in raw:
            raise SettingError(f"setting {key!r} is required and missing; give it a value, or name a {BASED_ON}.")
    raw["family"] = str(raw["family"])
    family = find_family(raw["family"])
    own = family.space.options if isinstance(family.space, Space) else None
    options = own or next((type(study.space) for study in table.values() if study.family == raw["family"]), None)
    for section, kind in (
        ("data", DataConfig), ("model", family.config), ("training", TrainingConfig), ("stop", StopConfig),
        ("space", options), ("teacher", TeacherConfig), ("target", Target),
    ):  # fmt: skip
        if kind is not None and section in raw and not (section == "target" and raw[section] is None):
            raw[section] = build(kind, raw[section], where=section)
    raw["sources"] = build_sources(raw.get("sources", {}))
    if options is not None:
        raw.setdefault("space", options())
    raw.setdefault("target", None)
    raw.setdefault("title", raw["family"])
    study = build(Study, {**raw, "proposed": True})
    study.trial()  # its checks combine several sections
    if isinstance(study.baseline, str) and study.baseline not in table:
        raise UnknownNameError("study of the baseline", study.baseline, table)
    if isinstance(study.baseline, Mapping):
        try:
            study.with_overrides(study.baseline)
        except LadderSearchError as error:
            raise SettingError(f"baseline: {error}") from error
    return study


def check_name(name: object, table: Mapping[str, Study]) -> None:
    """Raise ``SettingError`` unless a study may have this name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingError(
            f"name must be a plain folder name, got {name!r:.80}; use letters, digits, '.', '_', '-' and '+', first a "
            "letter or digit, 100 at most."
        )
    if name in table:
        raise SettingError(f"name must not be that of a built-in study, got {name}; choose another.")


def _changed(base: object, raw: Mapping[str, Any], table: Mapping[str, Study]) -> dict[str, Any]:
    """Return the settings of the study ``base``, changed by ``raw``.

    Target and baseline belong to the data and family they were measured with; others do not inherit them.
    """
    if not isinstance(base, str) or base not in table:
        raise UnknownNameError(f"study in {BASED_ON}", str(base), table)
    study = as_definition(table[base])
    other_family = raw.get("family", study["family"]) != study["family"]
    if "data" in raw or other_family:
        study.pop("target", None)
        study.pop("baseline", None)
    if other_family:
        for section in ("model", "space", "teacher", "sources", "title"):
            study.pop(section, None)
    data = raw.get("data")
    if isinstance(data, Mapping) and "file" in data:  # the data set and its rows are replaced
        study.pop("data")
    changed = merge(study, raw)
    for whole in ("target", "baseline"):  # replaced, not merged
        if whole in raw:
            changed[whole] = raw[whole]
    return changed


def _located(mapping: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings with absolute paths of data and bundles; addresses are unchanged."""

    def located(where: str, value: Any) -> Any:
        if not isinstance(value, str) or "://" in value:
            return value
        path = os.path.normpath(folder / expanded_address(value, where))
        if "runtime_resources" in Path(path).parts:
            raise SettingError(
                f"{where} must stay after the search, {path} lies in the copy of the working directory that Ray "
                "removes with the job; give an absolute path on the head, or the address of a bucket."
            )
        return path

    def in_data(where: str, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: located(f"{where}.{key}", item) if key in _DATA_PATHS else item for key, item in data.items()}

    found = dict(mapping)
    if "data" in found:
        found["data"] = in_data("data", found["data"])
    if isinstance(sources := found.get("sources"), Mapping):
        found["sources"] = {
            name: {
                **source,
                **({"data": in_data(f"sources.{name}.data", source["data"])} if "data" in source else {}),
                **({"bundle": located(f"sources.{name}.bundle", source["bundle"])} if "bundle" in source else {}),
            }
            if isinstance(source, Mapping)
            else source
            for name, source in sources.items()
        }
    return found
