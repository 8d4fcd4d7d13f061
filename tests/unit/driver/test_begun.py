"""A resume keeps to what the search was begun with: slots of a pack, and whether steps are compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ladder_search.driver import begun
from ladder_search.driver.arrangement import Choice
from ladder_search.driver.begun import as_arrangement, in_words, kept_compiling, kept_slots, new_compiling
from ladder_search.driver.packs import Compiling
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import SettingError, StudyFolderError

ALONE = Choice(slots=1, why="too few trials")
SETTINGS = SearchSettings(study="digits-100", trials=24)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    def there(found: bool) -> None:
        problem = None if found else "no C++ compiler is installed"
        monkeypatch.setattr(begun, "compiler_problem", lambda: problem)

    there(True)
    return there


def test_a_search_keeps_what_it_was_begun_with(compiler: Any, tmp_path: Path) -> None:
    first = new_compiling(SETTINGS)
    assert first == Compiling(mode="auto", compiler=True, trials=24)
    kept = as_arrangement(Choice(slots=4, why="a probe"), first, compiled=True)
    assert kept_compiling(replace(SETTINGS, trials=400), kept, tmp_path) == first, "more trials are the same programs"
    assert kept_slots(kept) == 4 and kept_slots({}) is None and kept_slots({"slots": "many"}) is None


def test_a_search_that_was_begun_without_a_compiler_stays_uncompiled_beside_one(compiler: Any, tmp_path: Path) -> None:
    compiler(False)
    first = new_compiling(SETTINGS)
    compiler(True)
    assert kept_compiling(SETTINGS, as_arrangement(ALONE, first, compiled=False), tmp_path) == first
    assert not first.compiler


def test_compiled_steps_need_a_compiler_where_they_go_on_unless_they_are_switched_off(
    compiler: Any, tmp_path: Path
) -> None:
    kept = as_arrangement(ALONE, new_compiling(SETTINGS), compiled=True)
    compiler(False)
    with pytest.raises(
        SettingError,
        match="were compiled, which is not possible here: no C.. compiler is .* or resume with --compile off",
    ):
        kept_compiling(SETTINGS, kept, tmp_path)
    off = kept_compiling(replace(SETTINGS, compile="off", trials=30), kept, tmp_path)
    assert off == Compiling(mode="off", compiler=False, trials=24)
    now = as_arrangement(Choice(slots=2, why="--slots 2"), off, compiled=False)
    assert in_words(off, kept, now) == [
        "Steps are not compiled (--compile off).",
        "Before, they were.",
        "Packs had 1 trials before and have 2 from now on (--slots).",
    ]
    with pytest.raises(
        SettingError,
        match="--compile on needs a working C.. compiler, .*: no C.. compiler is installed; correct this",
    ):
        new_compiling(replace(SETTINGS, compile="on"))


LONG_ENOUGH = "long enough to save more than the minute that compiling takes"
TOO_SHORT = "too short to save the minute that compiling takes"


def test_an_older_search_has_kept_nothing_and_a_damaged_one_is_refused(compiler: Any, tmp_path: Path) -> None:
    assert kept_compiling(SETTINGS, {"slots": 4, "why": ""}, tmp_path) == new_compiling(SETTINGS)
    for damaged in (None, {}, {"mode": "maybe", "compiler": True, "trials": 3}):
        with pytest.raises(StudyFolderError, match=r"study\.json must hold the options of the search"):
            kept_compiling(SETTINGS, {"compiling": damaged}, tmp_path)


@pytest.mark.parametrize(
    ("compiling", "compiled", "before", "text"),
    [
        (("auto", True), True, None, f"compiled (the search is {LONG_ENOUGH})."),
        (("auto", True), False, None, f"not compiled (the search is {TOO_SHORT})."),
        (("auto", False), False, None, "not compiled (no usable C++ compiler)."),
        (("auto", True), True, True, "compiled (as the search began)."),
        (("on", True), True, None, "compiled (--compile on)."),
    ],
)
def test_the_output_says_whether_steps_are_compiled(
    compiling: tuple[Any, bool], compiled: bool, before: bool | None, text: str
) -> None:
    mode, compiler = compiling
    how = Compiling(mode=mode, compiler=compiler, trials=24)
    earlier = {} if before is None else {"compiled": before, "slots": 1}
    assert in_words(how, earlier, as_arrangement(ALONE, how, compiled=compiled)) == [f"Steps are {text}"]
