"""Settings of one search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ladder_search.config import in_range, merge
from ladder_search.errors import SettingError

if TYPE_CHECKING:
    from ladder_search.studies import Study
    from ladder_search.training.request import Request

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
