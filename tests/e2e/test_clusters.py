"""Searches on one cluster of two machines with two (pretended) GPUs each; the last test takes a machine away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ladder_search.training.compiling import compiler_found
from tests.e2e import faults
from tests.e2e.conftest import TINY, Start
from tests.e2e.test_faults import nothing_lost
from tests.e2e.test_packs import accounts_of, main_signature
from tests.e2e.test_stages import SMALL, records_of, sources_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.Machines]:
    with faults.machines(tmp_path_factory.mktemp("machines"), 2, gpus=2) as running:
        yield running


def join(cluster: faults.Machines, folder: Path) -> tuple[str, ...]:
    """Options of a search that trains on the CPUs of the cluster."""
    return ("--address", cluster.address, "--storage", str(folder / "storage"), "--gpus-per-trial", "0")


def test_a_running_cluster_is_joined_and_left_running(start: Start, cluster: faults.Machines, stocked: Path) -> None:
    """By trials that are compiled, where there is a compiler."""
    compiling = ("--compile", "on" if compiler_found() else "off")
    arguments = ("digits-100", "--trials", "3", "--epochs", "10", *compiling, *TINY, *join(cluster, stocked))
    ended = start(*arguments, folder=stocked, RAY_AUTH_MODE="disabled").ended()
    assert ended.code == 0, str(ended)
    states = [record["state"] for record in records_of(ended.study)]
    assert len(states) == 3 and "FAIL" not in states
    assert json.loads((ended.study / "study.json").read_text())["arrangement"]["compiled"] is compiler_found()
    assert cluster.process.poll() is None


def test_the_nodes_of_a_cluster_share_one_source(start: Start, cluster: faults.Machines, stocked: Path) -> None:
    # Each node has two cores, and so two trials: of the first four, one trains the source and the others wait for it.
    arguments = ("--trials", "4", *SMALL, "--slots", "1", "--set", "space.adapter=false", *join(cluster, stocked))
    ended = start("progressive-digits", *arguments, folder=stocked, RAY_AUTH_MODE="disabled").ended()
    assert ended.code == 0, ended
    assert {record["state"] for record in records_of(ended.study)} == {"COMPLETE"}
    assert len(sources_of(ended.study)) == 1


def test_every_gpu_of_a_cluster_has_one_host_and_is_not_idle_while_trials_wait(
    cluster: faults.Machines, stocked: Path
) -> None:
    more = ("--slots", "2", "--trials", "8", "--scheduler", "fifo", "--epochs", "80")
    with faults.on_cluster(stocked, cluster, *more) as search:
        assert search.ended() == 0, search.out()
    nothing_lost(search, search.losses(trials=8))
    accounts = accounts_of(search)
    main = main_signature(accounts)
    places = [(account["node"], account["place"]) for account in accounts if account["signature"] == main]
    assert len(places) == len(set(places)) == 4, "two nodes with two GPUs each"
    for account in accounts:
        assert account["waited_s"] < 0.25 * account["trained_s"] + 1.0, account


def test_a_machine_of_a_cluster_is_lost(cluster: faults.Machines, stocked: Path) -> None:
    search, losses = faults.machine_lost(stocked, cluster)
    nothing_lost(search, losses)
    assert losses.epochs_again > 0  # it was lost in the middle of a trial
    assert {record.state for record in search.study.read_trials()} == {"COMPLETE"}
