"""``search.py``, also ``ladder-search search``: converts the command line into the settings of a search."""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ladder_search.commands.command_line import Parser, number
from ladder_search.config import as_mapping, build, merge, parse_assignments, read_yaml
from ladder_search.disk.foreign import read_file
from ladder_search.driver.ray_address import find_address
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import SettingError, StudyFolderError, UnknownNameError, command_line
from ladder_search.paths import check_working_directory, expanded, expanded_address
from ladder_search.plugins import offer, read
from ladder_search.record.folder import StudyFolder, absolute_place, find_folder, latest
from ladder_search.tracking.address import variable_store, with_login

_FIXED = ("study", "draws", "seed", "label_seed", "sampler", "scheduler", "storage")
"""Settings that a resumed search cannot change, in addition to those of the study."""


_OPTIONS = {
    "resume": ("", "continue the study's latest search, or that of --name"),
    "trials": ("N", "configurations to try, the paper's own among them"),
    "draws": ("N", "label draws of each configuration; its error is their mean; auto: more for the best"),
    "seed": ("N", "seed of the sampler, weights, noise and batches"),
    "label_seed": ("N", "seed of the label draw, the same for all configurations"),
    "confirm": ("N", "reproduce the best configurations on N fresh seeds at the end"),
    "sampler": ("", "Optuna sampler that suggests configurations"),
    "scheduler": ("", "Ray Tune scheduler that stops weak trials"),
    "max_concurrent": ("N", "trials at the same time (default: as many as fit)"),
    "slots": ("N", "trials that share a pack, on one accelerator or CPU share, or auto"),
    "cpus_per_trial": ("N", "CPU cores of a trial, or of a pack (default: what its family requests)"),
    "gpus_per_trial": ("N", "GPUs of a trial or pack; auto: what its family requests (default: auto on a GPU cluster)"),
    "time_budget": ("SECONDS", "stop the trials that are still running after this time"),
    "compile": ("", "compile the training step"),
    "epochs": ("N", "length of each trial (default: the study's own)"),
    "set": ("NAME=VALUE", "override a setting, for example model.combinator=vanilla"),
    "config": ("FILE", "YAML file with any of these settings"),
    "plugin": ("FILE", "Python file that registers families or studies; may be repeated"),
    "address": ("HOST:PORT", "Ray cluster; auto: this node's, local: a private one (default: RAY_ADDRESS, else local)"),
    "root": ("FOLDER", "folder of the study folders and of the tracking store"),
    "name": ("NAME", "name of the study folder (default: study and time)"),
    "tracking": ("URI", "MLflow store (default: MLFLOW_TRACKING_URI, else a SQLite file in the root folder)"),
    "offline": ("", "do not upload to the store now; `ladder-search sync` uploads later"),
    "storage": ("URI", "folder or bucket for checkpoints, writable by every node (default: the study folder)"),
}  # fmt: skip
"""Setting -> placeholder of its value and help; types, choices and defaults are those of ``SearchSettings``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``search.py``; options that are not given are absent from the parsed arguments."""
    parser.epilog = "Example: python search.py mnist-100-full --trials 64 --gpus-per-trial 0.25 --set training.lr=0.001"
    parser.add_argument(
        "study",
        nargs="?",
        default=argparse.SUPPRESS,
        help="a row of `ladder-search studies`, or a study file: NAME.yaml",
    )
    hints = get_type_hints(SearchSettings)
    defaults = {field.name: field.default for field in fields(SearchSettings)}
    for name, (metavar, text) in _OPTIONS.items():
        hint, default = hints.get(name, str), defaults.get(name)
        members = get_args(hint) or (hint,)
        settings: dict[str, Any] = {"metavar": metavar}
        if hint is bool or name in ("set", "plugin"):
            settings = {"action": "store_true"} if hint is bool else {"action": "append", **settings}
        elif get_origin(hint) is Literal:
            settings = {"choices": members}
        elif int in members or float in members:
            settings["type"] = number(int if int in members else float, least=None, auto=Literal["auto"] in members)
        if isinstance(default, str | int | float) and default is not False:
            text += f" (default: {default})"
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default=argparse.SUPPRESS, help=text, **settings)


def run(arguments: argparse.Namespace) -> None:
    """Run the checkout's ``search.py``, which parses the same command line again."""
    script = Path(__file__).resolve().parents[2] / "search.py"
    if not script.is_file():
        raise SettingError(
            f"`ladder-search search` runs the checkout's search.py and {script} does not exist; run it from a checkout."
        )
    sys.argv = [str(script), *sys.argv[2:]]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def parse_arguments(arguments: Sequence[str]) -> SearchSettings:
    """Parse the command line of ``search.py``; raise ``LadderSearchError`` for any mistake.

    The file of ``--config`` has the lowest precedence, then the options in ``LADDER_SEARCH_OPTIONS`` (set on clusters),
    then the command line.
    """
    parser = Parser("search", "Search the hyper-parameters of one study with Ray Tune and Optuna, tracked in MLflow.")
    add_arguments(parser)
    standing = _standing_options()
    options = vars(parser.parse_args([*standing, *arguments]))
    check_working_directory()
    path, assignments = options.pop("config", None), options.pop("set", [])
    values = _read_file(expanded(path, "--config")) if path else {}
    in_file = "address" in values
    values |= options
    _expand_paths(values)
    values["overrides"] = merge(values.get("overrides", {}), parse_assignments(assignments))
    if values.get("resume"):
        values = _as_begun(values)
    elif values.get("tracking") is None:
        values["tracking"] = variable_store()
    if isinstance(values.get("tracking"), str):
        values["tracking"] = with_login(values["tracking"])
    if "study" not in values:
        raise SettingError(f"a search needs a study, none was given; name one, `{command_line('studies')}` lists them.")
    if not values.get("resume"):
        offer(read(Path(path)) for path in values.get("plugin", ()) if isinstance(path, str))
        values |= _definition(values["study"], values.get("root", "results"))
    settings = build(SearchSettings, values)
    if "address" in options:
        typed = "address" in vars(parser.parse_known_args(arguments)[0])
        source = "--address" if typed else "--address in LADDER_SEARCH_OPTIONS"
    else:
        source = f"address in {path}" if in_file else f"address in the study.json of {settings.name}"
    object.__setattr__(settings, "address_from", source)  # the dataclass is frozen, and files must not set this
    find_address(settings.address, source)  # checks the form before slow imports
    settings.resolved_study()
    return settings


def _expand_paths(values: dict[str, Any]) -> None:
    """Expand ``~`` and variables in every setting that is a path, or an address with one."""
    for name in ("root", "tracking", "storage"):
        if isinstance(values.get(name), str):  # other types are refused by the settings
            values[name] = expanded_address(values[name], f"--{name}")
    if isinstance(values.get("plugin"), list):
        values["plugin"] = [expanded(path, "--plugin") if isinstance(path, str) else path for path in values["plugin"]]


def _definition(study: Any, root: Any) -> dict[str, Any]:
    """Return ``study`` and ``definition`` of the settings: for a file, its whole content."""
    if not isinstance(study, str) or not isinstance(root, str):
        return {"definition": None}  # refused by the settings
    from ladder_search.studies import as_definition, find_study  # imports torch, which takes seconds

    found = find_study(study, Path(root))
    return {"study": found.name, "definition": as_definition(found) if found.proposed else None}


def _check_file(path: str, settings: Mapping[str, Any], folder: Path) -> str:
    """Return the name of the study of a file; raise ``SettingError`` unless it is still that of the search."""
    from ladder_search.studies import as_definition, difference, find_study

    study = find_study(path)
    if study.name == settings["study"] and (changed := difference(settings["definition"] or {}, as_definition(study))):
        raise SettingError(
            f"a resumed search keeps its study, and in {path} {changed}; resume by --resume --name {folder.name}, "
            "which uses the copy in the study folder, or start a new search."
        )
    return study.name


def _as_begun(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the search to resume, updated by the settings that a resume may change."""
    from ladder_search.driver.storage import lasting  # imports Ray, which takes seconds that --help saves
    from ladder_search.studies import is_study_file

    root, name = Path(lasting(given.get("root", "results"))), given.get("name")
    if name is None and "study" not in given:
        raise SettingError("--resume needs a study or a --name, got neither; name the search to resume.")
    folder = StudyFolder(root / name) if name else find_folder(root, given["study"])
    description = folder.description()
    try:
        settings = as_mapping(build(SearchSettings, latest(description)["settings"]))
    except (SettingError, UnknownNameError, TypeError, LookupError) as error:
        raise StudyFolderError(
            f"{folder.path / 'study.json'} must hold the settings of a search: {str(error)[:300].rstrip('.')}; restore "
            "it or start anew."
        ) from error
    given = {**given, "plugin": _kept_plugins(given, folder, description)}
    if isinstance(given.get("study"), str) and is_study_file(given["study"]):
        given = {**given, "study": _check_file(given["study"], settings, folder.path)}
    for field_name in ("tracking", "storage"):
        if settings[field_name]:
            settings[field_name] = absolute_place(settings[field_name], folder.path.parent)
    if given.get("storage") and settings["storage"]:
        given = {**given, "storage": lasting(given["storage"])}
        settings["storage"] = lasting(settings["storage"])
    for field_name in _FIXED:
        option = field_name if field_name == "study" else f"--{field_name.replace('_', '-')}"
        if field_name in given and given[field_name] != settings[field_name]:
            raise SettingError(
                f"a resumed search keeps its options, and {option} of {folder.path} is {settings[field_name]}, got "
                f"{given[field_name]}; leave it out or start a new search."
            )
    if given.get("trials", settings["trials"]) < settings["trials"]:
        raise SettingError(
            f"a resumed search may only become longer, and --trials of {folder.path} is {settings['trials']}, got "
            f"{given['trials']}; leave it out or give more."
        )
    overrides = merge(settings["overrides"], given["overrides"])
    # The study may have been given as a path.
    place = given.get("root", "results") if folder.path.parent == root else str(folder.path.parent)
    return {**settings, **given, "root": place, "name": folder.path.name, "overrides": overrides}


def _kept_plugins(given: Mapping[str, Any], folder: StudyFolder, description: Mapping[str, Any]) -> list[str]:
    """Return the copies of the search's plugins; raise ``SettingError`` if another version or file is given."""
    for note in folder.offer_plugins(description):
        print(note)
    kept = {row["name"]: row["sha256"] for row in description.get("plugins", ()) if "sha256" in row}
    for path in given.get("plugin", ()):
        plugin = read(Path(path))
        if plugin.version not in kept.values():
            before = ", ".join(f"{name} with sha256 {digest[:12]}" for name, digest in kept.items()) or "none"
            raise SettingError(
                f"a resumed search keeps its plugins, {folder.path} has {before}, and {path} has sha256 "
                f"{plugin.version[:12]}; leave --plugin out or start a new search."
            )
    return [str(folder.plugins / name) for name in kept]


def _read_file(path: str) -> dict[str, Any]:
    try:
        text = read_file(Path(path), 1 << 20).decode()
    except (OSError, ValueError) as error:
        raise SettingError(f"--config must be a readable file, {path} is not: {error}; correct its path.") from error
    settings = read_yaml(text, what=path)
    if not isinstance(settings, dict):
        raise SettingError(
            f"--config must hold settings, {path} holds {type(settings).__name__}; write name: value lines."
        )
    values = {str(name).replace("-", "_"): value for name, value in settings.items()}
    if "definition" in values:
        raise SettingError(f"--config names a study or a study file, {path} has a definition; write study: NAME.yaml.")
    overrides = values.pop("set", None)  # name of the option
    if overrides is not None and "overrides" not in values:
        values["overrides"] = overrides
    if not isinstance(values.get("overrides", {}), dict):
        raise SettingError(
            f"set in --config must hold groups of settings, {path} has {values['overrides']!r}; "
            "write for example set: {model: {combinator: vanilla}}."
        )
    return values


def _standing_options() -> list[str]:
    options = os.environ.get("LADDER_SEARCH_OPTIONS", "")
    try:
        return shlex.split(options)
    except ValueError as error:
        raise SettingError(
            f"LADDER_SEARCH_OPTIONS must be options as in a shell, got {options!r}: {error}; close the quotation."
        ) from error
