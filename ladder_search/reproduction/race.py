"""Which contenders of a study get more seeds: all start with a few, and one that is clearly worse gets no more.

A race is a group-sequential experiment on the test errors of final trainings. It chooses no configuration: the
contenders and their order are fixed by validation errors beforehand, and the published one is never dropped.

At look j a contender is dropped if the one-sided paired t-test on the common seeds finds it worse than another one at
1 % / 2**j / (number of comparisons). A contender as good as all others is dropped in at most 1 % of races.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ladder_search.statistics import paired

FIRST_LOOK = 3
LEVEL = 0.01

Errors = Mapping[str, Mapping[int, float]]
"""Contender -> seed -> test error; a seed that diverged is left out."""


def looks(seeds: int) -> tuple[int, ...]:
    """Return after how many seeds a race looks: 3, 6, 12, … and at the end, which is no look but the result."""
    counts = []
    count = FIRST_LOOK
    while count < seeds:
        counts.append(count)
        count *= 2
    return (*counts, seeds)


def dropped(errors: Errors, racing: Collection[str], protected: str, look: int, found: int) -> dict[str, str]:
    """Return who leaves the race at a look, and who beat it.

    Args:
        racing: contenders still in the race, ``protected`` among them, which never leaves.
        look: 1 for the first.
        found: contenders that the race began with, ``protected`` not counted.
    """
    comparisons = found * found  # each of them with every other one and with the protected
    level = LEVEL / 2**look / max(1, comparisons)
    beaten: dict[str, str] = {}
    for name in racing:
        for other in racing:
            if name in (protected, other):
                continue
            common = sorted(errors[name].keys() & errors[other].keys())
            own, others = ([errors[who][seed] for seed in common] for who in (name, other))
            if paired(own, others, alternative="greater") < level:
                beaten.setdefault(name, other)
    return beaten
