"""What goes wrong around a search, done for real, and that nothing is lost by it; repeated by ``tests.e2e.faults``."""

from __future__ import annotations

import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from ladder_search.training.checkpoint import read_member
from tests.e2e import faults

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def nothing_lost(search: faults.Search, losses: faults.Losses) -> None:
    assert search.process.returncode == 0, search.out()
    costs = (losses.trials_lost, losses.points_lost, losses.points_doubled, losses.differing)
    assert costs == (0, 0, 0, 0), f"{losses}\n{search.out()}"


def test_workers_die_a_clock_steps_and_one_trial_has_no_memory(stocked: Path) -> None:
    search, losses = faults.everything_at_once(stocked)

    nothing_lost(search, losses)
    # One trial is killed near epoch 30, before its first checkpoint; the other near 61, after the one of epoch 50.
    assert losses.epochs_again <= 30 + 40, "a trial went on from an older checkpoint than its last"
    again = [key for key, epoch, _ in search.trained() if key == "t0000" and epoch == 10]
    assert len(again) == 1, "with a notice, a trial leaves everything in a checkpoint"
    published, baseline, greedy, other = search.study.read_trials()
    assert {trial.state for trial in (published, baseline)} == {"COMPLETE"} and other.state != "FAIL"
    assert greedy.state == "FAIL" and greedy.reason.startswith("out of memory: ")
    assert ": crashed" not in search.out() and "Traceback" not in search.out()
    times = defaultdict(list)
    for key, name, _, time_ms, _ in sorted(search.points(), key=lambda point: point[2]):
        times[key, name].append(time_ms)
    assert all(a <= b for found in times.values() for a, b in pairwise(found))
    assert all(0 <= record.seconds < 400 for record in search.study.read_trials())


def test_the_disk_is_full_for_a_while(tmp_path: Path) -> None:
    try:
        search, losses = faults.disk_full(tmp_path)
    except PermissionError as error:
        pytest.skip(str(error))
    nothing_lost(search, losses)
    assert losses.epochs_again == 0, "a checkpoint that found no room cost more than itself"
    published = search.study.read_trials()[0]
    assert published.checkpoint is not None
    state, _ = read_member(search.study.path / published.checkpoint / "member-0")
    assert state.step == 10 * 300


@pytest.mark.skipif(
    "LADDER_SEARCH_FAULTS" not in os.environ, reason="takes minutes each; LADDER_SEARCH_FAULTS=1 runs it"
)
@pytest.mark.parametrize("name", faults.FAULTS)
def test_nothing_is_lost_by_a_fault(name: str, stocked: Path) -> None:
    nothing_lost(*faults.FAULTS[name](stocked))
