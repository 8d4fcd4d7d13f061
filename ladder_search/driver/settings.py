"""Settings of one search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ladder_search import plugins
from ladder_search.config import in_range, merge
from ladder_search.errors import SettingError

if TYPE_CHECKING:  # both import PyTorch, and ``--help`` reads the settings without it
    from ladder_search.studies import Study
    from ladder_search.training.request import Request

_SMALLEST_SHARE = 1e-4
"""Resolution of Ray's resource counts."""
# used in paths, run keys and addresses
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """Settings of one search: the study, the number of trials, resources and locations."""

    study: str
    """Row of ``studies.STUDIES``, or name of the study that ``definition`` describes."""
    definition: Mapping[str, Any] | None = None
    """The whole study as its file defines it, with absolute paths; none for a row of the table."""
    trials: int = 24
    """Number of configurations to try, including the paper's and the supervised baseline."""
    draws: int | Literal["auto"] = 1
    """Label draws that each configuration is trained on at once; auto: one at first, and more for the best (asha
    only)."""
    confirm: int | None = None
    """Fresh seeds on which the best configurations and the study's own are reproduced at the end; none: not at all."""
    seed: int = 1
    """Seed of the sampler and of every trial's weights, noise and batches."""
    label_seed: int = 1
    """Seed of the label draw, shared by all configurations so that they are compared in pairs."""
    sampler: Literal["tpe", "random", "cma-es"] = "tpe"
    """Optuna's sampler."""
    scheduler: Literal["asha", "fifo", "pbt"] = "asha"
    """asha: stop weak trials at rungs; fifo: stop none; pbt: replace weak trials by copies of strong ones."""
    max_concurrent: int | None = None
    """Maximum number of concurrent trials; none: as many as fit on the machine or cluster."""
    slots: int | Literal["auto"] = "auto"
    """Trials per pack, each of which requests 1/slots of the pack's accelerator or cores; auto: the best of a short
    benchmark."""
    cpus_per_trial: float | None = None
    """Cores per trial or pack; none: what the family requests for the study's settings."""
    gpus_per_trial: float | Literal["auto"] | None = None
    """GPUs per trial or pack; auto: what the family requests for the study's settings; none: auto on a cluster with
    GPUs, otherwise 0."""
    time_budget: float | None = None
    """Seconds after which running trials are stopped; none: no limit."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the training step; auto: if the search is long enough to amortize it."""
    epochs: int | None = None
    """Length of each trial; none: the study's. The schedule changes with it."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings that override the study's (--set)."""
    address: str | None = None
    """Ray cluster to join ("auto": that of this node); local: start a private one; none: the cluster of
    ``RAY_ADDRESS``, else a private one."""
    address_from: str = field(default="--address", init=False, compare=False)
    """Origin of ``address`` for messages; not stored."""
    plugin: tuple[str, ...] = ()
    """Python files that register families or studies; the study folder keeps copies."""
    root: str = "results"
    """Folder of the study folders and the default tracking store."""
    name: str | None = None
    """Name of the study folder; none: name of the study and time."""
    tracking: str | None = None
    """Address of the MLflow store; none: a SQLite file in the root folder. The command line's default is
    ``MLFLOW_TRACKING_URI``."""
    offline: bool = False
    """Do not contact the store; ``ladder-search sync`` uploads the results later."""
    storage: str | None = None
    """Folder or bucket for checkpoints, writable by every node; none: the study folder."""
    resume: bool = False
    """Resume the search in the folder ``name``."""

    @property
    def fixed_draws(self) -> int:
        """Label draws that every trial trains at once."""
        return 1 if self.draws == "auto" else self.draws

    @property
    def cpus(self) -> float:
        """``cpus_per_trial`` of ``resolved`` settings."""
        assert self.cpus_per_trial is not None
        return self.cpus_per_trial

    @property
    def gpus(self) -> float:
        """``gpus_per_trial`` of ``resolved`` settings."""
        assert isinstance(self.gpus_per_trial, (int, float))
        return self.gpus_per_trial

    def resolved(self, request: Request, *, has_gpus: bool) -> SearchSettings:
        """Return these settings with unset resources filled in from the request of the study's trial.

        Args: ``has_gpus`` is whether trials can use GPUs of the cluster.
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
        for name in ("trials", "draws", "confirm", "slots", "max_concurrent"):
            value = getattr(self, name)
            if value not in (None, "auto") and value < 1:
                option = f"--{name.replace('_', '-')}"
                raise SettingError(f"{option} must be at least 1, got {value}; give a positive whole number.")
        for name in ("seed", "label_seed"):
            in_range(f"--{name.replace('_', '-')}", getattr(self, name), 0, 2**32 - 1)  # the samplers' range
        if self.cpus_per_trial is not None:
            in_range("--cpus-per-trial", self.cpus_per_trial, 0.01, 1e4)
        together = 1 if self.slots == "auto" else min(self.slots, self.trials)
        for name in ("cpus_per_trial", "gpus_per_trial"):
            value = getattr(self, name)
            if value not in (None, "auto") and 0 < value / together < _SMALLEST_SHARE:
                option = f"--{name.replace('_', '-')}"
                raise SettingError(
                    f"each trial must request at least {_SMALLEST_SHARE:g} of a resource, got {option} {value:g} over "
                    f"{together} slots; raise it or lower --slots."
                )
        if isinstance(self.gpus_per_trial, (int, float)):
            in_range("--gpus-per-trial", self.gpus_per_trial, 0.0, 1e3)
            share = self.gpus_per_trial / together
            if share > 1 and share % 1:
                raise SettingError(
                    "--gpus-per-trial (over --slots) must be a fraction below 1 or a whole number, got "
                    f"{share:g}; Ray has no other shares."
                )
        if self.time_budget is not None:
            in_range("--time-budget", self.time_budget, 1.0, 1e9)
        for name in ("address", "root", "tracking", "storage"):
            value = getattr(self, name) or ""
            if not value.isprintable():  # NUL, line breaks and lone surrogates are invalid in paths and addresses
                raise SettingError(f"--{name} must be printable text, got {value!r:.80}; correct it.")
        if self.name is not None and not _FOLDER_NAME.fullmatch(self.name):
            raise SettingError(
                f"--name must be a plain folder name, got {self.name!r}; use letters, digits, '.', '_', '-' and '+', "
                "first a letter or digit, 200 at most."
            )

    def resolved_study(self) -> Study:
        """Return the study with ``--set`` and ``--epochs`` applied; raise ``LadderSearchError`` if they are invalid."""
        from ladder_search.studies import study_of  # imports torch, which takes seconds

        for path in self.plugin:
            plugins.use(Path(path))

        overrides = dict(self.overrides)
        if self.epochs is not None:
            overrides = merge(overrides, {"training": {"epochs": self.epochs}})
        study = study_of({"study": self.study, "definition": self.definition}).with_overrides(overrides)
        self.resolved(study.trial().request(), has_gpus=False)  # checks the shares before Ray starts
        return study
