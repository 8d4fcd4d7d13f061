"""Settings of one search, and the arguments that they are read from."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from ladder_search.config import as_mapping, build, in_range, merge, parse_assignments, read_yaml
from ladder_search.disk.foreign import read_file
from ladder_search.driver.ray_address import find_address
from ladder_search.driver.storage import lasting
from ladder_search.errors import SettingError, StudyFolderError, UnknownNameError, command_line
from ladder_search.paths import check_working_directory, expanded, expanded_address
from ladder_search.record.folder import StudyFolder, absolute_place, find_folder, latest
from ladder_search.tracking.address import variable_store, with_login

if TYPE_CHECKING:
    from ladder_search.studies import Study
    from ladder_search.training.request import Request

_FIXED = ("study", "draws", "seed", "label_seed", "sampler", "scheduler", "storage")
"""What a resume may not change, beside the study's own settings."""
_SMALLEST_SHARE = 1e-4
"""Ray counts resources in units of that."""
# It becomes part of paths, run keys and addresses.
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """One search: which study, how many trials, with what, where."""

    study: str
    """Row of ``studies.STUDIES``."""
    trials: int = 24
    """Configurations to try, the paper's own and the supervised baseline among them."""
    draws: int = 1
    """Label draws that each configuration is trained on."""
    seed: int = 1
    """Seed of the sampler and of every trial's weights, noise and batches."""
    label_seed: int = 1
    """Seed of the label draw: the same for all configurations, so that they are compared in pairs."""
    sampler: Literal["tpe", "random", "cma-es"] = "tpe"
    """Optuna's sampler that suggests configurations."""
    scheduler: Literal["asha", "fifo", "pbt"] = "asha"
    """asha: weak trials stop at rungs; fifo: none stops; pbt: weak trials continue from copies of strong ones."""
    max_concurrent: int | None = None
    """Trials that run at the same time; none: as many as the machine or cluster has room for."""
    slots: int | Literal["auto"] = "auto"
    """Trials that share a pack, and with it an accelerator or a CPU share: each asks for 1/slots of that; auto: as many
    as a short probe finds best."""
    cpus_per_trial: float | None = None
    """Cores of a trial, or of a pack; none: as many as the family requests for the study's settings."""
    gpus_per_trial: float | Literal["auto"] | None = None
    """GPUs of a trial, or of a pack; auto: the share that the family requests for the study's settings; none: auto on
    a cluster that has GPUs, otherwise 0."""
    time_budget: float | None = None
    """Seconds after which running trials are stopped; none: no limit."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the training step; auto: when the search is long enough to earn it back."""
    epochs: int | None = None
    """Length of each trial; none: the study's own. Another length is another schedule."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings put over the study's own (--set)."""
    address: str | None = None
    """Ray cluster to join ("auto": the one of this node); local: a private one of this search; none: the cluster of
    ``RAY_ADDRESS``, else a private one."""
    address_from: str = field(default="--address", init=False, compare=False)
    """Where ``address`` comes from, for messages; no setting, and kept in no file."""
    root: str = "results"
    """Folder that holds the study folders and the default tracking store."""
    name: str | None = None
    """Name of the study folder; none: the study's name and the time."""
    tracking: str | None = None
    """Address of the MLflow store; none: a SQLite file in the root folder. The command line's default is
    ``MLFLOW_TRACKING_URI``."""
    offline: bool = False
    """Ask nothing of the store and send nothing; ``ladder-search sync`` does so later."""
    storage: str | None = None
    """Folder or bucket that every node can write, for checkpoints; none: the study folder."""
    resume: bool = False
    """Go on with the search in the folder ``name`` instead of beginning one."""

    @property
    def cpus(self) -> float:
        """``cpus_per_trial`` of settings that are ``resolved``."""
        assert self.cpus_per_trial is not None
        return self.cpus_per_trial

    @property
    def gpus(self) -> float:
        """``gpus_per_trial`` of settings that are ``resolved``."""
        assert isinstance(self.gpus_per_trial, (int, float))
        return self.gpus_per_trial

    def resolved(self, request: Request, *, has_gpus: bool) -> SearchSettings:
        """Return these settings with unset resources filled in from the request of the study's own trial.

        Args:
            has_gpus: whether the cluster has GPUs that trials can use.
        """
        cpus, gpus = self.cpus_per_trial, self.gpus_per_trial
        if gpus is None:
            gpus = "auto" if has_gpus else 0.0
        settings = replace(
            self,
            cpus_per_trial=request.cpus if cpus is None else cpus,
            gpus_per_trial=request.gpus if gpus == "auto" else gpus,
        )
        object.__setattr__(settings, "address_from", self.address_from)
        return settings

    def __post_init__(self) -> None:
        for name in ("trials", "draws", "slots"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise SettingError(f"--{name} must be at least 1, got {value}; give a positive whole number.")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise SettingError(
                f"--max-concurrent must be at least 1, got {self.max_concurrent}; give a positive whole number."
            )
        for name in ("seed", "label_seed"):
            in_range(f"--{name.replace('_', '-')}", getattr(self, name), 0, 2**32 - 1)  # what the samplers take
        if self.cpus_per_trial is not None:
            in_range("--cpus-per-trial", self.cpus_per_trial, 0.01, 1e4)
        together = 1 if self.slots == "auto" else min(self.slots, self.trials)
        for name in ("cpus_per_trial", "gpus_per_trial"):
            value = getattr(self, name)
            if value not in (None, "auto") and 0 < value / together < _SMALLEST_SHARE:
                option = f"--{name.replace('_', '-')}"
                raise SettingError(
                    f"each trial must ask for at least {_SMALLEST_SHARE:g} of a resource, got {option} {value:g} over "
                    f"{together} slots; raise it or lower --slots."
                )
        if isinstance(self.gpus_per_trial, (int, float)):
            in_range("--gpus-per-trial", self.gpus_per_trial, 0.0, 1e3)
            share = self.gpus_per_trial / together
            if share > 1 and share % 1:
                raise SettingError(
                    "--gpus-per-trial (over --slots) must be a fraction below 1 or a whole number, got "
                    f"{share:g}; Ray gives out no other shares."
                )
        if self.time_budget is not None:
            in_range("--time-budget", self.time_budget, 1.0, 1e9)
        for name in ("address", "root", "tracking", "storage"):
            value = getattr(self, name) or ""
            if not value.isprintable():  # a NUL, a line's end, half of a character: no path and no address has them
                raise SettingError(f"--{name} must be printable text, got {value!r:.80}; correct it.")
        if self.name is not None and not _FOLDER_NAME.fullmatch(self.name):
            raise SettingError(
                f"--name must be a plain folder name, got {self.name!r}; use letters, digits, '.', '_', '-' and '+', "
                "first a letter or digit, 200 at most."
            )

    def resolved_study(self) -> Study:
        """The study with ``--set`` and ``--epochs`` put over it.

        Raises:
            UnknownNameError, SettingError: an unknown study or setting, or a value out of range.
        """
        from ladder_search.studies import find_study  # imports torch: seconds that --help and a wrong option do without

        overrides = dict(self.overrides)
        if self.epochs is not None:
            overrides = merge(overrides, {"training": {"epochs": self.epochs}})
        study = find_study(self.study).with_overrides(overrides)
        self.resolved(study.trial().request(), has_gpus=False)  # checks the shares before Ray starts
        return study


def parse_arguments(arguments: Sequence[str]) -> SearchSettings:
    """Read the command line of ``search.py``.

    Later wins: the file of ``--config``, the options in the variable ``LADDER_SEARCH_OPTIONS`` (a cluster's own), the
    command line.

    Raises:
        LadderSearchError: an unknown study or setting, a value out of range, an unreadable file.
    """
    parser, standing = _parser(), _standing_options()
    given = vars(parser.parse_args([*standing, *arguments]))
    check_working_directory()
    path, assignments = given.pop("config", None), given.pop("set", [])
    values = _read_file(expanded(path, "--config")) if path else {}
    in_file = "address" in values
    values |= given
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
    settings = build(SearchSettings, values)
    if "address" in given:
        typed = "address" in vars(parser.parse_known_args(arguments)[0])
        source = "--address" if typed else "--address in LADDER_SEARCH_OPTIONS"
    else:
        source = f"address in {path}" if in_file else f"address in the study.json of {settings.name}"
    object.__setattr__(settings, "address_from", source)  # frozen, and no setting that a file may hold
    find_address(settings.address, source)  # here for its form, before what takes seconds to import
    settings.resolved_study()
    return settings


def _expand_paths(values: dict[str, Any]) -> None:
    """Expand ``~`` and variables in every setting that is a path, or an address with one."""
    for name in ("root", "tracking", "storage"):
        if isinstance(values.get(name), str):  # whatever else it is, the settings refuse it
            values[name] = expanded_address(values[name], f"--{name}")


def _as_begun(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the search that is meant, with those put over them that may change between its lives."""
    root, name = Path(lasting(given.get("root", "results"))), given.get("name")
    if name is None and "study" not in given:
        raise SettingError("--resume needs a study or a --name, got neither; name the one to go on with.")
    folder = StudyFolder(root / name) if name else find_folder(root, given["study"])
    description = folder.description()
    try:
        begun = as_mapping(build(SearchSettings, latest(description)["settings"]))
    except (SettingError, UnknownNameError, TypeError, LookupError) as error:
        raise StudyFolderError(
            f"{folder.path / 'study.json'} must hold the settings of a search: {str(error)[:300].rstrip('.')}; restore "
            "it or start anew."
        ) from error
    for field_name in ("tracking", "storage"):
        if begun[field_name]:
            begun[field_name] = absolute_place(begun[field_name], folder.path.parent)
    if given.get("storage") and begun["storage"]:
        given = {**given, "storage": lasting(given["storage"])}
        begun["storage"] = lasting(begun["storage"])
    for field_name in _FIXED:
        option = field_name if field_name == "study" else f"--{field_name.replace('_', '-')}"
        if field_name in given and given[field_name] != begun[field_name]:
            raise SettingError(
                f"a search is resumed as it was begun and {option} of {folder.path} is {begun[field_name]}, got "
                f"{given[field_name]}; leave it out or start a new search."
            )
    if given.get("trials", begun["trials"]) < begun["trials"]:
        raise SettingError(
            f"a search that is resumed may only grow and --trials of {folder.path} is {begun['trials']}, got "
            f"{given['trials']}; leave it out or give more."
        )
    overrides = merge(begun["overrides"], given["overrides"])
    # The study may have been named by a path of its own.
    place = given.get("root", "results") if folder.path.parent == root else str(folder.path.parent)
    return {**begun, **given, "root": place, "name": folder.path.name, "overrides": overrides}


def _read_file(path: str) -> dict[str, Any]:
    try:
        text = read_file(Path(path), 1 << 20).decode()
    except (OSError, ValueError) as error:
        raise SettingError(f"--config must be a readable file, {path} is not: {error}; correct its path.") from error
    found = read_yaml(text, what=path)
    if not isinstance(found, dict):
        raise SettingError(
            f"--config must hold settings, {path} holds {type(found).__name__}; write name: value lines."
        )
    values = {str(name).replace("-", "_"): value for name, value in found.items()}
    overrides = values.pop("set", None)  # the command line's name for it
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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the manner of all other errors."""

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ")
        unknown = text.removeprefix("unrecognized arguments: ").split()
        if text.startswith("unrecognized") and unknown[0].startswith("--"):
            options = re.findall(r"--[\w-]+", self.format_usage())
            raise UnknownNameError("option", unknown[0].partition("=")[0], options)
        usage = command_line("search", help=True)
        raise SettingError(f"the command line must be as `{usage}` says: {text}; correct it.")


def _whole_or_auto(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or auto, got {text!r}") from None


def _number_or_auto(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    # Suppressed defaults: what was not given stays absent, and SearchSettings is the one place with defaults.
    parser = _Parser(
        prog="search.py",
        description="Search the hyper-parameters of one study with Ray Tune and Optuna, tracked in MLflow.",
        epilog="Example: python search.py mnist-100-full --trials 64 --gpus-per-trial 0.25 --set training.lr=0.001",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("study", nargs="?", help="a row of `ladder-search studies`")
    add("--resume", action="store_true", help="go on with the study's latest search, or with that of --name")
    add("--trials", type=int, help="configurations to try, the paper's own among them (24)")
    add("--draws", type=int, help="label draws per configuration; its error is their mean (1)")
    add("--seed", type=int, help="seed of sampler, weights, noise and batches (1)")
    add("--label-seed", type=int, help="seed of the label draw, the same for all configurations (1)")
    add("--sampler", help="tpe, random or cma-es (tpe)")
    add("--scheduler", help="asha, fifo or pbt (asha)")
    add("--max-concurrent", type=int, help="trials at the same time (as many as there is room for)")
    add(
        "--slots", type=_whole_or_auto, help="trials that share a pack, on one accelerator or CPU share, or auto (auto)"
    )
    add("--cpus-per-trial", type=float, help="CPU cores of a trial, or of a pack (what its family requests)")
    share = "GPUs of a trial or pack, fractions allowed; auto: what its family requests (auto where there are GPUs)"
    add("--gpus-per-trial", type=_number_or_auto, help=share)
    add("--time-budget", type=float, metavar="SECONDS", help="stop what still runs after that time")
    add("--compile", help="auto, on or off: compile the training step (auto)")
    add("--epochs", type=int, help="length of each trial (the study's own)")
    add("--set", action="append", metavar="NAME=VALUE", help="override a setting: model.combinator=vanilla")
    add("--config", metavar="FILE", help="YAML file with any of these settings")
    add("--address", help="Ray cluster to join, auto: this node's, local: a private one (RAY_ADDRESS, else local)")
    add("--root", help="folder of the study folders and of the tracking store (results)")
    add("--name", help="name of the study folder (study and time)")
    add("--tracking", metavar="URI", help="MLflow store (MLFLOW_TRACKING_URI, else a SQLite file in the root folder)")
    add("--offline", action="store_true", help="send nothing to the store now; ladder-search sync does so later")
    add("--storage", metavar="URI", help="folder or bucket for checkpoints that every node can write")
    return parser
