"""A race: contenders of a study start with a few seeds, and clearly worse ones get no more.

A race is a group-sequential experiment on the test errors of final trainings. It selects no configuration: the
contenders and their order are fixed by validation errors, and the published one is never dropped. At look j a contender
is dropped if a one-sided paired t-test on the common seeds finds it worse than another one at the level 1 % / 2**j /
(number of comparisons). A contender as good as all others is dropped in at most 1 % of races.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ladder_search.statistics import paired

FIRST_LOOK = 3
LEVEL = 0.01

Errors = Mapping[str, Mapping[int, float]]
"""Contender -> seed -> test error, or the loss of another measure, without seeds that diverged."""


def looks(seeds: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which a race is tested: 3, 6, 12, …, without the final number."""
    counts = []
    count = FIRST_LOOK
    while count < seeds:
        counts.append(count)
        count *= 2
    return (*counts, seeds)


def dropped(errors: Errors, racing: Collection[str], protected: str, look: int, found: int) -> dict[str, str]:
    """Return the contenders dropped at a look (from 1), each with the contender that beat it.

    ``racing`` are the contenders still in the race, including ``protected``, which is never dropped; ``found`` is the
    number of contenders at the start without it.
    """
    comparisons = found * found  # each of them with every other one and with the protected one
    level = LEVEL / 2**look / max(1, comparisons)
    beaten: dict[str, str] = {}
    for name in racing:
        for other in racing:
            if name in (protected, other):
                continue
            common = sorted(errors[name].keys() & errors[other].keys())
            errors_of_name, others = ([errors[who][seed] for seed in common] for who in (name, other))
            if paired(errors_of_name, others, alternative="greater") < level:
                beaten.setdefault(name, other)
    return beaten
