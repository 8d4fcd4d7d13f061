"""The keeper of a search's sources, without Ray: who trains, who waits, and what becomes of those who vanish."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables import keeper as module
from trainables.keeper import Keeper, read_files

FILES = {"MANIFEST.json": b"{}", "weights.safetensors": b"\0\1"}


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def test_the_first_trains_and_the_others_wait_and_get_it(tmp_path: Path, clock: Clock) -> None:
    keeper = Keeper(str(tmp_path), {"mnist": ["reference"]})
    assert keeper.ask("a").train
    assert keeper.ask("a") == module.Answer()
    assert keeper.ask("b").train  # another source is another matter
    keeper.put("a", FILES)
    assert keeper.ask("a").files == FILES
    assert read_files(tmp_path / "a") == FILES
    assert keeper.dataset("mnist") == ["reference"]


def test_the_first_result_counts(tmp_path: Path, clock: Clock) -> None:
    keeper = Keeper(str(tmp_path), {})
    keeper.put("a", FILES)
    keeper.put("a", {"MANIFEST.json": b"other"})
    assert keeper.ask("a").files == FILES == read_files(tmp_path / "a")


def test_what_an_earlier_life_has_trained_is_found(tmp_path: Path, clock: Clock) -> None:
    Keeper(str(tmp_path), {}).put("a", FILES)
    assert Keeper(str(tmp_path), {}).ask("a").files == FILES


def test_who_is_not_heard_of_any_more_is_replaced(tmp_path: Path, clock: Clock) -> None:
    keeper = Keeper(str(tmp_path), {})
    assert keeper.ask("a").train
    clock.now += module.PATIENCE_SECONDS - 1  # the first epoch may compile
    assert not keeper.ask("a").train
    keeper.at_work("a")
    clock.now += 5
    keeper.at_work("a")
    clock.now += module.PATIENCE_EPOCHS * (module.PATIENCE_SECONDS - 1) - 1  # the longest epoch sets the patience
    assert not keeper.ask("a").train
    clock.now += 2
    assert keeper.ask("a").train
    clock.now += module.PATIENCE_SECONDS - 1  # the one who follows has a first epoch of its own
    assert not keeper.ask("a").train


def test_short_epochs_make_a_vanished_one_show_soon(tmp_path: Path, clock: Clock) -> None:
    keeper = Keeper(str(tmp_path), {})
    keeper.ask("a")
    clock.now += 1
    keeper.at_work("a")
    clock.now += 14
    assert not keeper.ask("a").train
    clock.now += 2
    assert keeper.ask("a").train


def test_a_failure_is_final_and_a_crash_is_not(tmp_path: Path, clock: Clock) -> None:
    keeper = Keeper(str(tmp_path), {})
    keeper.ask("a")
    keeper.give_up("a")
    assert keeper.ask("a").train
    keeper.fail("a", "it diverged.")
    assert keeper.ask("a") == module.Answer(failure="it diverged.")


def test_a_disk_that_takes_nothing_costs_the_bundle_only(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("no folder")
    keeper = Keeper(str(tmp_path / "file"), {})
    keeper.put("a", FILES)
    assert keeper.ask("a").files == FILES
