"""Searches whose trials share packs: on real Ray, hurt for real, and on a machine that pretends to have a GPU."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ladder_search.metrics import EPOCH
from ladder_search.training.checkpoint import read_member
from tests.e2e import faults
from tests.e2e.test_faults import nothing_lost

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def accounts_of(search: faults.Search) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((search.study.path / "study.json").read_text())["packs"]
    return found


def test_hosts_trials_and_the_driver_are_killed_and_the_search_goes_on(stocked: Path) -> None:
    arguments = (*faults.PACKED, "--epochs", "150")
    saved = faults.SAVED + 11  # so many epochs, and a checkpoint lies behind them
    with faults.Search(stocked, *arguments) as search:
        search.wait_for("t0000", 20)
        search.wait_for("t0002", 20)
        search.wait_for("t0003", 20)
        # The baseline has a pack of its own; of the others, on two cores with two seats each, two share one.
        together: dict[int, set[str]] = defaultdict(set)
        for key, _, pid in search.trained():
            together[pid].add(key)
        host, (first, second) = next((pid, sorted(keys)) for pid, keys in together.items() if len(keys) == 2)
        trials = {key: pid for key, pid, _ in search.processes()}
        assert len({host, *trials.values()}) == 1 + len(trials), "host and trials are processes of their own"
        assert not any(torch for _, _, torch in search.processes()), "a trial's process has PyTorch in it"
        search.wait_for(first, saved)
        search.wait_for(second, saved)
        os.kill(host, signal.SIGKILL)
        new = search.wait_for(first, saved + 9, other_than=host)
        search.wait_for(second, saved + 9, other_than=host)
        os.kill(next(pid for key, pid, _ in reversed(search.processes()) if key == second), signal.SIGKILL)
        assert search.wait_for(first, saved + 30, other_than=host) == new, "a trial's end has moved its neighbour"
        search.wait_for(first, saved + faults.SAVED)
        os.kill(search.process.pid, signal.SIGKILL)
        search.process.wait()
        trained = search.trained()
    with faults.Search(stocked, *arguments, "--resume") as resumed:
        assert resumed.ended() == 0, resumed.out()
        assert re.search(rf"going on with .*{first} from epoch 1\d\d", resumed.out()), resumed.out()
    nothing_lost(resumed, resumed.losses(trials=4))
    # Ray's own agents may outlive a driver that was killed for a while; nothing of a pack does.
    assert search.left(but=r"ray::\w+Agent") == []
    assert resumed.left() == []
    # Only trials of the host that died, and the trial that died, trained epochs twice while the first driver lived.
    twice: dict[tuple[str, int], int] = defaultdict(int)
    for key, epoch, _ in trained:
        twice[key, epoch] += 1
    assert {key for (key, _), times in twice.items() if times > 1} <= {first, second}


def test_a_search_that_is_told_to_end_with_all_its_group_leaves_nothing_behind(stocked: Path) -> None:
    with faults.Search(stocked, *faults.PACKED, "--epochs", "2000") as search:
        search.wait_for("t0000", 30)
        os.killpg(search.process.pid, signal.SIGTERM)  # as `timeout` does it, and batch systems
        assert search.ended() == 1, search.out()
    assert "Interrupted: " in search.out() and "Traceback" not in search.out()
    reported = [record for record in search.study.read_trials() if record.epochs]
    assert "t0000" in {record.key for record in reported}
    for record in reported:
        assert record.checkpoint is not None
        state, _ = read_member(search.study.path / record.checkpoint / "member-0")
        assert state.step == 10 * record.epochs[-1][EPOCH], "a halted trial leaves all its work behind"
    assert search.left() == []


def test_a_population_shares_packs(stocked: Path) -> None:
    # One GPU, and so one host for all that may copy each other; a share less than there are trials: they take turns.
    arguments = ("--slots", "6", "--trials", "7", "--scheduler", "pbt", "--epochs", "60")
    with faults.machines(stocked, 1) as cluster, faults.on_cluster(stocked, cluster, *arguments) as search:
        assert search.ended() == 0, search.out()
    records = search.study.read_trials()
    assert [(record.state, record.epochs[-1][EPOCH]) for record in records] == [("COMPLETE", 60)] * 7
    for record in records:
        ahead = [(a[EPOCH], b[EPOCH]) for a, b in pairwise(record.epochs) if b[EPOCH] != a[EPOCH] + 1]
        assert all(a % 10 == 0 and b % 10 == 1 for a, b in ahead), "only the copy of one further on leaves epochs out"
    assert ": crashed" not in search.out()
    accounts = accounts_of(search)
    (account,) = (one for one in accounts if one["signature"] == main_signature(accounts))
    # A trial that waits for its turn may find that what it was to copy has made room for newer states.
    assert account["copied"] > account["read"], accounts
    assert len({pid for _, pid, _ in search.processes()}) <= 7, "a process that a trial has left is the next one's"


def main_signature(accounts: list[dict[str, Any]]) -> str:
    """The signature that most intervals were trained with; the baseline has another."""
    return str(max(accounts, key=lambda account: account["trial_intervals"])["signature"])
