"""Sharing of packs: the program that each configuration needs, and the actor ("desk") that assigns slots."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError

from ladder_search import plugins
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.models import find_family
from ladder_search.training.compiling import compile_pays
from ladder_search.trial import TrialSpec

SIDE_BY_SIDE = 2
"""Number of concurrent trials assumed when deciding to compile. It is constant, so that a command chooses the same
programs on every machine."""


def stacks(family: str) -> bool:
    """Whether networks of the family can be stacked into one program, and gain from it."""
    return find_family(family).stacking != "none"


def check_stacks(family: str, slots: int | str) -> None:
    """Raise ``SettingError`` if shared packs are configured for a family that does not support them."""
    if slots not in ("auto", 1) and not stacks(family):
        raise SettingError(
            f"trials of {family} share no packs, got --slots {slots}; leave it out, or share a GPU by a fraction with "
            "--gpus-per-trial."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiling:
    """Inputs of the decision to compile, fixed when the search begins and stored in ``study.json``."""

    mode: Literal["auto", "on", "off"]
    compiler: bool
    trials: int
    """Number of trials when the search began; a resume does not change it."""


class Programs:
    """The program of each configuration of a search, and whether compiling it pays.

    The results depend on the study, the options and ``Compiling`` only, not on the cache folder or the number of cores.
    """

    def __init__(self, compiling: Compiling, programs: int, own: TrialSpec, dataset: Dataset, *, slots: int) -> None:
        """Args: ``programs`` is the number of programs that the trials need; ``slots`` the trials per pack."""
        self._dataset, self._compiling, self._slots = dataset, compiling, slots
        self._variants = programs  # trials are divided evenly among them
        self._own = own.member(dataset).signature()

    def __getstate__(self) -> dict[str, Any]:
        """Exclude this object, which the scheduler refers to, from Ray's snapshot."""
        return {}

    def needed(self, settings: Mapping[str, Any], *, fixed: bool = False) -> dict[str, Any]:
        """Return ``signature`` (of the pack), ``seats`` and ``compiled`` for a trial; ``fixed`` for a fixed point.

        A fixed point whose program no other trial needs gets its own pack, because empty slots cost as much as used
        ones.
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
    desk: str | None
    """Name of the desk actor; None: every trial has its own pack."""
    accounts: list[dict[str, Any]]
    """Statistics of every host after the search, see ``trainables.pack_host.Account``."""


@runtime_checkable
class SharesPacks(Protocol):
    """Capability of a trainable class: its trials can share packs."""

    def open_desk(self, dataset: Dataset, how: Mapping[str, Any], *, name: str, share: tuple[float, float]) -> Any:
        """Start the desk and return its handle.

        Args:
            how: settings of the hosts: trials per pack, threads, device, keeper, copies.
            name: name of the actor.
            share: cores and GPUs of a pack.
        """


@runtime_checkable
class KeepsStages(Protocol):
    """Capability of a trainable class: its trials can be trained beside networks of an earlier stage."""

    def open_keeper(self, folder: Path, data: Mapping[str, Dataset], ready: Mapping[str, Path], *, name: str) -> Any:
        """Start the keeper and return its handle; arguments as for ``stage_keeper``."""


@contextmanager
def shared(
    trainable: type[tune.Trainable],
    dataset: Dataset,
    *,
    slots: int,
    share: tuple[float, float],
    keeper: str | None = None,
    copies: bool = False,
) -> Iterator[Sharing]:
    """Run the trials of a search in packs of ``slots`` trials.

    Args:
        trainable: unless its trials can share packs, each trains alone.
        share: cores and GPUs of a pack.
        keeper: name of the actor that holds earlier stages.
        copies: trials continue from each other's states, as in population based training.
    """
    if slots == 1 or not isinstance(trainable, SharesPacks):
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
        "plugins": plugins.sent(),
    }
    desk = trainable.open_desk(dataset, how, name=name, share=share)
    sharing = Sharing(desk=name, accounts=[])
    try:
        yield sharing
    finally:
        # An actor that does not respond ends with its owner, this process.
        with suppress(RayError, GetTimeoutError):
            sharing.accounts = ray.get(desk.close.remote(), timeout=30)
        ray.kill(desk)


@contextmanager
def stage_keeper(
    trainable: type[tune.Trainable], folder: Path, data: Mapping[str, Dataset], ready: Mapping[str, Path]
) -> Iterator[str | None]:
    """Start the actor that holds earlier stages; yield its name, None if trials have no stages.

    Args: ``folder`` receives the stages as bundles; ``data`` are their data sets by name, without test sets; ``ready``
    are folders of existing bundles by stage key.
    """
    if not data:
        yield None
        return
    name = f"keeper {uuid.uuid4().hex[:12]}"
    assert isinstance(trainable, KeepsStages), "sources need a trainable that keeps them"
    keeper = trainable.open_keeper(folder, data, ready, name=name)
    try:
        yield name
    finally:
        ray.kill(keeper)


def in_words(accounts: list[dict[str, Any]]) -> str | None:
    """Return a line about the use of the slots; None if there were no packs."""
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
