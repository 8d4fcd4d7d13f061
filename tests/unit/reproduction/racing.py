"""Races of a tiny study, and what they report."""

from __future__ import annotations

from collections.abc import Callable

from ladder_search.final.training import EpochReport
from ladder_search.reproduction.reproduction import Race

Begin = Callable[..., Race]
Told = list[tuple[str, EpochReport]]


def told(to: Told, most: int = 10**6) -> Callable[[str, EpochReport], None]:
    def report(what: str, progress: EpochReport) -> None:
        to.append((what, progress))
        if len(to) >= most:
            raise KeyboardInterrupt

    return report
