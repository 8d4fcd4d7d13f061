"""How the trials of a search come to share packs: which program a configuration needs, and the desk that seats it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import GetTimeoutError, RayError

from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.models import find_family
from ladder_search.training.compiling import compile_pays
from ladder_search.trial import TrialSpec

SIDE_BY_SIDE = 2
"""Trials at a time that the decision to compile counts with, on every machine, so that the same command has the same
programs everywhere."""


def stacks(family: str) -> bool:
    """Whether networks of the family can be, and are worth being, one program."""
    return find_family(family).stacking != "none"


def check_stacks(family: str, slots: int | str) -> None:
    """Raise ``SettingError`` when a search asks for shared packs of a family that has none."""
    if slots not in ("auto", 1) and not stacks(family):
        raise SettingError(
            f"trials of {family} share no packs, got --slots {slots}; leave it out, or share a GPU by a fraction with "
            "--gpus-per-trial."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiling:
    """What decides whether the steps of a search are compiled, as its first life had it; kept in ``study.json``."""

    mode: Literal["auto", "on", "off"]
    compiler: bool
    """Whether a compiler was found."""
    trials: int
    """Trials of the search when it began: those that a resume adds change nothing."""


class Programs:
    """The program that trains each configuration of a search, and whether compiling it pays.

    The answers are a function of the study, the options of the search and ``Compiling``: neither the cache folder nor
    the number of cores changes them.
    """

    def __init__(self, compiling: Compiling, programs: int, own: TrialSpec, dataset: Dataset, *, slots: int) -> None:
        """Args: ``programs``, how many the trials need; ``slots``, trials in a pack."""
        self._dataset, self._compiling, self._slots = dataset, compiling, slots
        self._variants = programs  # each gets its part of the trials
        self._own = own.member(dataset).signature()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles the scheduler, which refers to this object, into snapshots that nothing reads."""
        return {}

    def needed(self, settings: Mapping[str, Any], *, fixed: bool = False) -> dict[str, Any]:
        """Return ``signature`` (of the pack), ``seats`` and ``compiled`` for a trial; ``fixed``: it is no suggestion.

        A configuration whose program no other trial needs gets a pack for itself: empty slots cost as taken ones do.
        """
        spec = TrialSpec.from_mapping(settings)
        member = spec.member(self._dataset)
        signature = member.signature()
        alone = fixed and signature != self._own
        seats, trials = (1, 1.0) if alone else (self._slots, self._compiling.trials / self._variants)
        digest = hashlib.sha256(repr((spec.family, spec.draws, seats, signature)).encode()).hexdigest()[:10]
        return {"signature": digest, "seats": seats, "compiled": self._compiles(spec, trials)}

    def _compiles(self, spec: TrialSpec, trials: float) -> bool:
        if self._compiling.mode != "auto":
            return self._compiling.mode == "on"
        if not self._compiling.compiler or not find_family(spec.family).compiling:
            return False
        member = spec.member(self._dataset)
        together = max(1, round(min(trials, self._slots)))
        packs = min(max(1, SIDE_BY_SIDE // self._slots), max(1.0, trials / self._slots))
        steps = int(trials * member.total_steps / together / packs)
        return compile_pays(member.flops, steps, members=together * spec.draws)


@dataclass(slots=True, kw_only=True)
class Sharing:
    """The packs of a search that runs."""

    desk: str | None
    """Name of the desk; None: every trial has a pack of its own."""
    accounts: list[dict[str, Any]]
    """Afterwards: what every host did, see ``trainables.pack_host.Account``."""


@contextmanager
def shared(
    trainable: Any,
    dataset: Dataset,
    *,
    slots: int,
    share: tuple[float, float],
    keeper: str | None = None,
    copies: bool = False,
) -> Iterator[Sharing]:
    """Run the trials of a search in packs of ``slots`` trials.

    Args:
        trainable: its ``open_desk`` starts the desk; one without trains each trial alone.
        share: cores and GPUs of a pack.
        keeper: name of the actor that keeps earlier stages.
        copies: trials continue from each other's states, as in a population.
    """
    if slots == 1 or not hasattr(trainable, "open_desk"):
        yield Sharing(desk=None, accounts=[])
        return
    name = f"desk {uuid.uuid4().hex[:12]}"
    cpus, gpus = share
    how = {
        "trials": slots,
        "threads": max(1, int(cpus)),
        "device": "cuda" if gpus else "cpu",
        "keeper": keeper,
        "copies": copies,
    }
    desk = trainable.open_desk(dataset, how, name=name, share=share)
    sharing = Sharing(desk=name, accounts=[])
    try:
        yield sharing
    finally:
        # Whatever does not answer now ends with its owner, this process.
        with suppress(RayError, GetTimeoutError):
            sharing.accounts = ray.get(desk.close.remote(), timeout=30)
        ray.kill(desk)


@contextmanager
def kept(trainable: Any, folder: Path, data: Mapping[str, Dataset], ready: Mapping[str, Path]) -> Iterator[str | None]:
    """Keep the earlier stages of a search's trials; yield the keeper's name, None where trials have no stages.

    Args:
        folder: holds them as bundles.
        data: the stages' data sets by name, without test sets.
        ready: folders of bundles that stages name, by their keys.
    """
    if not data:
        yield None
        return
    name = f"keeper {uuid.uuid4().hex[:12]}"
    keeper = trainable.open_keeper(folder, data, ready, name=name)
    try:
        yield name
    finally:
        ray.kill(keeper)


def in_words(accounts: list[dict[str, Any]]) -> str | None:
    """Say in a line how well the slots were used; None: there were no packs."""
    intervals = sum(a["intervals"] for a in accounts)
    if not intervals:
        return None
    trained, waited = (sum(a[name] for a in accounts) for name in ("trained_s", "waited_s"))
    slots = sum(a["intervals"] * a["trials"] for a in accounts)
    used = sum(a["trial_intervals"] for a in accounts)
    n, largest = len(accounts), max(a["trials"] for a in accounts)
    return (
        f"Packs: {n} of up to {largest} trials each, slots {used / slots:.0%} occupied, "
        f"idle {waited / (trained + waited):.0%} of the time."
    )
