"""Plan of how the trials of a search share the cluster, made once before the first trial."""

from __future__ import annotations

from dataclasses import dataclass

from ladder_search.data.dataset import Dataset
from ladder_search.driver import cluster
from ladder_search.driver.arrangement import Choice, bounded, choose
from ladder_search.driver.journal import Journal
from ladder_search.driver.packs import Compiling, Programs, stacks
from ladder_search.driver.settings import SearchSettings
from ladder_search.trial import TrialSpec

MOST_PENDING = 16
"""Maximum number of pending trials on a cluster that may grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    settings: SearchSettings
    slots: int
    share: cluster.Share
    room: int
    pending: int
    """Number of trials that request resources ahead of time."""
    alive: int
    """Maximum number of concurrent trials."""
    programs: Programs
    journal: Journal

    @property
    def device(self) -> str:
        return "cuda" if self.share.gpus else "cpu"


def choose_slots(
    settings: SearchSettings,
    own: TrialSpec,
    dataset: Dataset,
    *,
    compiling: Compiling,
    programs: int,
    kept: int | None,
    trials: int,
    private: bool,
    shares_packs: bool,
) -> Choice:
    """Return how many trials share a pack.

    Args:
        programs: number of programs in the space; each has its own packs.
        kept: the choice of an earlier execution of the search.
        trials: number of trials that have not ended.
        shares_packs: whether the family's trainable can share packs.
    """
    if settings.slots != "auto" and kept is None:
        slots = bounded(settings.slots, trials=trials, gpus=settings.gpus)
        note = f"Packs of {slots} trials: there are no more of them, --slots {settings.slots} is too many."
        return Choice(slots=slots, why=f"--slots {settings.slots}", note=note if slots < settings.slots else "")
    if not shares_packs or not stacks(own.family):
        return Choice(slots=1, why=f"trials of {own.family} share no packs")
    # Report a missing resource before a benchmark waits for it.
    cluster.capacity(cluster.Share(cpus=settings.cpus, gpus=settings.gpus), private=private)
    if kept is not None:
        choice = Choice(slots=kept, why="as the search began")
    else:
        alone = Programs(compiling, programs, own, dataset, slots=1)
        choice = choose(
            own,
            dataset,
            trials=trials,
            programs=programs,
            compiled=alone.needed(own.as_mapping())["compiled"],
            cpus=settings.cpus,
            gpus=settings.gpus,
            private=private,
        )
    note = f"Packs of {choice.slots} trials: {choice.why}." if choice.slots > 1 else ""
    return Choice(slots=choice.slots, why=choice.why, note=note)


def at_a_time(settings: SearchSettings, *, trials: int, private: bool, slots: int, room: int) -> tuple[int, int]:
    most = settings.max_concurrent
    if settings.scheduler == "pbt":  # the trials of a population take turns
        return trials, most or trials
    if private:
        return slots, most or room
    # Pending trials make a shared cluster grow, but the sampler cannot learn from them.
    return max(1, min(room, MOST_PENDING)), most or trials
