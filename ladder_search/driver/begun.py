"""Decisions that a search makes when it begins and keeps when it is resumed.

The number of trials per pack and compiling change the last digits of results. ``study.json`` stores both as
``arrangement``; only command-line options of a resume change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ladder_search.config import build
from ladder_search.disk.documents import refused
from ladder_search.driver.arrangement import Choice
from ladder_search.driver.packs import Compiling
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.training.compiling import compiler_problem


def new_compiling(settings: SearchSettings) -> Compiling:
    """Return the inputs of the decision to compile for a new search; raise ``SettingError`` for ``--compile on``
    without a working compiler."""
    problem = compiler_problem()
    if settings.compile == "on" and problem:
        raise SettingError(
            f"--compile on needs a working C++ compiler, and this machine has none: {problem}; correct this, or choose "
            "--compile off."
        )
    return Compiling(mode=settings.compile, compiler=problem is None, trials=settings.trials)


def kept_compiling(settings: SearchSettings, arrangement: Mapping[str, Any], folder: Path) -> Compiling:
    """Return the inputs of the decision to compile for a resumed search with this latest ``arrangement``.

    Raises:
        SettingError: steps were compiled, and there is no working compiler.
        StudyFolderError: ``study.json`` is damaged.
    """
    if "compiling" not in arrangement:  # the search began with an earlier version
        return new_compiling(settings)
    with refused(
        folder / "study.json", "hold the options of the search", "restore it or start a new search", StudyFolderError
    ):
        kept = build(Compiling, arrangement["compiling"])
    if settings.compile != kept.mode:
        return replace(new_compiling(settings), trials=kept.trials)
    problem = compiler_problem() if arrangement.get("compiled") else None
    if problem:
        raise SettingError(
            f"a resumed search keeps its options, and steps of {folder} were compiled, which is not possible here: "
            f"{problem}; correct this, or resume with --compile off."
        )
    return kept


def kept_slots(arrangement: Mapping[str, Any]) -> int | None:
    slots = arrangement.get("slots")
    return slots if isinstance(slots, int) and slots >= 1 else None


def as_arrangement(choice: Choice, compiling: Compiling, *, compiled: bool) -> dict[str, Any]:
    """Return the content of ``arrangement``; ``compiled`` is whether the study's own configuration is compiled."""
    return {"slots": choice.slots, "why": choice.why, "compiled": compiled, "compiling": asdict(compiling)}


def in_words(compiling: Compiling, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return lines on whether and why steps are compiled, and on changes since the arrangement ``before``."""
    compiled, earlier = now["compiled"], before.get("compiled")
    if compiling.mode != "auto":
        why = f"--compile {compiling.mode}"
    elif earlier is not None:
        why = "as the search began"
    elif compiled:
        why = "the search is long enough to save more than the minute that compiling takes"
    elif not compiling.compiler:
        why = "no usable C++ compiler"
    else:
        why = "the search is too short to save the minute that compiling takes"
    lines = [f"Steps are {'' if compiled else 'not '}compiled ({why})."]
    if earlier not in (None, compiled):
        lines.append(f"Before, they were{'' if earlier else ' not'}.")
    slots = kept_slots(before)
    if slots not in (None, now["slots"]):
        lines.append(f"Packs had {slots} trials before and have {now['slots']} from now on (--slots).")
    return lines
